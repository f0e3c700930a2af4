"""Where the values of label maps lie: boxes, so that work on one structure touches its own surroundings alone."""

from __future__ import annotations

from collections.abc import Iterable

from numpy.typing import NDArray

Box = tuple[slice, ...]


def value_boxes(*arrays: NDArray) -> dict[int, Box]:
    """Per value above 0, the smallest box that holds all its voxels in all the arrays.

    Args:
        arrays: (Z, Y, X) non-negative integers, of one shape.
    """
    from scipy import ndimage

    boxes: dict[int, Box] = {}
    for array in arrays:
        for value, box in enumerate(ndimage.find_objects(array), start=1):
            if box is not None:
                boxes[value] = union([box, boxes[value]] if value in boxes else [box])
    return boxes


def union(boxes: Iterable[Box]) -> Box:
    """The smallest box round all of them; an empty one round none."""
    boxes = list(boxes)
    if not boxes:
        return (slice(0), slice(0), slice(0))
    return tuple(slice(min(s.start for s in along), max(s.stop for s in along)) for along in zip(*boxes, strict=True))
