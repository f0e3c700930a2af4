"""The properties of a preprocessed case, and the hash of everything that its content depends on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from swinssl.core.errors import UserError
from swinssl.core.geometry import Bounds, Shape, Spacing
from swinssl.core.json_model import read_model
from swinssl.imageio.volume import Geometry, NiftiPlacement
from swinssl.preprocessing.plans import Plans, sha256_of_json

STORE_VERSION = 2
REMEDY = "Run swinssl_preprocess: it creates missing, outdated and damaged cases again."


class StoredFile(BaseModel):
    """The expected length in bytes and SHA-256 of a file."""

    model_config = ConfigDict(frozen=True)

    bytes: int
    sha256: str


class InputFile(BaseModel):
    """Size of an input file, and its modification time in ns since 1970."""

    model_config = ConfigDict(frozen=True)

    bytes: int
    mtime_ns: int


class CaseProperties(BaseModel):
    """Everything about a preprocessed case except its voxels. All triples are (z, y, x).

    Args:
        source_shape: voxels of the file as stored.
        source_affine: (4, 4) `Geometry.affine` of the file as stored.
        source_nifti: its `Geometry.nifti`, so that label maps of stored cases use the same placement fields.
        crop: [start, stop) per axis in voxels of the canonical (`Volume.canonical`) source grid.
        cropped_spacing: mm, of the canonical source grid.
        shape: voxels of the stored arrays.
        spacing: mm, of the stored arrays: crop extent divided by shape, close but not equal to the plan's spacing.
        labels_present: structures annotated in this case; None means all.
        annotated: whether label and locations are stored.
        voxels_before: per structure, voxels on the source grid, before the crop.
        voxels_after: per structure, voxels in the stored label.
        input_sha256: content hash per input file: `image_0000` and so on by channel, `label`.
        input_files: sizes and times of these files; empty in stores of swinssl 0.1.0.
        content_hash: of everything that the stored arrays depend on; see `content_hash`.
        files: the files beside this one.
        sha256: of all of the above.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = STORE_VERSION
    case_id: str
    source_shape: Shape
    source_affine: tuple[tuple[float, float, float, float], ...]
    source_nifti: NiftiPlacement | None = None
    crop: Bounds
    cropped_spacing: Spacing
    shape: Shape
    spacing: Spacing
    labels_present: tuple[str, ...] | None = None
    annotated: bool
    voxels_before: dict[str, int] = {}
    voxels_after: dict[str, int] = {}
    input_sha256: dict[str, str] = {}
    input_files: dict[str, InputFile] = {}
    content_hash: str = ""
    files: dict[str, StoredFile] = {}
    sha256: str = ""

    @classmethod
    def read(cls, path: Path) -> CaseProperties:
        """The properties in a file.

        Raises:
            UserError: missing, not JSON, of another version, with a field that does not fit, or damaged.
        """
        properties = read_model(cls, path, what="preprocessed case", remedy=REMEDY, version=STORE_VERSION)
        if properties.sha256 != properties.computed_sha256:
            raise UserError(f"{path}: damaged: its content has changed since it was written. {REMEDY}")
        return properties

    @property
    def computed_sha256(self) -> str:
        """Hash of all other fields."""
        return sha256_of_json(self.model_dump(mode="json", exclude={"sha256"}, exclude_defaults=True))

    @property
    def image_sha256(self) -> dict[str, str]:
        """Content hashes of the image files, by channel."""
        return {name: value for name, value in self.input_sha256.items() if name.startswith("image")}

    @property
    def source_geometry(self) -> Geometry:
        """The grid of the file as stored."""
        return Geometry(self.source_shape, np.array(self.source_affine, dtype=np.float64), self.source_nifti)


def content_hash(
    input_sha256: Mapping[str, str], plans: Plans, labels_present: tuple[str, ...] | None, *, code_version: int = 2
) -> str:
    """Hash of everything that a stored case depends on: input files, plans, annotated structures, format and code.

    `code_version` is increased when preprocessing gives different numbers.
    """
    parts = [dict(input_sha256), plans.preprocessing_key, labels_present, STORE_VERSION, code_version]
    return sha256_of_json(parts)


def check_version(path: Path, version: object) -> None:
    """Raise a UserError if a file of the store has another version."""
    if str(version) != str(STORE_VERSION):
        raise UserError(f"{path}: store version {version}; this swinssl reads version {STORE_VERSION}. {REMEDY}")
