"""Figure 9 of the paper: accuracy over the size of the pretraining set, or of the model, with confidence bands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from swinssl.core.pictures import legend_name, new_figure
from swinssl.evaluation.comparison.score_table import ScoreTable
from swinssl.evaluation.report.figures.accuracy import Accuracy, accuracy_of
from swinssl.evaluation.report.figures.style import SMALL, WIDTH, colour_of, dash_of, marker_of, plain
from swinssl.metrics.registry import DICE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Size = Literal["volumes", "parameters"]
LABELS: dict[Size, str] = {"volumes": "volumes pretrained on", "parameters": "parameters, millions"}


def size_accuracies(table: ScoreTable, size: Size, *, metric: str = DICE) -> list[tuple[float, str, Accuracy]]:
    """Size, model and accuracy of every model whose size is known, by rising size; of a table of one setting."""
    sizes = {(value, s.model) for s in table.scores if (value := getattr(s, size)) is not None}
    found = [(value, model, accuracy_of(table, model, metric=metric)) for value, model in sorted(sizes)]
    return [(value, model, own) for value, model, own in found if own is not None]


def scaling_figure(table: ScoreTable, size: Size, *, metric: str = DICE) -> Figure | None:
    """A line a setting, its 95 % interval as a band; None where no setting has two sizes.

    Where several models have one size, dots with bars alone: no line says what happens between them.
    """
    found = {name: size_accuracies(part, size, metric=metric) for name, part in table.settings.items()}
    found = {name: own for name, own in found.items() if len({value for value, *_ in own}) > 1}
    if not found:
        return None
    colours, dashes, markers = colour_of([*found]), dash_of([*found]), marker_of([*found])
    figure = new_figure(WIDTH * 0.65, 3.2)
    axes = figure.subplots()
    for name, own in found.items():
        at = np.array([value for value, *_ in own])
        means = np.array([one.mean for *_, one in own])
        below, above = np.array([one.reach for *_, one in own]).T
        single = len(set(at)) == len(at)
        style: dict[str, Any] = {
            "color": colours[name],
            "marker": markers[name],
            "markersize": 5,
            "label": legend_name(name) or None,
        }
        if single:
            axes.fill_between(at, means - below, means + above, color=colours[name], alpha=0.15, linewidth=0)
            axes.plot(at, means, linewidth=1.3, linestyle=dashes[name], **style)
        else:
            axes.errorbar(at, means, yerr=(below, above), linestyle="none", capsize=2, **style)
    axes.set_xlabel(LABELS[size], fontsize=SMALL)
    axes.set_ylabel(f"mean {metric} with 95 % interval", fontsize=SMALL)
    if any(found):
        axes.legend(fontsize=SMALL)
    plain(axes)
    return figure
