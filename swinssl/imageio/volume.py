"""A volume and its place in the patient: voxel array, and the affine from voxel index to world.

Everything is ordered (z, y, x), world coordinates too: world z grows to superior, y to anterior, x to the patient's
right, in mm (NIfTI's RAS+ axes, listed backwards).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinssl.core.geometry import Point, Shape, Spacing


def reversed_axes(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """A (4, 4) affine between index and world of (x, y, z) as one of (z, y, x), or the other way round."""
    order = [2, 1, 0, 3]
    return np.ascontiguousarray(affine[np.ix_(order, order)])


@dataclass(frozen=True)
class AxisMap:
    """A permutation of the three spatial axes followed by flips; exact and invertible.

    Args:
        order: target axis i is source axis order[i].
        flips: whether target axis i runs against its source axis.
    """

    order: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    def apply(self, array: NDArray) -> NDArray:
        """The array with its last three axes mapped; a view where numpy can."""
        lead = array.ndim - 3
        moved = array.transpose(*range(lead), *(lead + axis for axis in self.order))
        return moved[self._flip()]

    def invert(self, array: NDArray) -> NDArray:
        """The array with its last three axes mapped back: `invert(apply(a))` is `a`."""
        lead = array.ndim - 3
        unflipped = array[self._flip()]
        back = [self.order.index(axis) for axis in range(3)]
        return unflipped.transpose(*range(lead), *(lead + axis for axis in back))

    def _flip(self) -> tuple[Any, ...]:
        return (..., *(slice(None, None, -1 if flip else 1) for flip in self.flips))


@dataclass(frozen=True)
class NiftiPlacement:
    """The fields of a NIfTI header that say where its voxels lie, as stored; some viewers read one, some another.

    Args:
        version: 1 or 2.
        pixdim: the first four: the sign of the qform's third axis, then the sizes along x, y, z.
        xyzt_units: code of the units of length and time.
        qform: quaternion b, c, d, then the offset along x, y, z.
        sform: three rows of four.
    """

    version: int
    pixdim: tuple[float, float, float, float]
    xyzt_units: int
    qform_code: int
    qform: tuple[float, ...]
    sform_code: int
    sform: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Geometry:
    """The grid of a volume.

    Args:
        shape: voxels along (z, y, x).
        affine: (4, 4) float64; maps the index (z, y, x, 1) of a voxel's centre to its world place (z, y, x, 1) in mm.
            Kept whole, so that what was read is written back to the bit, sheared grids too.
        nifti: what placed it in a NIfTI file that it was read from, so that results are placed by the same fields.
    """

    shape: Shape
    affine: NDArray[np.float64]
    nifti: NiftiPlacement | None = None

    @classmethod
    def from_parts(
        cls, shape: Shape, *, spacing: Spacing, origin: Point = (0.0, 0.0, 0.0), direction: NDArray | None = None
    ) -> Geometry:
        """A grid from its spacing (mm), origin (mm) and direction cosines (columns = array axes)."""
        affine = np.eye(4)
        affine[:3, :3] = (np.eye(3) if direction is None else np.asarray(direction)) * np.asarray(spacing, float)
        affine[:3, 3] = origin
        return cls(shape, affine)

    @cached_property
    def spacing(self) -> Spacing:
        """Distance of neighbouring voxel centres along (z, y, x) in mm."""
        norms = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(norms[0]), float(norms[1]), float(norms[2])

    @property
    def origin(self) -> Point:
        """World place (z, y, x) of voxel (0, 0, 0) in mm."""
        z, y, x = self.affine[:3, 3]
        return float(z), float(y), float(x)

    @property
    def direction(self) -> NDArray[np.float64]:
        """(3, 3) direction cosines; column i is the unit vector along array axis i."""
        return self.affine[:3, :3] / np.asarray(self.spacing)

    @property
    def voxel_volume(self) -> float:
        """Volume of a voxel in mm^3."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    @property
    def shear(self) -> float:
        """The largest cosine between two axes: 0 where they are at right angles."""
        cosines = self.direction.T @ self.direction
        return float(np.abs(cosines - np.eye(3)).max())

    def corners(self) -> NDArray[np.float64]:
        """(3, 8) world places (z, y, x) of the corner voxels' centres in mm."""
        corners = np.array([(*c, 1.0) for c in itertools.product(*((0, n - 1) for n in self.shape))]).T
        places: NDArray[np.float64] = (self.affine @ corners)[:3]
        return places

    def corner_displacement(self, other: Geometry) -> float:
        """The largest distance between equal corner voxels of two grids of one shape, in voxels of this grid."""
        apart = self.corners() - other.corners()
        return float(np.abs(np.linalg.solve(self.affine[:3, :3], apart)).max())

    def canonical_map(self) -> AxisMap:
        """The axis permutation and flips that bring this grid nearest to world (z, y, x)."""
        return self._nearest_map(self.direction)

    def map_onto(self, reference: Geometry) -> AxisMap:
        """The axis permutation and flips that bring this grid nearest to the axes of another grid."""
        return self._nearest_map(np.linalg.inv(reference.direction) @ self.direction)

    @staticmethod
    def _nearest_map(cosines: NDArray[np.floating]) -> AxisMap:
        """The map onto target axes; `cosines[i, j]` is the component of axis j along target axis i."""
        # Of the six assignments take the one with the largest sum of cosines: the best-aligned one, always a bijection.
        order = max(itertools.permutations(range(3)), key=lambda p: sum(abs(cosines[i, p[i]]) for i in range(3)))
        a, b, c = order
        return AxisMap((a, b, c), (bool(cosines[0, a] < 0), bool(cosines[1, b] < 0), bool(cosines[2, c] < 0)))

    def mapped(self, axes: AxisMap) -> Geometry:
        """The grid of an array after `axes.apply`; every voxel keeps its world place."""
        matrix = np.zeros((4, 4))
        matrix[3, 3] = 1.0
        for target, (source, flip) in enumerate(zip(axes.order, axes.flips, strict=True)):
            matrix[source, target] = -1.0 if flip else 1.0
            matrix[source, 3] = self.shape[source] - 1 if flip else 0.0
        z, y, x = (self.shape[source] for source in axes.order)
        return Geometry((z, y, x), self.affine @ matrix)


@dataclass(frozen=True, eq=False)
class Volume:
    """An image or label map in its place. Made only by `imageio`.

    Args:
        array: (C, Z, Y, X).
        geometry: the grid of the last three axes.
    """

    array: NDArray
    geometry: Geometry

    def __post_init__(self) -> None:
        if self.array.ndim != 4 or self.array.shape[1:] != self.geometry.shape:
            raise ValueError(f"array {self.array.shape} does not fit (C, *{self.geometry.shape})")

    def canonical(self) -> tuple[Volume, AxisMap]:
        """The volume with its axes nearest to world (z, y, x), and the map that did it.

        After it the x axis is the patient's left-right axis, whatever the file's storage order was.
        """
        axes = self.geometry.canonical_map()
        return Volume(axes.apply(self.array), self.geometry.mapped(axes)), axes
