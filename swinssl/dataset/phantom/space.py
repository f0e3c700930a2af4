"""Shapes in a patient who is never quite the same: distances on a grid whose space is smoothly bent."""

from __future__ import annotations

import copy

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from swinssl.core.geometry import Box, Point, Shape, Spacing

Array = NDArray[np.floating]  # float32 throughout

# A displacement hardly ever exceeds so many times its root mean square.
MOST_BENDS = 4.0


class BentSpace:
    """A grid of points (z, y, x) in mm, canonical axes, bent by a smooth random displacement.

    Args:
        shape: voxels along (z, y, x).
        spacing: mm; the middle of the grid is the origin.
        bend: mm, root mean square of each component of the displacement.
        draws: where the displacement comes from.
    """

    def __init__(self, shape: Shape, spacing: Spacing, *, bend: float, draws: np.random.Generator) -> None:
        self.shape, self.bend = shape, bend
        self.axes = [
            ((np.arange(n) - (n - 1) / 2) * mm).astype(np.float32) for n, mm in zip(shape, spacing, strict=True)
        ]
        straight = np.meshgrid(*self.axes, indexing="ij", sparse=True)
        self.z, self.y, self.x = (axis + bend * smooth_field(shape, modes=4, draws=draws) for axis in straight)

    def box(self, centre: Point, radius: float) -> Box:
        """The voxels that can lie within `radius` mm of a point."""
        reach = radius + MOST_BENDS * self.bend
        z, y, x = (
            slice(*np.searchsorted(axis, (middle - reach, middle + reach)))
            for axis, middle in zip(self.axes, centre, strict=True)
        )
        return z, y, x

    def __getitem__(self, box: Box) -> BentSpace:
        """The part of the space in a box; a view."""
        part = copy.copy(self)
        part.axes = [axis[where] for axis, where in zip(self.axes, box, strict=True)]
        part.z, part.y, part.x = self.z[box], self.y[box], self.x[box]
        z, y, x = part.z.shape
        part.shape = (z, y, x)
        return part

    def ellipsoid(self, centre: Point, radii: Point) -> Array:
        """Distance in mm to an ellipsoid, negative inside; exact on its surface, good near it."""
        (z, y, x), (a, b, c) = centre, radii
        relative = np.square((self.z - z) / a) + np.square((self.y - y) / b) + np.square((self.x - x) / c)
        return (np.sqrt(relative) - 1) * np.float32((a * b * c) ** (1 / 3))

    def tube(self, y: float | Array, x: float | Array, radii: tuple[float, float]) -> Array:
        """Distance in mm to an elliptic cylinder along z, negative inside; its axis may sway with z."""
        relative = np.square((self.y - y) / radii[0]) + np.square((self.x - x) / radii[1])
        return (np.sqrt(relative) - 1) * np.float32((radii[0] * radii[1]) ** 0.5)


def smooth_field(shape: Shape, *, modes: int, draws: np.random.Generator) -> Array:
    """(Z, Y, X) random field of mean square one, made of the lowest cosine modes of each axis; no constant part."""
    amplitudes = draws.standard_normal((modes, modes, modes))
    amplitudes[0, 0, 0] = 0.0
    frequency = np.sqrt(sum(np.square(k) for k in np.meshgrid(*[np.arange(modes)] * 3, indexing="ij")))
    amplitudes /= 1 + frequency
    bases = [np.cos(np.pi * np.outer(np.arange(n) + 0.5, np.arange(modes)) / n) for n in shape]
    field = np.einsum("klm,zk,yl,xm->zyx", amplitudes, *bases, optimize=True)
    return (field / np.sqrt(np.mean(np.square(field)))).astype(np.float32)


def blended(first: Array, second: Array, *, over: float) -> Array:
    """Distance to the union of two shapes whose seam is rounded over so many mm."""
    share = np.clip(0.5 + 0.5 * (second - first) / over, 0, 1)
    return second + share * (first - second) - over * share * (1 - share)


def in_one_piece(distance: Array) -> Array:
    """The shape without the pieces that are not connected with its largest."""
    pieces, count = ndimage.label(distance < 0)
    if count > 1:
        largest = np.bincount(pieces.ravel())[1:].argmax() + 1
        distance = np.where((pieces > 0) & (pieces != largest), np.abs(distance), distance)
    return distance
