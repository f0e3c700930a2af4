"""Where an image has content: the non-zero voxels of any channel with their holes filled, and the box around them."""

from __future__ import annotations

import numpy as np
from acvl_utils.cropping_and_padding.bounding_boxes import get_bbox_from_mask
from numpy.typing import NDArray
from scipy import ndimage

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


def nonzero_mask(array: NDArray) -> NDArray[np.bool_]:
    """Voxels that are not zero in some channel, and the holes that they enclose (nnU-Net's rule).

    A hole is a face-connected piece of zeros that does not reach the border, as in `scipy.ndimage.binary_fill_holes`;
    labelling the pieces once takes about a tenth of its repeated dilations.

    Args:
        array: (C, Z, Y, X).

    Returns:
        (Z, Y, X) booleans.
    """
    mask = np.any(array != 0, axis=0)
    if mask.all() or not mask.any():
        return mask
    pieces, count = ndimage.label(~mask)
    reaches_border = np.zeros(count + 1, dtype=bool)
    for axis in range(3):
        for face in (0, -1):
            reaches_border[np.take(pieces, face, axis=axis)] = True
    reaches_border[0] = False  # 0 is the mask itself
    return ~reaches_border[pieces]


def bounding_box(mask: NDArray[np.bool_]) -> Box:
    """[start, stop) along (z, y, x) of the smallest box around the true voxels; the whole array where there is none."""
    if not mask.any():
        z, y, x = mask.shape
        return (0, z), (0, y), (0, x)
    (z0, z1), (y0, y1), (x0, x1) = get_bbox_from_mask(mask)
    return (int(z0), int(z1)), (int(y0), int(y1)), (int(x0), int(x1))
