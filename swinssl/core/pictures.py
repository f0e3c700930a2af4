"""Figures and how they are written: names in them are text, and one that cannot be drawn never ends a run."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.core.text import printable, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

# In characters; longer ones would push everything else out of the picture.
LONGEST_TICK, LONGEST_NAME, LONGEST_LINE = 48, 60, 160


def new_figure(width: float, height: float) -> Figure:
    """A figure of so many inches, without pyplot: no global state, no display, safe in any thread."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def legend_name(name: str) -> str:
    """`name` as the label of a curve; matplotlib leaves out of a legend what begins with an underscore."""
    return f" {name}" if name.startswith("_") else name


def tick_names(names: Iterable[str]) -> list[str]:
    """Names beside an axis, short enough to leave it room."""
    return [shortened(name, LONGEST_TICK) for name in names]


def save_figure(figure: Figure, path: Path, *, dots_per_inch: int) -> None:
    """Write a figure as the ending of `path` says, PNG or SVG with its text as text.

    No label is taken for mathematics, and none reorders or breaks what stands around it. The same figure is the same
    file: a fixed salt and no date.
    """
    from matplotlib import rc_context
    from matplotlib.legend import Legend
    from matplotlib.text import Text

    vector = path.suffix == ".svg"
    names = {label for legend in figure.findobj(Legend) for label in legend.get_texts()}
    for label in figure.findobj(Text):
        longest = LONGEST_NAME if label in names else LONGEST_LINE
        label.set_parse_math(False)
        label.set_text("\n".join(shortened(printable(line), longest) for line in label.get_text().split("\n")))
    style: Any = {"svg.fonttype": "none", "svg.hashsalt": "swinssl", "text.parse_math": False}
    with rc_context(style), warnings.catch_warnings(), files.atomic_path(path) as temporary:
        # An empty box says as much of a character that the font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(temporary, dpi=dots_per_inch, facecolor="white", metadata={"Date": None} if vector else None)
        if vector:  # labels of ticks are made while it is drawn
            drawn = temporary.read_text(encoding="utf-8", errors="surrogateescape")
            temporary.write_text(printable(drawn, keep="\n\t"), encoding="utf-8", newline="\n")


@contextlib.contextmanager
def spare_the_run(path: Path) -> Iterator[None]:
    """Draw the picture `path` in the block; where that fails a warning says so, and the run goes on without it."""
    try:
        yield
    except Exception as error:
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        logger.warning("warning: %s is not drawn (%s); everything else continues.", path, reason)
