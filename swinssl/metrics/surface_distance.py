"""How far two masks lie apart: HD95, mean surface distance, surface Dice, and what is predicted far away.

The surface of a mask runs through the corners between voxels: a corner whose eight voxels are neither all inside nor
all outside carries a surfel, whose area is that of the surface patch which marching cubes puts there. Distances go from
surfel to the nearest surfel of the other mask. Counting areas rather than surfels makes the numbers those of a surface
in mm, whatever the voxels' shape.

Source: Nikolov et al., arXiv 1809.04430, section "Performance metrics"; values equal those of its authors'
`surface-distance` package.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swinssl.core.geometry import Spacing

# Spacings stand as float32 in many headers, and an oblique grid's are square roots: a surfel that lies at the tolerance
# counts as within it, whatever the last digits say.
ROUNDING = 1e-5
# Relative error of a sum of areas.
SUMMED = 1e-9
# A false positive this far from the reference, in mm, is no matter of the border: another organ was taken for it.
FAR = 15.0
# Surfels in a leaf of the tree: measured, two thirds of the time of scipy's 10.
LEAF = 32


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """Distances between two surfaces, both ways; nearest first.

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
        """The larger of the two distances (mm) that `percent` of either surface does not exceed."""
        return max(
            _percentile(self.from_reference, self.reference_areas, percent),
            _percentile(self.from_prediction, self.prediction_areas, percent),
        )

    def mean(self) -> float:
        """Mean distance (mm) over both surfaces together, each weighted by its area."""
        weighted = self.from_reference @ self.reference_areas + self.from_prediction @ self.prediction_areas
        return float(weighted / self._area)

    def dice(self, tolerance: float) -> float:
        """Share of both surfaces that lies within `tolerance` (mm) of the other: surface Dice."""
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
        reference: (Z, Y, X); a mask that reaches the array's border is closed there. Crop it to the two structures:
            the time goes with the size.
        prediction: (Z, Y, X).
        spacing: (z, y, x) in mm.

    Raises:
        ValueError: a mask is empty, so that there is nothing to measure to.
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
    """Predicted voxels whose centre lies further than `distance` (mm) from the centre of every reference voxel.

    Args:
        reference: (Z, Y, X) with a voxel at least.
        prediction: (Z, Y, X).
        spacing: (z, y, x) in mm.

    Raises:
        ValueError: the reference is empty, so that nothing is far from it.
    """
    from scipy.ndimage import binary_erosion
    from scipy.spatial import KDTree

    if not reference.any():
        raise ValueError("the distance to an empty mask is undefined")
    limit = distance * (1 + ROUNDING)
    # Outside a box round the reference everything is far, and inside it only false positives are asked about.
    near = tuple(
        slice(max(0, int(places.min()) - reach), int(places.max()) + reach + 1)
        for places, reach in zip(np.nonzero(reference), (int(limit / mm) for mm in spacing), strict=True)
    )
    inside, predicted = reference[near], prediction[near]
    outside_box = int(prediction.sum()) - int(predicted.sum())
    false = np.argwhere(predicted & ~inside)
    if not len(false):
        return outside_box
    # The voxel of the reference that is nearest to one outside it has a face on its border.
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
        # Where inside and outside meet crosswise on a face, the minority's corners are kept apart, so that a mask and
        # its complement have one surface.
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
    """(Z + 1, Y + 1, X + 1): which of the eight voxels round each corner are inside, one bit a voxel, z first."""
    voxels = np.pad(mask, 1).view(np.uint8)
    pairs = voxels[:, :, :-1] << np.uint8(1) | voxels[:, :, 1:]
    squares = pairs[:, :-1] << np.uint8(2) | pairs[:, 1:]
    return squares[:-1] << np.uint8(4) | squares[1:]


def _surfels(codes: NDArray[np.uint8]) -> NDArray[np.integer]:
    """Flat places of the corners that are neither inside (255) nor outside (0), rising."""
    return np.flatnonzero(codes + np.uint8(1) > 1)


def _distances(
    places: NDArray[np.integer], targets: NDArray[np.integer], shape: tuple[int, ...], spacing: Spacing
) -> NDArray[np.float64]:
    """Distance in mm from each of `places` to the nearest of `targets`; both flat and rising, on a grid of `shape`."""
    distances = np.zeros(len(places))
    # Good predictions share most surfels with their reference: nothing is asked about those.
    apart = np.flatnonzero(~np.isin(places, targets, assume_unique=True))
    if len(apart):
        start = np.stack(np.unravel_index(places[apart], shape), axis=1)
        distances[apart] = _apart(start, _nearest(start, targets, shape, spacing), spacing)
    return distances


def _nearest(
    start: NDArray[np.integer], targets: NDArray[np.integer], shape: tuple[int, ...], spacing: Spacing
) -> NDArray[np.integer]:
    """(N, 3) grid place of the target that is nearest to each of `start` (N, 3)."""
    from scipy.spatial import KDTree

    ends = np.stack(np.unravel_index(targets, shape), axis=1)
    # Splitting at the middle, wide boxes and large leaves: built in half the time, and many times faster for points
    # that are about equally far from everything, as those of a prediction elsewhere are.
    tree = KDTree(ends * spacing, leafsize=LEAF, balanced_tree=False, compact_nodes=False)
    return ends[tree.query(start * spacing)[1]]


def _apart(a: NDArray[np.integer], b: NDArray[np.integer], spacing: Spacing) -> NDArray[np.float64]:
    """Distance in mm of grid places, from whole steps, so that it does not depend on where they are."""
    z, y, x = (((a - b) * spacing) ** 2).T
    return np.sqrt(z + y + x)


def _nearest_first(
    distances: NDArray[np.float64], areas: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    order = np.lexsort((areas, distances))
    return distances[order], areas[order]


def _percentile(distances: NDArray[np.float64], areas: NDArray[np.float64], percent: float) -> float:
    """The smallest distance that at least `percent` of the area does not exceed."""
    share = np.cumsum(areas) / areas.sum()
    # Nineteen of twenty equal parts are 95 %, whatever their sum rounds to.
    enough = percent / 100 * (1 - SUMMED)
    return float(distances[min(int(np.searchsorted(share, enough)), len(distances) - 1)])
