"""Linear resampling of label maps: each new voxel takes the label with the largest interpolated share.

The share of a label at a place is the trilinear interpolation of its indicator, so it depends on the eight voxels
around the place alone. They vote with their weights; where all eight agree there is nothing to count. The cost grows
with the boundary between labels, not with their number.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from swinssl.preprocessing.axis_operator import places

VOXELS_AT_ONCE = 1 << 20


class _Neighbours(NamedTuple):
    """Per place along one axis: the voxels below and above, the weight of the upper one, whether it is the nearer.

    Beyond the outermost centres both are the edge voxel.
    """

    lower: NDArray[np.int64]
    upper: NDArray[np.int64]
    weight: NDArray[np.float64]
    upper_nearer: NDArray[np.int64]
    nearest: NDArray[np.int64]


def vote(codes: NDArray, new_shape: tuple[int, int, int]) -> NDArray:
    """Resample a label map linearly, indicator by indicator.

    Ties go to the nearest voxel's label if it is among the tied, else to the smallest; the highest value of the
    integer type (`LabelSet.outside_code`) counts as the smallest there, as nnU-Net's -1 does.

    Args:
        codes: (Z, Y, X) unsigned integers.
        new_shape: (z, y, x) voxels.

    Source: equal to batchgenerators 0.25.5 `resize_segmentation(order=1)`.
    """
    z, y, x = (_neighbours(length, size) for length, size in zip(codes.shape, new_shape, strict=True))
    out = codes[np.ix_(z.nearest, y.nearest, x.nearest)]
    # Slabs bound the memory of the votes, which is 8 labels and 8 float64 weights a voxel on a boundary.
    slab = max(1, VOXELS_AT_ONCE // max(1, new_shape[1] * new_shape[2]))
    for start in range(0, new_shape[0], slab):
        lower = z.lower[start : start + slab]
        first, last = int(lower[0]), min(int(lower[-1]) + 2, codes.shape[0])
        mixed = _mixed_cells(codes[first:last])[np.ix_(lower - first, y.lower, x.lower)]
        planes, rows, columns = np.nonzero(mixed)
        where = (planes + start, rows, columns)
        out[where] = _winners(codes, (z, y, x), where)
    return out


def _neighbours(length: int, size: int) -> _Neighbours:
    at = places(length, size)
    below = np.floor(at).astype(np.int64)
    lower, upper = np.clip(below, 0, length - 1), np.clip(below + 1, 0, length - 1)
    upper_nearer = np.floor(at + 0.5).astype(np.int64) - below
    return _Neighbours(lower, upper, at - below, upper_nearer, np.where(upper_nearer == 1, upper, lower))


def _mixed_cells(codes: NDArray) -> NDArray[np.bool_]:
    """Whether the 2 x 2 x 2 voxels from each voxel upwards carry more than one label."""
    low = high = codes
    for axis in range(3):
        low, high = _with_next(np.minimum, low, axis), _with_next(np.maximum, high, axis)
    return low != high


def _with_next(choose: np.ufunc, array: NDArray, axis: int) -> NDArray:
    first = tuple(slice(None, -1) if i == axis else slice(None) for i in range(3))
    second = tuple(slice(1, None) if i == axis else slice(None) for i in range(3))
    out = array.copy()
    choose(array[first], array[second], out=out[first])
    return out


def _winners(codes: NDArray, axes: tuple[_Neighbours, ...], where: tuple[NDArray, ...]) -> NDArray:
    """The winning label of each place in `where` (three index arrays of N).

    Whether two shares tie can hang on their last bit, so weights and sums are formed exactly as scipy forms them: the
    upper weight as one minus the lower, factors in the order z, y, x, corners added in C order.
    """
    labels, weights = [], []
    for corner in itertools.product((0, 1), repeat=3):
        index, weight = [], np.ones(len(where[0]))
        for upper, axis, place in zip(corner, axes, where, strict=True):
            index.append((axis.upper if upper else axis.lower)[place])
            below = 1 - axis.weight[place]
            weight = weight * (1 - below if upper else below)
        labels.append(codes[tuple(index)])
        weights.append(weight)
    corners, votes = np.stack(labels), np.stack(weights)  # both (8, N)
    shares = np.zeros_like(votes)
    for corner_label, corner_vote in zip(corners, votes, strict=True):
        shares += np.where(corners == corner_label, corner_vote, 0.0)
    tied = shares == shares.max(axis=0)
    # One up, with wrap-around, puts the highest value first in the order of labels.
    rank = corners + codes.dtype.type(1)
    smallest = np.where(tied, rank, np.iinfo(codes.dtype).max).min(axis=0) - codes.dtype.type(1)
    nearest = sum(axis.upper_nearer[place] << (2 - i) for i, (axis, place) in enumerate(zip(axes, where, strict=True)))
    places_ = np.arange(len(nearest))
    return np.where(tied[nearest, places_], corners[nearest, places_], smallest)
