"""Average ranks on a line, with a bar over models that cannot be told apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swinssl.core.pictures import new_figure
from swinssl.evaluation.report.figures.style import COLOURS, SMALL, TEXT, WIDTH
from swinssl.evaluation.statistics.rankings import CriticalDifference

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "critical_difference"
# Inches: of the line of ranks and what is round it at least, and of a letter.
AXIS, LETTER = 5.0, 0.085


def critical_difference_figure(one: CriticalDifference) -> Figure | None:
    """None where it is not permitted (`one.forbidden` says why).

    Source: Demsar, J. Mach. Learn. Res. 7 (2006) 1-30, figure 1.
    """
    if one.difference is None:
        return None
    order = sorted(range(len(one.models)), key=lambda i: one.ranks[i])
    half = (len(order) + 1) // 2
    bars = len(one.cliques)
    step = 0.24
    height = 0.75 + step * (bars + half) + 0.35
    # Long names stand outside the line, which must stay readable between them.
    width = max(WIDTH, AXIS + 2 * LETTER * max(map(len, one.models)))
    figure = new_figure(width, height)
    axes = figure.subplots()
    last = len(order)
    # In units of a row: the line at 0, bars and names below it.
    axes.set(xlim=(1 - 0.34 * (last - 1), last + 0.34 * (last - 1)), ylim=(bars + half + 0.8, -2.6))
    axes.axis("off")
    axes.hlines(0, 1, last, color="black", linewidth=1.2)
    for tick in range(1, last + 1):
        axes.vlines(tick, -0.25, 0, color="black", linewidth=1)
        axes.text(tick, -0.35, str(tick), ha="center", va="bottom", fontsize=SMALL)
    axes.plot([1, 1 + one.difference], [-1.6] * 2, color=COLOURS[1], linewidth=2, marker="|", markersize=8)
    axes.text(1 + one.difference, -1.6, f"  critical difference {one.difference:.2f}", va="center", fontsize=SMALL)
    for level, clique in enumerate(one.cliques, 1):
        ranks = [one.ranks[one.models.index(model)] for model in clique]
        axes.hlines(level - 0.2, min(ranks) - 0.04, max(ranks) + 0.04, color=COLOURS[0], linewidth=3.5)
    for place, index in enumerate(order):
        left = place < half
        row = bars + 0.6 + (place if left else last - 1 - place)
        edge = 1 - 0.05 * (last - 1) if left else last + 0.05 * (last - 1)
        rank = one.ranks[index]
        axes.plot([rank, rank, edge], [0, row, row], color="dimgrey", linewidth=0.9, zorder=0)
        name = f"{one.models[index]} ({rank:.2f})"
        away = -0.01 if left else 0.01
        axes.text(edge + away * last, row, name, ha="right" if left else "left", va="center", fontsize=TEXT)
    axes.set_title(
        f"Average rank over {one.patients} patients, 1 the best; bars: not told apart (p 0.05)", fontsize=TEXT
    )
    return figure
