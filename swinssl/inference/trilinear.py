"""Trilinear interpolation of logits, and their argmax, on another grid over the same extent.

Interpolation preserves order: a structure with the largest logit at all eight corners of a cell has it everywhere
inside, so only cells whose corners disagree are interpolated. The cost grows with the boundary between structures.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from swinssl.preprocessing.axis_operator import places

# Voxels interpolated at once. On a CPU, intermediate results then fit in the cache; a GPU needs many to be busy.
VOXELS_AT_ONCE, GPU_VOXELS_AT_ONCE = 1 << 15, 1 << 20

Decision = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class AxisNeighbours:
    """The old voxels around the new voxel centres of one axis; beyond the outermost centres, the edge is extended.

    Args:
        lower: (size,) old voxel at or below each new one.
        upper: (size,) the next one; equal to `lower` if the new centre is on an old one.
        weight: (size,) float32 weight of the upper one.
        resampled: False if new and old centres coincide.
    """

    lower: Tensor
    upper: Tensor
    weight: Tensor
    resampled: bool

    @classmethod
    def between(cls, length: int, size: int) -> AxisNeighbours:
        """Neighbours of `size` new voxels among `length` old ones; the inverse of preprocessing."""
        at = torch.from_numpy(places(length, size)).clamp_(0, length - 1)
        lower = at.floor()
        weight = at - lower
        return cls(lower.long(), at.ceil().long(), weight.float(), resampled=bool((weight > 0).any()))

    def part(self, first: int, last: int, *, origin: int = 0, device: torch.device) -> AxisNeighbours:
        """The new voxels [first, last), with old voxels counted from `origin`."""
        part = slice(first, last)
        lower, upper = (self.lower[part] - origin).to(device), (self.upper[part] - origin).to(device)
        return AxisNeighbours(lower, upper, self.weight[part].to(device), self.resampled)

    def among(self, first: int, last: int) -> tuple[int, int]:
        """The new voxels [start, stop) whose neighbours all lie in the old voxels [first, last)."""
        return int((self.lower < first).sum()), int((self.upper < last).sum())


Axes = tuple[AxisNeighbours, AxisNeighbours, AxisNeighbours]


def interpolate(logits: Tensor, axes: Axes) -> Tensor:
    """The logits (K, A, B, C) at all new places of three axes, (K, *sizes)."""
    for dimension, axis in enumerate(axes, start=1):
        if axis.resampled:
            shape = [-1 if i == dimension else 1 for i in range(4)]
            lower, upper = logits.index_select(dimension, axis.lower), logits.index_select(dimension, axis.upper)
            logits = lower.lerp_(upper, axis.weight.reshape(shape))
        elif len(axis.lower) != logits.shape[dimension]:
            logits = logits.index_select(dimension, axis.lower)
    return logits


def decide_at(logits: Tensor, codes: Tensor, axes: Axes, *, decide: Decision) -> Tensor:
    """`decide` of the interpolated logits at all new places of three axes.

    Args:
        logits: (K, A, B, C) float32.
        codes: (A, B, C) `decide(logits)`.
        decide: (K, ...) logits -> (...) codes; equal codes at all corners of a cell must imply that code inside.

    Returns:
        (*sizes) codes.
    """
    lower = [axis.lower for axis in axes]
    out = _take(codes, lower)
    mixed = _mixed_cells(codes, axes)
    if not mixed.any():
        return out
    flat = logits.reshape(len(logits), -1)
    at_once = VOXELS_AT_ONCE if logits.device.type == "cpu" else GPU_VOXELS_AT_ONCE
    for where in _take(mixed, lower).nonzero().split(at_once):
        out[tuple(where.T)] = decide(_interpolate_places(flat, logits.shape[1:], axes, where))
    return out


def _take(array: Tensor, lower: list[Tensor]) -> Tensor:
    for dimension, index in enumerate(lower):
        array = array.index_select(dimension, index)
    return array


def _mixed_cells(codes: Tensor, axes: Axes) -> Tensor:
    """(A, B, C) whether a voxel and its upper neighbours along the resampled axes differ."""
    low = high = codes
    for dimension, axis in enumerate(axes):
        if axis.resampled:
            low, high = _with_next(torch.minimum, low, dimension), _with_next(torch.maximum, high, dimension)
    return low != high


def _with_next(choose: Callable[[Tensor, Tensor], Tensor], array: Tensor, dimension: int) -> Tensor:
    n = array.shape[dimension]
    chosen = choose(array.narrow(dimension, 0, n - 1), array.narrow(dimension, 1, n - 1))
    return torch.cat([chosen, array.narrow(dimension, n - 1, 1)], dimension)


def _interpolate_places(flat: Tensor, shape: tuple[int, ...], axes: Axes, where: Tensor) -> Tensor:
    """(K, N) logits at the N new places `where` (N, 3); `flat` (K, A * B * C)."""
    strides = (shape[1] * shape[2], shape[2], 1)
    corners, shares = [], []
    for axis, stride, place in zip(axes, strides, where.T, strict=True):
        weight = axis.weight[place]
        corners.append((axis.lower[place] * stride, axis.upper[place] * stride))
        shares.append((1 - weight, weight))
    indices, weights = [], []
    for a, b, c in itertools.product((0, 1), repeat=3):
        indices.append(corners[0][a] + corners[1][b] + corners[2][c])
        weights.append(shares[0][a] * shares[1][b] * shares[2][c])
    out = flat.new_zeros(len(flat), len(where))
    # One structure at a time: its logits are read from a few neighbouring planes.
    for values, result in zip(flat, out, strict=True):
        for index, weight in zip(indices, weights, strict=True):
            result.addcmul_(values.index_select(0, index), weight)
    return out
