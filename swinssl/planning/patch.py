"""The training patch: edges that a Swin encoder accepts, chosen by the data's shape, memory and time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

from swinssl.core.errors import UserError
from swinssl.core.geometry import Shape, Spacing

# Patch embedding and four mergings halve the map five times.
MULTIPLE = 32
# A volume may be larger than the patch by this factor before the next edge is taken: of 36 voxels an edge of 32 sees
# 8 in 9 and wastes nothing, an edge of 64 would be nearly half padding.
OVERHANG = 1.25
LARGEST_EDGE = 320


def covering_edge(voxels: int) -> int:
    """The smallest edge that sees a volume of `voxels` along this axis but for a quarter of the edge."""
    return max(MULTIPLE, MULTIPLE * math.ceil(voxels / (OVERHANG * MULTIPLE)))


def choose_patch(
    median_shape: Shape, spacing: Spacing, *, fits: Callable[[Shape], bool], most_voxels: int
) -> Shape | None:
    """The patch that shows most of the median volume without being lopsided, among those that fit.

    Of all patches whose edges do not exceed what covers the volume: the one with the largest product of voxels inside
    the volume and (shortest field of view among axes that it does not cover) / (longest field of view), both in mm;
    then the one with the fewest voxels, then with the most axes covered. To lengthen an axis that is the longest
    already thus gains nothing.

    Args:
        median_shape: (z, y, x) voxels of the median case on the grid.
        spacing: mm of the grid.
        fits: whether training with a patch fits memory and time.
        most_voxels: upper limit of the patch's voxels.

    Returns:
        None if not even the smallest patch fits.
    """
    edges = [range(MULTIPLE, min(covering_edge(n), LARGEST_EDGE) + 1, MULTIPLE) for n in median_shape]
    z_edges, y_edges, x_edges = edges
    allowed = [(z, y, x) for z, y, x in itertools.product(z_edges, y_edges, x_edges) if z * y * x <= most_voxels]

    # Best first, so that `fits`, which counts a network's layers, is asked as rarely as possible.
    def rank(patch: Shape) -> tuple[float, int, int, Shape]:
        uncovered = sum(p < covering_edge(n) for p, n in zip(patch, median_shape, strict=True))
        return -round(math.log(merit(patch, median_shape, spacing)), 6), math.prod(patch), uncovered, patch

    return next((patch for patch in sorted(allowed, key=rank) if fits(patch)), None)


def merit(patch: Shape, median_shape: Shape, spacing: Spacing) -> float:
    """How good a patch is; see `choose_patch`."""
    inside = [min(p, n) for p, n in zip(patch, median_shape, strict=True)]
    seen_mm = [n * mm for n, mm in zip(inside, spacing, strict=True)]
    uncovered = [mm for mm, p, n in zip(seen_mm, patch, median_shape, strict=True) if p < covering_edge(n)]
    lopsided = min(uncovered) / max(seen_mm) if uncovered else 1.0
    return math.prod(inside) * lopsided


def padded_share(patch: Shape, median_shape: Shape) -> float:
    """Share of a patch that lies outside the median volume."""
    return 1 - math.prod(min(p, n) / p for p, n in zip(patch, median_shape, strict=True))


def window_count(patch: Shape, shape: Shape) -> int:
    """Windows of a sliding-window prediction at half overlap."""
    return math.prod(max(1, math.ceil((n - p) / (p / 2)) + 1) for p, n in zip(patch, shape, strict=True))


def checked_patch(patch: Shape) -> Shape:
    """`patch`, if a Swin encoder takes it.

    Raises:
        UserError: an edge is not a multiple of 32; the nearest such patch is named.
    """
    if all(edge > 0 and edge % MULTIPLE == 0 for edge in patch):
        return patch
    nearest = " ".join(str(max(MULTIPLE, MULTIPLE * round(edge / MULTIPLE))) for edge in patch)
    raise UserError(
        f"--patch {' '.join(map(str, patch))}: edges must be multiples of {MULTIPLE}, since the encoder halves the map "
        f"five times. The nearest is --patch {nearest}."
    )
