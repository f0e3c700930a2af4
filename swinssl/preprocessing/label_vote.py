"""Linear resampling of label maps: each new voxel takes the label with the largest interpolated weight.

The weight of a label at a position is the trilinear interpolation of its indicator, so it depends only on the eight
voxels around the position. They vote with their weights; if all eight agree, nothing is counted. The cost grows with
the boundary between labels, not with their number.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from swinssl.core.geometry import Shape
from swinssl.preprocessing.axis_operator import places

VOXELS_AT_ONCE = 1 << 20


class _Neighbours(NamedTuple):
    """For each position along one axis: the voxels below and above, the weight of the upper, whether it is nearer.

    Beyond the outermost centres both are the edge voxel.
    """

    lower: NDArray[np.int64]
    upper: NDArray[np.int64]
    weight: NDArray[np.float64]
    upper_nearer: NDArray[np.int64]
    nearest: NDArray[np.int64]


def vote(codes: NDArray, new_shape: Shape) -> NDArray:
    """Resample a label map linearly, indicator by indicator.

    Ties go to the nearest voxel's label if it is among the tied, else to the smallest; the highest value of the
    integer type (`LabelSet.outside_code`) counts as the smallest there, as nnU-Net's -1 does.

    Args:
        codes: (Z, Y, X) unsigned integers.
        new_shape: (z, y, x) voxels.

    Source: equal to batchgenerators 0.25.5 `resize_segmentation(order=1)`.
    """
    z, y, x = (_neighbours(length, size) for length, size in zip(codes.shape, new_shape, strict=True))
    codes = np.ascontiguousarray(codes)
    out = codes[np.ix_(z.nearest, y.nearest, x.nearest)]
    # Slabs limit the memory of the votes: 8 labels and 8 float64 weights per boundary voxel.
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
    """Whether the 2 x 2 x 2 voxels starting at each voxel have more than one label."""
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
    below = [1 - axis.weight[place] for axis, place in zip(axes, where, strict=True)]
    weight = [(lower, 1 - lower) for lower in below]
    # Parts of the flat index of a corner, per axis lower and upper.
    strides = (codes.shape[1] * codes.shape[2], codes.shape[2], 1)
    index = [
        (axis.lower[place] * stride, axis.upper[place] * stride)
        for axis, place, stride in zip(axes, where, strides, strict=True)
    ]
    flat = codes.reshape(-1)
    corners = np.empty((8, len(where[0])), codes.dtype)
    votes = np.empty(corners.shape)
    for corner, (z, y, x) in enumerate(itertools.product((0, 1), repeat=3)):
        corners[corner] = flat[index[0][z] + index[1][y] + index[2][x]]
        votes[corner] = weight[0][z] * weight[1][y] * weight[2][x]
    nearest = sum(axis.upper_nearer[place] << (2 - i) for i, (axis, place) in enumerate(zip(axes, where, strict=True)))
    winner = corners[nearest, np.arange(corners.shape[1])]
    return _contest(corners, votes, winner)


def _contest(corners: NDArray, votes: NDArray[np.float64], favourite: NDArray) -> NDArray:
    """The label with the largest share at each of N places; the favourite keeps a tie, else the smallest label does.

    Most places know two labels, so the labels take turns and a place leaves once all of its own had theirs.

    Args:
        corners: (8, N) labels.
        votes: (8, N) their weights.
        favourite: (N,) the label whose turn is first.
    """
    one = corners.dtype.type(1)
    winner, candidate = favourite.copy(), favourite
    best = np.full(len(winner), -1.0)
    waiting = np.ones(corners.shape, np.bool_)
    here = np.arange(len(winner))
    while len(here):
        share = np.zeros(len(here))
        own = corners == candidate
        for corner in range(8):
            share += np.where(own[corner], votes[corner], 0.0)
        # One up, with wrap-around, puts the highest value (outside) first in the order of labels.
        tie = (share == best[here]) & (winner[here] != favourite[here])
        ahead = (share > best[here]) | (tie & (candidate + one < winner[here] + one))
        winner[here[ahead]], best[here[ahead]] = candidate[ahead], share[ahead]
        waiting &= ~own
        left = waiting.any(axis=0)
        here, corners, votes, waiting = here[left], corners[:, left], votes[:, left], waiting[:, left]
        candidate = np.take_along_axis(corners, waiting.argmax(axis=0)[None], axis=0)[0]
    return winner
