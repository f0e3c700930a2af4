"""The grid of a case's file, onto which results on the plan's grid are mapped back."""

from __future__ import annotations

from dataclasses import dataclass

from numpy.typing import NDArray

from swinssl.core.geometry import Bounds, Shape, box_of, box_shape
from swinssl.imageio.volume import Geometry
from swinssl.preprocessing.case_properties import CaseProperties
from swinssl.preprocessing.prepared_volume import PreparedVolume


@dataclass(frozen=True, eq=False)
class SourceGrid:
    """The position of a case on the plan's grid within its file. All triples are (z, y, x).

    Args:
        source: the grid of the file as stored.
        crop: [start, stop) per axis in voxels of the canonical source grid.
        shape: voxels on the plan's grid, over the extent of the crop.
    """

    source: Geometry
    crop: Bounds
    shape: Shape

    @classmethod
    def of(cls, case: PreparedVolume | CaseProperties) -> SourceGrid:
        """The source grid of a prepared volume or of a stored case."""
        source = case.source if isinstance(case, PreparedVolume) else case.source_geometry
        return cls(source, case.crop, case.shape)

    @property
    def cropped_shape(self) -> Shape:
        """Voxels of the crop, on the canonical source grid."""
        return box_shape(box_of(self.crop))

    def crop_of(self, array: NDArray) -> NDArray:
        """The crop of an array on the source grid, with canonical axes.

        Args:
            array: (..., Z, Y, X) on `source`.

        Returns:
            (..., *cropped_shape), a view: writing into it writes into `array` at the matching place of the file.
        """
        return self.source.canonical_map().apply(array)[(..., *box_of(self.crop))]
