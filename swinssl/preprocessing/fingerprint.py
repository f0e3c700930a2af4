"""The fingerprint: the measurements of a data set. nnU-Net's file, with further ones under the key `swinssl`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from swinssl.core import files
from swinssl.core.geometry import Shape, Spacing
from swinssl.core.json_model import read_model
from swinssl.dataset.channel_kind import ChannelKind, ImageValues, channel_kind
from swinssl.dataset.labels import LabelSet
from swinssl.preprocessing.plans import IntensityStatistics

FINGERPRINT_FILE = "dataset_fingerprint.json"
# Increased when the extraction measures more, or differently.
FINGERPRINT_VERSION = 2
REMEDY = "Run swinssl_plan."


class _Frozen(BaseModel):
    # nnU-Net's own fingerprint, or one of a later version, may have more keys.
    model_config = ConfigDict(frozen=True, extra="ignore")


class StructureFacts(_Frozen):
    """One structure in one case.

    Args:
        voxels: on the source grid, inside the crop.
        volume_mm3: of those voxels.
        components: connected components (26 neighbours).
        largest_mm3: volume of the largest component.
    """

    voxels: int
    volume_mm3: float
    components: int
    largest_mm3: float


class CaseFacts(_Frozen):
    """One case; shape and spacing after the crop are in nnU-Net's lists at the same index.

    Args:
        id: case id.
        source_shape: (z, y, x) before the crop, canonical axes.
        zero_share: per channel, share of voxels inside the crop that are exactly zero.
        values: per channel, intensities of the whole image.
        structures: facts of the structures with voxels; None for a case without label.
        annotated: structures annotated in this case; None means all.
        header: by kind, contradictions in the headers of its files (`imageio.reader.header_contradictions`).
    """

    id: str
    source_shape: Shape
    zero_share: tuple[float, ...]
    values: tuple[ImageValues, ...] = ()
    structures: dict[str, StructureFacts] | None = None
    annotated: tuple[str, ...] | None = None
    header: dict[str, str] = {}

    def lacks(self, structure: str) -> bool:
        """Whether `structure` was annotated in this case but has no voxel."""
        annotated = self.annotated is None or structure in self.annotated
        return self.structures is not None and annotated and structure not in self.structures


class OwnFacts(_Frozen):
    """Measurements that nnU-Net's fingerprint lacks.

    Args:
        content_hash: of the input files, the description and this version; if it differs, the fingerprint is stale.
        dataset_name: folder name of the raw data set.
        source: absolute path of the raw data set; None in fingerprints of 0.1.0.
        image_sha256: of every image file, sorted; empty in fingerprints of 0.1.0.
        channel_names: image channels in order.
        labels: structures and their codings.
        cases: in the order of nnU-Net's lists.
    """

    version: int = FINGERPRINT_VERSION
    content_hash: str
    dataset_name: str
    source: str | None = None
    image_sha256: tuple[str, ...] = ()
    channel_names: tuple[str, ...]
    labels: LabelSet
    cases: tuple[CaseFacts, ...]


class Fingerprint(_Frozen):
    """The measurements of a data set, axes in canonical order (z, y, x): nnU-Net's schema and one further key.

    Args:
        foreground_intensity_properties_per_channel: by channel index ("0"); over the foreground, each case with equal
            weight; over non-zero voxels if no case has a label.
        median_relative_size_after_cropping: voxels after the crop to non-zero divided by voxels before.
        shapes_after_crop: one per case, sorted by case id.
        spacings: mm, one per case.
        swinssl: further measurements for the planner; nnU-Net ignores them.
    """

    foreground_intensity_properties_per_channel: dict[str, IntensityStatistics]
    median_relative_size_after_cropping: float
    shapes_after_crop: tuple[Shape, ...] = Field(min_length=1)
    spacings: tuple[Spacing, ...] = Field(min_length=1)
    swinssl: OwnFacts

    @classmethod
    def read(cls, path: Path) -> Fingerprint:
        """The fingerprint of a file, or of the `dataset_fingerprint.json` in a folder.

        Raises:
            UserError: missing, not JSON, or without the measurements of swinssl (as in nnU-Net's file).
        """
        path = Path(path)
        if path.is_dir():
            path = path / FINGERPRINT_FILE
        remedy = f"swinssl needs its own fingerprint. {REMEDY}"
        return read_model(cls, path, what="fingerprint", remedy=remedy)

    def write(self, path: Path) -> None:
        """Write atomically."""
        files.write_json(path, self.model_dump(mode="json"))

    @property
    def header_warnings(self) -> tuple[str, ...]:
        """Contradictions in the headers of the files, one sentence per kind with its first case."""
        cases: dict[str, list[CaseFacts]] = {}
        for case in self.swinssl.cases:
            for kind in case.header:
                cases.setdefault(kind, []).append(case)
        return tuple(
            concerned[0].header[kind]
            + (f" So in {len(concerned)} of {len(self.swinssl.cases)} cases." if len(concerned) > 1 else "")
            for kind, concerned in cases.items()
        )

    @property
    def annotated(self) -> bool:
        """Whether any case has a label; otherwise the data set is for pretraining."""
        return any(case.structures is not None for case in self.swinssl.cases)

    @property
    def intensities(self) -> tuple[IntensityStatistics, ...]:
        """Foreground statistics in channel order."""
        return tuple(v for _, v in sorted(self.foreground_intensity_properties_per_channel.items(), key=_channel))

    @property
    def channel_kinds(self) -> tuple[ChannelKind, ...]:
        """The kind of each channel."""
        names, cases = self.swinssl.channel_names, self.swinssl.cases
        values = [[case.values[i] for case in cases if len(case.values) > i] for i in range(len(names))]
        return tuple(
            channel_kind(name, measured or [_guessed(foreground)])
            for name, measured, foreground in zip(names, values, self.intensities, strict=True)
        )

    @property
    def extents_mm(self) -> NDArray[np.float64]:
        """(cases, 3) field of view after the crop, (z, y, x) in mm."""
        return np.asarray(self.shapes_after_crop, float) * np.asarray(self.spacings, float)

    def median_shape(self, spacing: Spacing) -> Shape:
        """Median (z, y, x) shape of the cases on a grid of `spacing` mm (nnU-Net's rounding)."""
        shapes = np.round(self.extents_mm / np.asarray(spacing))
        z, y, x = np.maximum(np.round(np.median(shapes, axis=0)), 1).astype(int)
        return int(z), int(y), int(x)


def _guessed(foreground: IntensityStatistics) -> ImageValues:
    middle = (foreground.percentile_00_5, foreground.median, foreground.percentile_99_5)
    return ImageValues.of_percentiles(low=foreground.min, high=foreground.max, percentiles=middle)


def _channel(item: tuple[str, IntensityStatistics]) -> int:
    return int(item[0])
