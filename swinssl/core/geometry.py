"""Shapes, spacings and boxes of voxel arrays. Axis order is (z, y, x) everywhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # options of commands name these types, and --help does without numpy
    import numpy as np
    from numpy.typing import NDArray

# Voxels along (z, y, x).
Shape = tuple[int, int, int]
# mm along (z, y, x): the distance between neighbouring voxel centres.
Spacing = tuple[float, float, float]
# A position (z, y, x) in mm.
Point = tuple[float, float, float]
# A part of an array; indexes its last three axes.
Box = tuple[slice, slice, slice]
# A box as numbers, for files: [start, stop) along (z, y, x).
Bounds = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

EMPTY_BOX: Box = (slice(0, 0), slice(0, 0), slice(0, 0))


def box_of(bounds: Bounds) -> Box:
    """The box with these bounds."""
    z, y, x = (slice(start, stop) for start, stop in bounds)
    return z, y, x


def bounds_of(box: Box) -> Bounds:
    """The bounds of a box, as numbers."""
    z, y, x = ((part.start, part.stop) for part in box)
    return z, y, x


def whole_box(shape: Sequence[int]) -> Box:
    """The box that covers an array of this (z, y, x) shape."""
    z, y, x = (slice(0, n) for n in shape)
    return z, y, x


def box_shape(box: Box) -> Shape:
    """Voxels along (z, y, x) in a box."""
    z, y, x = (part.stop - part.start for part in box)
    return z, y, x


def bounding_box(mask: NDArray[np.bool_]) -> Box:
    """The smallest box that contains all true voxels of a (Z, Y, X) mask; `EMPTY_BOX` if there are none."""
    import numpy as np

    # Projections read the mask twice, in memory order; ndimage.find_objects takes fifty times as long.
    plane = np.logical_or.reduce(mask)
    lines = mask.reshape(len(mask), -1).any(axis=1), plane.any(axis=1), plane.any(axis=0)
    if not lines[0].any():
        return EMPTY_BOX
    z, y, x = (slice(int(places[0]), int(places[-1]) + 1) for places in map(np.flatnonzero, lines))
    return z, y, x


def value_boxes(*arrays: NDArray) -> dict[int, Box]:
    """The bounding box of each value above 0, over all arrays.

    Args:
        arrays: (Z, Y, X) non-negative integers, all of the same shape.
    """
    from scipy import ndimage

    boxes: dict[int, Box] = {}
    for array in arrays:
        for value, box in enumerate(ndimage.find_objects(array), start=1):
            if box is not None:
                z, y, x = box
                boxes[value] = union([(z, y, x), boxes[value]]) if value in boxes else (z, y, x)
    return boxes


def union(boxes: Iterable[Box]) -> Box:
    """The smallest box that contains all boxes; `EMPTY_BOX` if there are none."""
    boxes = list(boxes)
    if not boxes:
        return EMPTY_BOX
    z, y, x = (slice(min(s.start for s in axis), max(s.stop for s in axis)) for axis in zip(*boxes, strict=True))
    return z, y, x


def expanded(box: Box, margin: Sequence[int], shape: Sequence[int]) -> Box:
    """The box, extended by a margin of voxels (z, y, x) on every side and clipped to an array of this shape."""
    z, y, x = (
        slice(max(0, part.start - m), min(n, part.stop + m)) for part, m, n in zip(box, margin, shape, strict=True)
    )
    return z, y, x
