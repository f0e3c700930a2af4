"""Figure 2 of the paper: accuracy of every method on every task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swinssl.evaluation.comparison.score_table import ScoreTable
from swinssl.evaluation.report.figures.accuracy import accuracy_of, accuracy_panels
from swinssl.metrics.registry import DICE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "task_accuracy"


def task_accuracy_figure(table: ScoreTable, *, metric: str = DICE) -> Figure | None:
    """A panel a setting (task, modality, shots); None for a single one."""
    if len(table.settings) < 2:
        return None
    panels = {
        name: {m: own for m in part.models if (own := accuracy_of(part, m, metric=metric)) is not None}
        for name, part in table.settings.items()
    }
    return accuracy_panels(panels, table.models, metric=metric)
