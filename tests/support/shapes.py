"""Masks with known sizes, on grids whose spacing differs along every axis."""

from __future__ import annotations

import numpy as np


def ball(shape, centre, radius_mm, spacing=(1.0, 1.0, 1.0)):
    """The voxels whose centres lie within the radius of a (z, y, x) voxel place."""
    axes = np.ogrid[tuple(slice(n) for n in shape)]
    return sum(((a - c) * mm) ** 2 for a, c, mm in zip(axes, centre, spacing, strict=True)) <= radius_mm**2


def box(shape, start, size):
    """`size` voxels from `start`."""
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))] = True
    return mask
