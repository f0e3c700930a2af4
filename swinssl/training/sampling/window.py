"""Where a window of the patch's size may lie in a volume, and where it may lie to show a given voxel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from swinssl.core.geometry import Shape
from swinssl.core.rng import generator as keyed_generator

StartRange = tuple[int, int]

# Places kept of each lesion or structure; windows are placed at random round them anyway.
PLACES_KEPT = 4096


def start_ranges(shape: Sequence[int], patch_size: Sequence[int], *, overhang: float) -> tuple[StartRange, ...]:
    """The lowest and the highest start of a window per axis, both included; negative where it begins before the volume.

    Args:
        shape: voxels (z, y, x) of the volume.
        patch_size: voxels (z, y, x) of the window.
        overhang: how much of the window's edge may lie beyond one face of the volume, 0 to 1. Where the volume is
            shorter than the window, whatever must lie beyond it may all lie on one side.
    """
    ranges = []
    for n, p in zip(shape, patch_size, strict=True):
        beyond = int(overhang * p)
        ranges.append((min(-beyond, n - p), max(n - p + beyond, 0)))
    return tuple(ranges)


def random_start(generator: np.random.Generator, ranges: Sequence[StartRange]) -> Shape:
    """A start, uniformly among all in `ranges`."""
    z, y, x = (int(generator.integers(low, high + 1)) for low, high in ranges)
    return z, y, x


def start_showing(
    generator: np.random.Generator, voxel: Sequence[int], *, patch_size: Sequence[int], ranges: Sequence[StartRange]
) -> Shape:
    """A start, uniformly among those in `ranges` whose window shows `voxel`.

    The voxel's place in the window, `voxel - start`, is uniform over the window where the ranges leave it free.
    """
    showing = [(max(low, v - p + 1), min(high, v)) for v, p, (low, high) in zip(voxel, patch_size, ranges, strict=True)]
    return random_start(generator, showing)


def kept_places(places: NDArray[np.int64], purpose: str) -> NDArray[np.int64]:
    """All of the places (flat voxel indices) to put windows round, or a random few thousand that `purpose` draws."""
    if len(places) <= PLACES_KEPT:
        return places
    return keyed_generator(0, purpose).choice(places, PLACES_KEPT, replace=False, shuffle=False)
