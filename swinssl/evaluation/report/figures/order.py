"""A matrix: how probable it is, over resamples of the patients, that the row's model is better than the column's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from swinssl.core.pictures import new_figure, tick_names
from swinssl.evaluation.comparison.model_comparison import ModelComparison
from swinssl.evaluation.report.figures.style import HEAT, SMALL, TEXT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "order_probabilities"
CELL = 0.5


def order_figure(one: ModelComparison) -> Figure | None:
    """Models from best to worst; None where patients differ."""
    if one.orders is None or not np.isfinite(one.orders).any():
        return None
    order = np.argsort(-np.nan_to_num(one.orders).sum(axis=1), kind="stable")
    share = one.orders[np.ix_(order, order)]
    names = [one.models[i] for i in order]
    size = CELL * len(names)
    longest = 0.085 * max(map(len, names))
    figure = new_figure(max(4.4, size + longest + 1.4), max(2.6, size + longest + 0.7))
    axes = figure.subplots()
    image = axes.imshow(np.ma.masked_invalid(share), cmap=HEAT, vmin=0, vmax=1)
    for row in range(len(names)):
        for column in range(len(names)):
            if row != column:
                colour = "white" if share[row, column] < 0.5 else "black"
                text = f"{share[row, column]:.2f}"
                axes.text(column, row, text, ha="center", va="center", fontsize=SMALL, color=colour)
    axes.set_xticks(
        range(len(names)), tick_names(names), rotation=45, ha="right", rotation_mode="anchor", fontsize=SMALL
    )
    axes.set_yticks(range(len(names)), tick_names(names), fontsize=SMALL)
    axes.set_title(f"Probability that the row has the better {one.metric}", fontsize=TEXT)
    figure.colorbar(image, ax=axes, shrink=0.8)
    return figure
