"""Rotations of a crop by multiples of 90 degrees in one plane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from swinssl.core.errors import UserError

Plane = Literal["yx", "zx", "zy"]
NUM_ROTATIONS = 4


def rot90(image: NDArray[np.float32], turns: int, *, plane: Plane) -> NDArray[np.float32]:
    """A (C, Z, Y, X) image rotated `turns` times by 90 degrees from the first axis of `plane` towards the second."""
    first, second = _axes(plane)
    return np.ascontiguousarray(np.rot90(image, turns, axes=(first + 1, second + 1)))


def require_square(patch_size: Sequence[int], plane: Plane) -> None:
    """Check that a crop of these edges (z, y, x) keeps its shape when rotated by 90 degrees.

    Raises:
        UserError: its edges in the plane differ.
    """
    first, second = (patch_size[axis] for axis in _axes(plane))
    if first != second:
        raise UserError(
            f"--rotation-plane {plane}: the crop has {first} x {second} voxels in this plane; rotating by "
            "90 degrees needs a square. Choose another plane, or --patch with equal edges."
        )


def _axes(plane: Plane) -> tuple[int, int]:
    return "zyx".index(plane[0]), "zyx".index(plane[1])
