"""Whether two files lie on one grid: the one rule of every command, whatever the storage order of the files is.

The grid of one file is first brought into the storage order of the other, which permutes and flips axes and is exact.
Then the shapes must be equal, and no corner voxel may be more than half a voxel from its counterpart along any axis.
Up to there, resampling by nearest neighbour would copy each voxel to its counterpart, so nothing is gained by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from swinssl.core.geometry import Shape
from swinssl.core.text import dimensions
from swinssl.imageio.image_fault import ImageFault
from swinssl.imageio.volume import AxisMap, Geometry, Volume

GRID_TOLERANCE_VOXELS = 0.5
# Confusing the corner of a voxel with its centre gives exactly half a voxel; float32 headers must not decide then.
ROUNDING_VOXELS = 0.01
# Beyond this the difference is more than rounding in headers, and worth a warning.
NOTICEABLE_VOXELS = 0.1


@dataclass(frozen=True, eq=False)
class GridComparison:
    """A grid beside a reference.

    Args:
        axes: brings arrays on the grid into the reference's storage order.
        shape: (z, y, x) voxels of the grid in that order.
        reference_shape: of the reference.
        voxels: largest distance of a corner from its counterpart along an axis, in voxels of the grid in which it is
            larger; infinite where the shapes differ.
        mm: largest distance of a corner from its counterpart; infinite where the shapes differ.
    """

    axes: AxisMap
    shape: Shape
    reference_shape: Shape
    voxels: float
    mm: float

    @property
    def same(self) -> bool:
        """Whether the two count as one grid."""
        return self.voxels <= GRID_TOLERANCE_VOXELS + ROUNDING_VOXELS

    @property
    def noticeable(self) -> bool:
        """Whether they differ by more than rounding in headers."""
        return self.voxels > NOTICEABLE_VOXELS

    def describe(self, reference_name: str) -> str:
        """The difference in words: a predicate of the file, without a full stop."""
        if self.shape != self.reference_shape:
            shape, reference_shape = dimensions(self.shape), dimensions(self.reference_shape)
            return f"has {shape} voxels (z, y, x); {reference_name} has {reference_shape}"
        return f"lies {self.mm:.2g} mm ({self.voxels:.2g} voxels) from {reference_name} at the worst corner"


def compare_grids(geometry: Geometry, reference: Geometry) -> GridComparison:
    """Compare a grid with a reference, in the storage order of the reference."""
    axes = geometry.map_onto(reference)
    reordered = geometry.mapped(axes)
    voxels = mm = float("inf")
    if reordered.shape == reference.shape:
        # In both units, so that the order of the two does not matter.
        voxels = max(reference.corner_displacement(reordered), reordered.corner_displacement(reference))
        mm = float(np.linalg.norm(reference.corners() - reordered.corners(), axis=0).max())
    return GridComparison(axes, reordered.shape, reference.shape, voxels, mm)


def on_grid_of(volume: Volume, path: Path, *, reference: Geometry, reference_path: Path) -> Volume:
    """The volume in the storage order of the reference, on the reference's grid.

    Raises:
        ImageFault: of the kind `grids`: the two files do not lie on one grid.
    """
    return Volume(require_same_grid(volume.geometry, path, reference, reference_path).apply(volume.array), reference)


def require_same_grid(geometry: Geometry, path: Path, reference: Geometry, reference_path: Path) -> AxisMap:
    """The map that brings arrays of `path` into the storage order of the reference.

    Raises:
        ImageFault: of the kind `grids`: the two files do not lie on one grid.
    """
    comparison = compare_grids(geometry, reference)
    if not comparison.same:
        found = comparison.describe(reference_path.name)
        if comparison.voxels < float("inf"):
            found += f"; up to {GRID_TOLERANCE_VOXELS:g} voxels count as one grid"
        raise ImageFault(path, "grids", found, resample_remedy(reference_path))
    return comparison.axes


def resample_remedy(reference_path: Path) -> str:
    """What the user does about a file on another grid."""
    return f"Resample it onto the grid of {reference_path.name}."
