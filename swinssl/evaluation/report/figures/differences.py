"""A forest plot: each comparison's difference with its interval, over draws where there are several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from swinssl.core.pictures import new_figure, tick_names
from swinssl.evaluation.comparison.model_comparison import ModelComparison, PairwiseTest
from swinssl.evaluation.comparison.paired_comparison import SIGNIFICANT
from swinssl.evaluation.report.figures.style import COLOURS, SMALL, TEXT, WIDTH, plain
from swinssl.metrics.registry import lower_is_better

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "differences"
# More rows than this are no figure to read: then those of all structures alone.
MOST_ROWS = 60
ROW = 0.24


def differences_figure(one: ModelComparison) -> Figure | None:
    """None where nothing was compared.

    Filled: over draws an interval without 0; of a single draw p < 0.05, for named comparisons as it is, else corrected.
    A diamond is the mean over structures.
    """
    shown = [c for c in one.tests if c.scope.is_all or c.prespecified] or list(one.tests)
    if len(one.tests) <= MOST_ROWS:
        # Pair by pair, so that a pair's structures stand together.
        pairs = dict.fromkeys((c.compared.first, c.compared.second) for c in one.tests)
        shown = [c for pair in pairs for c in one.tests if (c.compared.first, c.compared.second) == pair]
    if not shown:
        return None
    figure = new_figure(WIDTH, 1.1 + ROW * len(shown))
    axes = figure.subplots()
    for row, pairwise in enumerate(shown):
        _draw(axes, row, pairwise)
    axes.axvline(0, color="black", linewidth=1)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_yticks(range(len(shown)), tick_names(map(_name, shown)))
    side = "below" if lower_is_better(one.metric) else "above"
    axes.set_xlabel(f"{one.metric}, first - second ({side} 0: the first is better)", fontsize=SMALL)
    over_draws = any(c.compared.over_draws is not None for c in shown)
    what = "Difference over draws and patients" if over_draws else "Typical difference, for these trainings,"
    filled = "0 is outside" if over_draws else "p < 0.05"
    axes.set_title(f"{what} with 95 % interval; filled: {filled}", fontsize=TEXT, loc="left")
    plain(axes, grid="x")
    _p_beside(axes, shown)
    return figure


def _draw(axes: Axes, row: int, pairwise: PairwiseTest) -> None:
    own = pairwise.compared
    colour = COLOURS[1] if pairwise.prespecified else COLOURS[0]
    value, interval = own.headline
    if interval is not None:
        axes.hlines(row, *interval, color=colour, linewidth=1.5)
    clear = pairwise.p < SIGNIFICANT if own.over_draws is None else own.over_draws.excludes_zero
    filled = colour if clear else "white"
    shape, size = ("D", 6) if pairwise.scope.is_all else ("o", 4.5)
    axes.plot(value, row, shape, color=colour, markerfacecolor=filled, markersize=size)


def _p_beside(axes: Axes, shown: Sequence[PairwiseTest]) -> None:
    """The number of draws, or p of a single one, at the right edge, outside the axes."""
    for row, pairwise in enumerate(shown):
        mark = " (named)" if pairwise.prespecified else ""
        over = pairwise.compared.over_draws
        single = "1 draw, " if len(pairwise.compared.by_draw) == 1 else ""
        text = f"{single}p {pairwise.p:.2g}" if over is None else f"{over.draws} draws"
        axes.annotate(
            f"{text}{mark}",
            (1.01, row),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=SMALL,
            annotation_clip=False,
        )


def _name(pairwise: PairwiseTest) -> str:
    own = pairwise.compared
    pair = f"{own.first} - {own.second}"
    return pair if pairwise.scope.is_all else f"{pair}, {pairwise.scope.name}"
