"""Surface distances between two masks: HD95, mean surface distance, surface Dice, and far false positives.

The surface of a mask runs through the corners between voxels: a corner whose eight voxels are neither all inside nor
all outside carries a surfel, whose area is that of the marching cubes patch there. Distances are measured from each
surfel to the nearest surfel of the other mask. Weighting surfels by area makes the result independent of the voxels'
shape.

Source: Nikolov et al., arXiv 1809.04430, section "Performance metrics"; values equal those of its authors'
`surface-distance` package.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swinssl.core.geometry import Spacing

# Many headers store spacings as float32, and those of an oblique grid are square roots: a surfel exactly at the
# tolerance must count as within it despite rounding.
ROUNDING = 1e-5
# Relative error of a sum of areas.
SUMMED = 1e-9
# A false positive this far from the reference, in mm, is not a boundary error: another organ was mistaken for it.
FAR = 15.0
# Surfels per leaf of the tree: measured at two thirds of the time of scipy's default of 10.
LEAF = 32


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """Distances between two surfaces in both directions, in ascending order.

    Args:
        from_reference: (N,) mm from each reference surfel to the nearest predicted one.
        reference_areas: (N,) mm^2 of the reference surfels.
        from_prediction: (M,) mm from each predicted surfel to the nearest reference one.
        prediction_areas: (M,) mm^2 of the predicted surfels.
    """

    from_reference: NDArray[np.float64]
    reference_areas: NDArray[np.float64]
    from_prediction: NDArray[np.float64]
    prediction_areas: NDArray[np.float64]

    def hausdorff(self, percent: float = 95.0) -> float:
        """The larger of the two surfaces' `percent` percentile distances (mm), weighted by area."""
        return max(
            _percentile(self.from_reference, self.reference_areas, percent),
            _percentile(self.from_prediction, self.prediction_areas, percent),
        )

    def mean(self) -> float:
        """Mean distance (mm) over both surfaces together, each weighted by its area."""
        weighted = self.from_reference @ self.reference_areas + self.from_prediction @ self.prediction_areas
        return float(weighted / self._area)

    def dice(self, tolerance: float) -> float:
        """Surface Dice: the fraction of both surfaces that lies within `tolerance` (mm) of the other."""
        limit = tolerance * (1 + ROUNDING)
        within = self.reference_areas[self.from_reference <= limit].sum()
        within += self.prediction_areas[self.from_prediction <= limit].sum()
        return float(within / self._area)

    @property
    def _area(self) -> float:
        return float(self.reference_areas.sum() + self.prediction_areas.sum())


def surface_distances(
    reference: NDArray[np.bool_], prediction: NDArray[np.bool_], spacing: Spacing
) -> SurfaceDistances:
    """Distances between the surfaces of two masks.

    Args:
        reference: (Z, Y, X); a mask that reaches the array's border is closed there. Crop it to the two structures,
            since the time grows with the size.
        prediction: (Z, Y, X).
        spacing: (z, y, x) in mm.

    Raises:
        ValueError: a mask is empty, so the distance is undefined.
    """
    if not (reference.any() and prediction.any()):
        raise ValueError("the distance to an empty mask is undefined")
    areas = surfel_areas(spacing)
    corners, other = _corner_codes(reference), _corner_codes(prediction)
    places, other_places = _surfels(corners), _surfels(other)
    to_prediction = _distances(places, other_places, corners.shape, spacing)
    to_reference = _distances(other_places, places, corners.shape, spacing)
    return SurfaceDistances(
        *_nearest_first(to_prediction, areas[corners.ravel()[places]]),
        *_nearest_first(to_reference, areas[other.ravel()[other_places]]),
    )


def far_false_positives(
    reference: NDArray[np.bool_], prediction: NDArray[np.bool_], spacing: Spacing, *, distance: float = FAR
) -> int:
    """Number of predicted voxels whose centre lies more than `distance` (mm) from that of every reference voxel.

    Args:
        reference: (Z, Y, X) with at least one voxel.
        prediction: (Z, Y, X).
        spacing: (z, y, x) in mm.

    Raises:
        ValueError: the reference is empty, so the distance is undefined.
    """
    from scipy.ndimage import binary_erosion
    from scipy.spatial import KDTree

    if not reference.any():
        raise ValueError("the distance to an empty mask is undefined")
    limit = distance * (1 + ROUNDING)
    # Everything outside a box around the reference is far; inside it, only false positives are queried.
    near = tuple(
        slice(max(0, int(places.min()) - reach), int(places.max()) + reach + 1)
        for places, reach in zip(np.nonzero(reference), (int(limit / mm) for mm in spacing), strict=True)
    )
    inside, predicted = reference[near], prediction[near]
    outside_box = int(prediction.sum()) - int(predicted.sum())
    false = np.argwhere(predicted & ~inside)
    if not len(false):
        return outside_box
    # The reference voxel nearest to a voxel outside it always lies on the border.
    border = np.argwhere(inside & ~binary_erosion(inside, border_value=0))
    tree = KDTree(border * spacing, leafsize=LEAF, balanced_tree=False, compact_nodes=False)
    found, _ = tree.query(false * spacing, distance_upper_bound=limit)
    return outside_box + int(np.isinf(found).sum())


def surfel_areas(spacing: Spacing) -> NDArray[np.float64]:
    """(256,) area in mm^2 of the surface patch in a cell of eight voxels, by the code of `_corner_codes`."""
    z, y, x = spacing
    # Scaling the axes scales each component of a face's area vector by the two other axes.
    return np.linalg.norm(_area_vectors() * (y * x, z * x, z * y), axis=-1).sum(axis=1)


@functools.cache
def _area_vectors() -> NDArray[np.float64]:
    """(256, F, 3) area vectors of the triangles of marching cubes in a unit cell, padded with zeros."""
    from skimage.measure import marching_cubes

    triangles: list[NDArray[np.float64]] = []
    for code in range(256):
        # Where inside and outside meet diagonally on a face, the minority's corners are separated, so that a mask and
        # its complement have the same surface.
        shown = code if code.bit_count() <= 4 else 255 - code
        if shown == 0:
            triangles.append(np.zeros((0, 3)))
            continue
        cell = np.array([shown >> bit & 1 for bit in range(7, -1, -1)], dtype=np.float64).reshape(2, 2, 2)
        points, faces, _, _ = marching_cubes(cell, 0.5, method="lorensen")
        a, b, c = points.astype(np.float64)[faces].transpose(1, 0, 2)
        triangles.append(np.cross(b - a, c - a) / 2)
    vectors = np.zeros((256, max(map(len, triangles)), 3))
    for code, found in enumerate(triangles):
        vectors[code, : len(found)] = found
    return vectors


def _corner_codes(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """(Z + 1, Y + 1, X + 1): which of the eight voxels around each corner are inside, one bit per voxel, z first."""
    voxels = np.pad(mask, 1).view(np.uint8)
    pairs = voxels[:, :, :-1] << np.uint8(1) | voxels[:, :, 1:]
    squares = pairs[:, :-1] << np.uint8(2) | pairs[:, 1:]
    return squares[:-1] << np.uint8(4) | squares[1:]


def _surfels(codes: NDArray[np.uint8]) -> NDArray[np.integer]:
    """Flat indices, ascending, of the corners that are neither inside (255) nor outside (0)."""
    return np.flatnonzero(codes + np.uint8(1) > 1)


def _distances(
    places: NDArray[np.integer], targets: NDArray[np.integer], shape: tuple[int, ...], spacing: Spacing
) -> NDArray[np.float64]:
    """Distance in mm from each of `places` to the nearest of `targets`: flat ascending indices into `shape`."""
    distances = np.zeros(len(places))
    # Good predictions share most surfels with the reference; those need no query.
    apart = np.flatnonzero(~np.isin(places, targets, assume_unique=True))
    if len(apart):
        start = np.stack(np.unravel_index(places[apart], shape), axis=1)
        distances[apart] = _apart(start, _nearest(start, targets, shape, spacing), spacing)
    return distances


def _nearest(
    start: NDArray[np.integer], targets: NDArray[np.integer], shape: tuple[int, ...], spacing: Spacing
) -> NDArray[np.integer]:
    """(N, 3) grid position of the target nearest to each of `start` (N, 3)."""
    from scipy.spatial import KDTree

    ends = np.stack(np.unravel_index(targets, shape), axis=1)
    # Midpoint splits, loose boxes and large leaves: built in half the time, and many times faster for points that are
    # about equally far from all targets, such as those of a prediction elsewhere.
    tree = KDTree(ends * spacing, leafsize=LEAF, balanced_tree=False, compact_nodes=False)
    return ends[tree.query(start * spacing)[1]]


def _apart(a: NDArray[np.integer], b: NDArray[np.integer], spacing: Spacing) -> NDArray[np.float64]:
    """Distance in mm of grid positions, from integer differences, so that it does not depend on the position."""
    z, y, x = (((a - b) * spacing) ** 2).T
    return np.sqrt(z + y + x)


def _nearest_first(
    distances: NDArray[np.float64], areas: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    order = np.lexsort((areas, distances))
    return distances[order], areas[order]


def _percentile(distances: NDArray[np.float64], areas: NDArray[np.float64], percent: float) -> float:
    """The smallest distance that `percent` of the area does not exceed."""
    share = np.cumsum(areas) / areas.sum()
    # 19 of 20 equal areas are 95 %, whatever rounding does to their sum.
    enough = percent / 100 * (1 - SUMMED)
    return float(distances[min(int(np.searchsorted(share, enough)), len(distances) - 1)])
