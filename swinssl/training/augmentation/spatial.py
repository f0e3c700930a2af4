"""Rotation and zoom of a patch in one step: the cells that its voxels come from, found once for image and label."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swinssl.core.geometry import Shape

Places = tuple[Tensor, Tensor, Tensor]
Matrix = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]


# Of a patch on a CPU: what lies between places and patch then fits into its cache.
PLANES_AT_ONCE = 16


@dataclass(frozen=True)
class SpatialChange:
    """A linear map about the patch's centre, from the patch to the source that it is sampled from.

    Args:
        matrix: patch offset (z, y, x) from the centre, in voxels, to source offset, in voxels.
        patch_size: voxels (z, y, x) of the patch.
    """

    matrix: Matrix
    patch_size: Shape

    @property
    def read_size(self) -> Shape:
        """Voxels (z, y, x) of the source that the samples and their neighbours lie in, about the same centre."""
        reach = np.abs(np.array(self.matrix)) @ ((np.array(self.patch_size) - 1) / 2)
        # A voxel beyond the farthest sample on either side, and the patch's parity, so that the centres coincide.
        z, y, x = (p + 2 * math.ceil(r + 1.5 - p / 2) for r, p in zip(reach, self.patch_size, strict=True))
        return z, y, x

    def source_places(self, device: torch.device, first: int = 0, last: int | None = None) -> Places:
        """Source voxel z, y and x, each (planes, y, x) float32, of the patch voxels in the planes [first, last)."""
        axes = [torch.arange(p, dtype=torch.float32, device=device) - (p - 1) / 2 for p in self.patch_size]
        axes[0] = axes[0][first:last]
        places = []
        for row, n in zip(self.matrix, self.read_size, strict=True):
            z, y, x = (offset * weight for offset, weight in zip(axes, row, strict=True))
            places.append((z + (n - 1) / 2)[:, None, None] + y[:, None] + x)
        return places[0], places[1], places[2]

    def warp(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """The patch: image by trilinear interpolation, label by the vote of each cell's corners.

        Args:
            image: (C, *read_size) float32.
            label: (*read_size) codes.
        """
        warped, voted = image.new_empty(len(image), *self.patch_size), label.new_empty(self.patch_size)
        vote = Vote(label)
        planes = PLANES_AT_ONCE if image.device.type == "cpu" else self.patch_size[0]
        for first in range(0, self.patch_size[0], planes):
            last = min(first + planes, self.patch_size[0])
            cells = Cells.at(self.source_places(image.device, first, last), label.shape)
            for channel, out in zip(image, warped, strict=True):
                out[first:last] = cells.interpolate(channel).view_as(out[first:last])
            vote.fill(voted[first:last], cells)
        vote.settle()
        return warped, voted


class Cells(NamedTuple):
    """Where N places lie in a volume: each in the cell between a voxel and its next neighbours.

    Args:
        lowest: (N,) int32 flat index of the cell's lowest corner.
        within: z, y and x, each (N,), place in the cell, 0 to 1.
        strides: voxels from one to the next along z, y and x.
    """

    lowest: Tensor
    within: Places
    strides: tuple[int, int, int]

    @classmethod
    def at(cls, places: Places, shape: Sequence[int]) -> Cells:
        """The cells of voxel coordinates that lie inside a volume of `shape`; the coordinates are written over."""
        strides = (shape[1] * shape[2], shape[2], 1)
        lowest: Tensor | None = None
        within = []
        for place, stride in zip(places, strides, strict=True):
            corner = place.floor()
            within.append(place.sub_(corner).reshape(-1))
            whole = corner.int()
            lowest = whole.mul_(stride) if lowest is None else lowest.add_(whole, alpha=stride)
        assert lowest is not None
        return cls(lowest.reshape(-1), (within[0], within[1], within[2]), strides)

    def corner(self, flat: Tensor, upper: Sequence[bool]) -> Tensor:
        """(N,) the value of a flat volume at the corner that is the upper one along these axes."""
        offset = sum(stride for stride, up in zip(self.strides, upper, strict=True) if up)
        return flat.narrow(0, offset, len(flat) - offset).index_select(0, self.lowest)

    def interpolate(self, channel: Tensor) -> Tensor:
        """(N,) trilinear interpolation of a (Z, Y, X) channel."""
        flat = channel.reshape(-1)
        z, y, x = self.within
        lines = []
        for upper_z, upper_y in itertools.product((False, True), repeat=2):
            lower, upper = (self.corner(flat, (upper_z, upper_y, upper_x)) for upper_x in (False, True))
            lines.append(lower.lerp_(upper, x))
        planes = [lines[0].lerp_(lines[1], y), lines[2].lerp_(lines[3], y)]
        return planes[0].lerp_(planes[1], z)

    def among(self, chosen: Tensor) -> Cells:
        """The cells of the places `chosen` (M,)."""
        z, y, x = (place.index_select(0, chosen) for place in self.within)
        return Cells(self.lowest.index_select(0, chosen), (z, y, x), self.strides)


class Vote:
    """The label with the largest trilinear weight at each place; the lower code where two are equal.

    That is the argmax over all labels of the trilinear interpolation of their masks, but no mask is made: where the
    eight corners of a cell agree the answer is known, elsewhere the corners vote with their weights.

    Args:
        label: (Z, Y, X) codes.
    """

    def __init__(self, label: Tensor) -> None:
        self._flat = label.reshape(-1)
        self._mixed = _mixed_cells(label).reshape(-1)
        self._open: list[tuple[Tensor, Tensor, Cells]] = []

    def fill(self, out: Tensor, cells: Cells) -> None:
        """Write the codes of places into the contiguous `out`, of N voxels in all; where corners differ, `settle` does.

        Settling many at once costs less than a few each time.
        """
        target = out.view(-1)
        torch.index_select(self._flat, 0, cells.lowest, out=target)
        mixed = self._mixed.index_select(0, cells.lowest).nonzero()[:, 0]
        if len(mixed):
            self._open.append((target, mixed, cells.among(mixed)))

    def settle(self) -> None:
        """Let the corners of all cells that hold more than one code vote."""
        if not self._open:
            return
        parts = [cells for *_, cells in self._open]
        z, y, x = (torch.cat([part.within[axis] for part in parts]) for axis in range(3))
        cells = Cells(torch.cat([part.lowest for part in parts]), (z, y, x), parts[0].strides)
        won = _winners(self._flat, cells).split([len(mixed) for _, mixed, _ in self._open])
        for (target, mixed, _), codes in zip(self._open, won, strict=True):
            target[mixed] = codes
        self._open.clear()


def rotation(angles: tuple[float, float, float]) -> NDArray[np.float64]:
    """The product of the rotations by `angles` (radians) about the z, y and x axis, in (z, y, x) order."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = (k for k in range(3) if k != axis)
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = math.cos(angle)
        turn[a, b], turn[b, a] = -math.sin(angle), math.sin(angle)
        matrix = matrix @ turn
    return matrix


def _mixed_cells(label: Tensor) -> Tensor:
    """(Z, Y, X) whether the cell between a voxel and its next neighbours holds more than one code."""
    low = high = label
    for axis in range(3):
        n = label.shape[axis] - 1
        low = torch.minimum(low.narrow(axis, 0, n), low.narrow(axis, 1, n))
        high = torch.maximum(high.narrow(axis, 0, n), high.narrow(axis, 1, n))
    mixed = torch.ones(label.shape, dtype=torch.bool, device=label.device)
    mixed[:-1, :-1, :-1] = low != high
    return mixed


def _winners(flat: Tensor, cells: Cells) -> Tensor:
    """(N,) the winning code of each cell; `flat` are all codes."""
    codes, weights = [], []
    for upper in itertools.product((False, True), repeat=3):
        z, y, x = (place if up else 1 - place for place, up in zip(cells.within, upper, strict=True))
        codes.append(cells.corner(flat, upper))
        weights.append(z * y * x)
    corners, shares = torch.stack(codes), torch.stack(weights)
    low, high = corners.amin(0), corners.amax(0)
    is_low, is_high = corners == low, corners == high
    won = torch.where((shares * is_high).sum(0) > (shares * is_low).sum(0), high, low)
    several = (~(is_low | is_high)).any(0).nonzero()[:, 0]  # more than two codes: few cells
    if len(several):
        won[several] = _winners_of_several(corners[:, several], shares[:, several])
    return won


def _winners_of_several(corners: Tensor, shares: Tensor) -> Tensor:
    """(N,) the code with the largest share; the lower one where two are equal.

    Args:
        corners: (8, N) codes.
        shares: (8, N) weights.
    """
    best = torch.full_like(shares[0], -1)
    won = corners[0].clone()
    for code in corners:
        score = (shares * (corners == code)).sum(0)
        better = (score > best) | ((score == best) & (code < won))
        won = torch.where(better, code, won)
        best = torch.maximum(best, score)
    return won
