"""What all figures share: colours, sizes, and how they are written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from swinssl.core.pictures import save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers tell apart, without yellow, which is faint on white; then grey and
# wine. Markers and dashes repeat what colours say, for print in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999", "#882255")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
DASHES = ("-", "--", "-.", ":")
# Of a value from 0 to 1, by lightness alone.
HEAT = "cividis"
TEXT, SMALL = 9, 8
DOTS_PER_INCH = 150
# A page's width in inches.
WIDTH = 7.2


def save(figure: Figure, folder: Path, name: str) -> tuple[str, str]:
    """Write NAME.svg, with its text as text, and NAME.png into a folder; gives their names."""
    names = (f"{name}.svg", f"{name}.png")
    for one in names:
        save_figure(figure, folder / one, dots_per_inch=DOTS_PER_INCH)
    return names


def colour_of(names: Sequence[str]) -> dict[str, str]:
    """A colour for each name, the same in every figure of the same names; repeated where there are too few."""
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}


def marker_of(names: Sequence[str]) -> dict[str, str]:
    """A marker for each name."""
    return {name: MARKERS[i % len(MARKERS)] for i, name in enumerate(names)}


def dash_of(names: Sequence[str]) -> dict[str, str]:
    """A way of drawing a line for each name."""
    return {name: DASHES[i % len(DASHES)] for i, name in enumerate(names)}


def plain(axes: Axes, *, grid: str = "y") -> None:
    """Without a frame, with faint lines to read values by."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, alpha=0.3)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=SMALL)


def legend_below(figure: Figure, axes: Axes, *, columns: int = 5) -> None:
    """One legend for a figure of several panels."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(columns, len(labels)), fontsize=SMALL)
