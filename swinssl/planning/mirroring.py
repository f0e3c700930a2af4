"""The axes that training and test-time augmentation mirror: all, but left-right only if no structure has a side."""

from __future__ import annotations

from swinssl.core.errors import UserError
from swinssl.dataset.labels import LabelSet
from swinssl.preprocessing.plans import PlanWarning

AXES = "zyx"
LEFT_RIGHT = AXES.index("x")


def choose_mirroring(labels: LabelSet, wish: str | None) -> tuple[tuple[int, ...], str, tuple[PlanWarning, ...]]:
    """Array axes (0 z, 1 y, 2 x) that may be mirrored, why, and warnings.

    Args:
        wish: the `--mirror` flag.

    Raises:
        UserError: the flag is invalid.
    """
    laterality = labels.laterality
    if wish is None:
        if laterality:
            return (0, 1), f"not left to right: {laterality}; override with --mirror", ()
        return (0, 1, 2), f"along every axis: {laterality}; override with --mirror", ()
    axes = mirror_axes(wish)
    if not laterality or LEFT_RIGHT not in axes:
        return axes, "as asked", ()
    message = f"--mirror {wish} mirrors left to right, but {laterality}"
    return axes, "as asked", (PlanWarning(decision="mirroring", message=message),)


def mirror_axes(wish: str) -> tuple[int, ...]:
    """The axes of a `--mirror` flag: all, none, or axes such as z,y.

    Raises:
        UserError: it cannot be read.
    """
    spelled = wish.strip().lower()
    if spelled in ("all", "none"):
        return (0, 1, 2) if spelled == "all" else ()
    named = [part.strip() for part in spelled.split(",")]
    if not named or any(axis not in AXES or len(axis) != 1 for axis in named):
        raise UserError(f"--mirror {wish}: expected all, none, or axes with commas such as z,y (x is left-right).")
    return tuple(sorted({AXES.index(axis) for axis in named}))
