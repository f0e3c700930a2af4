"""Figure 3 of the paper: accuracy by group of organs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from swinssl.evaluation.comparison.organ_groups import groups_within
from swinssl.evaluation.comparison.score_table import ScoreTable
from swinssl.evaluation.report.figures.accuracy import accuracy_of, accuracy_panels
from swinssl.metrics.registry import DICE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "organ_groups"


def organ_groups_figure(table: ScoreTable, groups: Mapping[str, Sequence[str]], *, metric: str = DICE) -> Figure | None:
    """A panel a group, of a table of one setting; None without groups."""
    within = groups_within(groups, table.structures)
    if not within:
        return None
    panels = {
        f"{name} ({len(own)})": {
            model: found
            for model in table.models
            if (found := accuracy_of(table, model, metric=metric, structures=own)) is not None
        }
        for name, own in within.items()
    }
    return accuracy_panels(panels, table.models, metric=metric)
