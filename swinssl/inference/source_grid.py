"""The way back: from the plan's grid, where the network works, to the grid of the file that a case came from."""

from __future__ import annotations

from dataclasses import dataclass

from numpy.typing import NDArray

from swinssl.core.geometry import Bounds, Shape, box_of, box_shape
from swinssl.imageio.volume import Geometry
from swinssl.preprocessing.case_properties import CaseProperties
from swinssl.preprocessing.prepared_volume import PreparedVolume


@dataclass(frozen=True, eq=False)
class SourceGrid:
    """Where a case on the plan's grid lies in its file. All triples are (z, y, x).

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
        """The way back of a volume just prepared, or of a stored case."""
        source = case.source if isinstance(case, PreparedVolume) else case.source_geometry
        return cls(source, case.crop, case.shape)

    @property
    def cropped_shape(self) -> Shape:
        """Voxels of the crop, on the canonical source grid."""
        return box_shape(box_of(self.crop))

    def crop_of(self, array: NDArray) -> NDArray:
        """The crop of an array on the source grid, axes as the network sees them.

        Args:
            array: (..., Z, Y, X) on `source`.

        Returns:
            (..., *cropped_shape), a view: what is written into it stands in `array` where it belongs in the file.
        """
        return self.source.canonical_map().apply(array)[(..., *box_of(self.crop))]
