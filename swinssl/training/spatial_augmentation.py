"""Rotation and zoom of a patch in one step: a grid of source places, sampled once for image and label."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from swinssl.training.window import Triple

Matrix = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]


@dataclass(frozen=True)
class SpatialChange:
    """A linear map about the patch's centre, from the patch to the source that it is sampled from.

    Args:
        matrix: patch offset (z, y, x) from the centre, in voxels, to source offset, in voxels.
        patch_size: voxels (z, y, x) of the patch.
    """

    matrix: Matrix
    patch_size: Triple

    @property
    def read_size(self) -> Triple:
        """Voxels (z, y, x) of the source that the samples and their neighbours lie in, about the same centre."""
        reach = np.abs(np.array(self.matrix)) @ ((np.array(self.patch_size) - 1) / 2)
        # A voxel beyond the farthest sample on either side, and the patch's parity, so that the centres coincide.
        z, y, x = (p + 2 * math.ceil(r + 1.5 - p / 2) for r, p in zip(reach, self.patch_size, strict=True))
        return z, y, x

    def source_places(self, device: torch.device) -> Tensor:
        """(*patch, 3) float32 source voxel (z, y, x) of every patch voxel, within `read_size`."""
        axes = [torch.arange(p, dtype=torch.float32, device=device) - (p - 1) / 2 for p in self.patch_size]
        places = torch.empty((*self.patch_size, 3), device=device)
        for axis, (row, n) in enumerate(zip(self.matrix, self.read_size, strict=True)):
            z, y, x = (offset * weight for offset, weight in zip(axes, row, strict=True))
            torch.add((z + (n - 1) / 2)[:, None, None] + y[:, None], x, out=places[..., axis])
        return places

    def warp(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """The patch: image by trilinear interpolation, label by `vote`.

        Args:
            image: (C, *read_size) float32.
            label: (*read_size) codes.
        """
        places = self.source_places(image.device)
        normalised = torch.empty_like(places)
        for axis, n in enumerate(image.shape[1:]):  # to (-1, 1) from face to face, x first
            torch.add(places[..., axis] * (2 / n), 1 / n - 1, out=normalised[..., 2 - axis])
        warped = F.grid_sample(image[None], normalised[None], mode="bilinear", align_corners=False)[0]
        return warped, vote(label, places)


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


def vote(label: Tensor, places: Tensor) -> Tensor:
    """The label with the largest trilinear weight at each place; the lower code where two are equal.

    That is the argmax over all labels of the trilinear interpolation of their masks, but no mask is made: where the
    eight corners of a cell agree the answer is known, elsewhere the corners vote with their weights.

    Args:
        label: (Z, Y, X) codes.
        places: (..., 3) voxel coordinates (z, y, x); their cells lie inside the label.
    """
    corner = places.floor()
    _, height, width = label.shape
    strides = (height * width, width, 1)
    at = corner.int()
    index = (at[..., 0] * strides[0]).add_(at[..., 1], alpha=width).add_(at[..., 2]).reshape(-1)
    flat = label.reshape(-1)
    won = flat.index_select(0, index)
    mixed = _mixed_cells(label).reshape(-1).index_select(0, index).nonzero()[:, 0]
    if len(mixed):
        within = (places - corner).reshape(-1, 3).index_select(0, mixed)
        won[mixed] = _winners(flat, index.index_select(0, mixed), within, strides)
    return won.view(places.shape[:-1])


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


def _winners(flat: Tensor, index: Tensor, within: Tensor, strides: tuple[int, int, int]) -> Tensor:
    """The winning code of each of N cells.

    Args:
        flat: all codes.
        index: (N,) flat index of a cell's lowest corner.
        within: (N, 3) place in the cell, 0 to 1.
    """
    codes, weights = [], []
    for corner in range(8):
        upper = [bool(corner >> axis & 1) for axis in range(3)]
        offset = sum(stride for stride, up in zip(strides, upper, strict=True) if up)
        z, y, x = (within[:, axis] if up else 1 - within[:, axis] for axis, up in enumerate(upper))
        # Beyond the last voxel only a corner of weight zero can lie.
        codes.append(flat.index_select(0, (index + offset).clamp_max(len(flat) - 1)))
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
