"""Every patient's score as a point over a box, a panel a structure, a row a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from swinssl.core.pictures import new_figure, tick_names
from swinssl.core.rng import generator
from swinssl.evaluation.comparison.model_comparison import ModelComparison
from swinssl.evaluation.report.figures.style import COLOURS, SMALL, TEXT, WIDTH, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "scores"
COLUMNS = 3
ROW = 0.22


def scores_figure(one: ModelComparison) -> Figure:
    """Box: quartiles and median, whiskers to the farthest point within 1.5 boxes; a bar is the mean."""
    columns = min(COLUMNS, len(one.scopes))
    rows = -(-len(one.scopes) // columns)
    figure = new_figure(WIDTH, rows * (0.6 + ROW * len(one.models)) + 0.5)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes, scope in zip(panels.flat, one.scopes, strict=False):
        for row, scores in enumerate(one.of_scope(scope)):
            values = np.array(list(scores.values.values()))
            if not len(values):
                continue
            colour = COLOURS[0]
            axes.boxplot(
                values,
                positions=[row],
                orientation="horizontal",
                widths=0.6,
                showfliers=False,
                medianprops={"color": colour},
                boxprops={"color": "grey"},
                whiskerprops={"color": "grey"},
                capprops={"color": "grey"},
                manage_ticks=False,
            )
            beside = row + generator(0, "points of a figure").uniform(-0.2, 0.2, len(values))
            axes.scatter(values, beside, s=7, color=colour, alpha=0.55, linewidths=0, zorder=3)
            axes.plot([values.mean()] * 2, [row - 0.38, row + 0.38], color=COLOURS[1], linewidth=2, zorder=4)
        axes.set_title(scope.name, fontsize=TEXT)
        axes.set_yticks(range(len(one.models)), tick_names(one.models))
        axes.set_ylim(len(one.models) - 0.4, -0.6)
        plain(axes, grid="x")
    for axes in panels.flat[len(one.scopes) :]:
        axes.set_visible(False)
    # Of a column whose last row is empty, the panel above it has the numbers.
    for column in range(columns):
        last = max(row for row in range(rows) if row * columns + column < len(one.scopes))
        panels[last][column].tick_params(labelbottom=True)
    figure.supxlabel(f"{one.metric} of a patient; box: quartiles, orange bar: mean", fontsize=SMALL)
    return figure
