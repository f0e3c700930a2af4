"""The mean of a model with its interval, and panels of them: a row a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from swinssl.core.pictures import new_figure, tick_names
from swinssl.evaluation.comparison.score_table import ScoreTable
from swinssl.evaluation.report.figures.style import SMALL, TEXT, WIDTH, colour_of, marker_of, plain
from swinssl.evaluation.statistics.bootstrap import mean_interval
from swinssl.metrics.registry import DICE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 3
# More numbers would touch each other.
TICKS = 4
ROW = 0.22


@dataclass(frozen=True)
class Accuracy:
    """A mean over patients.

    Args:
        interval: 95 %, from resampling patients; None for under three.
    """

    mean: float
    interval: tuple[float, float] | None

    @property
    def reach(self) -> tuple[float, float]:
        """How far the interval goes below and above the mean."""
        low, high = self.interval or (self.mean, self.mean)
        return max(0.0, self.mean - low), max(0.0, high - self.mean)


def accuracy_of(
    table: ScoreTable, model: str, *, metric: str = DICE, structures: Sequence[str] | None = None
) -> Accuracy | None:
    """None where the model has no score."""
    values = list(table.unit_means(model, metric=metric, structures=structures).values())
    return Accuracy(float(np.mean(values)), mean_interval(values)) if values else None


def accuracy_panels(panels: Mapping[str, Mapping[str, Accuracy]], models: Sequence[str], *, metric: str) -> Figure:
    """A panel a title, a row a model, a dot with its 95 % interval; the best of a panel is ringed by a line."""
    from matplotlib.ticker import MaxNLocator

    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(WIDTH, rows * (0.55 + ROW * len(models)) + 0.4)
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
    colours, markers = colour_of(models), marker_of(models)
    for one, (title, found) in zip(axes.flat, panels.items(), strict=False):
        for row, model in enumerate(models):
            if (own := found.get(model)) is None:
                continue
            reach = np.array(own.reach)[:, None]
            one.errorbar(own.mean, row, xerr=reach, color=colours[model], fmt=markers[model], markersize=5, capsize=2)
        if found:
            one.axvline(max(own.mean for own in found.values()), color="grey", linewidth=0.8, linestyle=":")
        one.set_title(title, fontsize=TEXT)
        one.set_yticks(range(len(models)), tick_names(models))
        one.set_ylim(len(models) - 0.5, -0.5)
        one.xaxis.set_major_locator(MaxNLocator(TICKS))
        plain(one, grid="x")
    for one in axes.flat[len(panels) :]:
        one.set_visible(False)
    figure.supxlabel(f"mean {metric} over patients with 95 % interval; dotted: the highest", fontsize=SMALL)
    return figure
