"""Keep the largest connected component of a structure, or of several together; the rest of it becomes background."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from swinssl.dataset.label_boxes import union, value_boxes


def keep_largest(label_map: NDArray, groups: Sequence[Collection[int]]) -> None:
    """Of each group's voxels, one group after another, keep the largest component, in place.

    Voxels that share a corner are connected (26 neighbours). Of equally large components all stay: which of them came
    first would depend on the order that a file stores its voxels in. Takes 5 bytes a voxel of the box round the
    largest group.

    Args:
        label_map: (Z, Y, X) non-negative integers.
        groups: label values; those of one group count as one mask.
    """
    if not groups:
        return
    boxes = value_boxes(label_map)  # what is removed only makes them larger than need be
    for values in groups:
        around = union(boxes[value] for value in values if value in boxes)
        _keep_largest(label_map[around], values)


def _keep_largest(label_map: NDArray, values: Collection[int]) -> None:
    from scipy import ndimage

    # Plane by plane, since looking values up takes 8 bytes for each at once.
    mask = np.empty(label_map.shape, dtype=bool)
    for plane, inside in zip(label_map, mask, strict=True):
        inside[:] = np.isin(plane, list(values))
    parts, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    if count < 2:
        return
    sizes = np.zeros(count + 1, dtype=np.int64)
    for own, inside in zip(parts, mask, strict=True):
        found = np.bincount(own[inside])
        sizes[: len(found)] += found
    removed = sizes < sizes.max()
    removed[0] = False  # what is not of the group
    for plane, own in zip(label_map, parts, strict=True):
        plane[removed[own]] = 0
