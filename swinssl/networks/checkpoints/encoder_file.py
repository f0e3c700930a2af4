"""An encoder file: tensors, and what it says of itself, inside and as readable JSON beside it.

No torch here, so that commands start fast.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt, ValidationError

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.networks.checkpoints.weights_file import read_shapes, write_weights
from swinssl.networks.network_plan import AxisOrder, NetworkPlan, SwinEncoderPlan, encoder_preset

if TYPE_CHECKING:
    from torch import Tensor

FIRST_KERNEL = "patch_embed.proj.weight"
# Encoders of swinssl 0.1.0 name neither and have no hashes.
FORMAT, VERSION = "swinssl-encoder", "2"


class EncoderRecord(BaseModel):
    """An encoder, as far as its file describes it; None where it does not. Every triple is (z, y, x).

    Args:
        encoder: its form, and how it computes.
        network: where the file holds a whole segmentor: what it is.
        preset: name of its size, where it is a preset's.
        axis_order: of an encoder that is not described otherwise.
        in_channels: of the images.
        source: whose file it was made from.
        original: name of that file.
        original_sha256: of its bytes.
        licence: text of its licence.
        spacing: mm, of the images it was pretrained on.
        patch_size: voxels, likewise.
        intensity: how they were normalised: an `Intensity` of the plans.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    encoder: SwinEncoderPlan | None = None
    network: NetworkPlan | None = None
    preset: str | None = None
    axis_order: AxisOrder | None = None
    in_channels: PositiveInt | None = None
    source: str | None = None
    original: str | None = None
    original_sha256: str | None = None
    licence: str | None = None
    spacing: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    patch_size: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None
    intensity: dict[str, Any] | None = None

    @classmethod
    def from_metadata(cls, path: Path, metadata: dict[str, str]) -> EncoderRecord:
        """The record in the metadata of a safetensors file; each value is JSON, or bare text.

        Raises:
            UserError: a value does not fit.
        """
        _refuse_other_version(path, metadata)
        content = {key: _value(text) for key, text in metadata.items() if key in cls.model_fields}
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            key = str(error.errors()[0]["loc"][0])
            raise UserError(
                f"{path}: its metadata {key} = {metadata[key]!r} cannot be read. Export the encoder again."
            ) from None

    @property
    def described(self) -> SwinEncoderPlan | None:
        """The encoder, or that of its preset; None where neither is said."""
        if self.encoder is not None or self.preset is None:
            return self.encoder
        return encoder_preset(self.preset).model_copy(update={"axis_order": self.axis_order or "zyx"})


def write_encoder(path: Path, tensors: dict[str, Tensor], record: EncoderRecord) -> Path:
    """Write an encoder, its record inside, and the record as JSON beside it; returns where that is.

    Args:
        tensors: by our names.
    """
    said = record.model_dump(mode="json", exclude_none=True)
    metadata = {key: json.dumps(value) for key, value in said.items()}
    write_weights(path, tensors, metadata={**metadata, "format": FORMAT, "version": VERSION})
    beside = path.with_suffix(".json")
    files.write_json(beside, said)
    return beside


def read_encoder_header(path: Path) -> tuple[EncoderRecord, dict[str, tuple[int, ...]]]:
    """The record of an encoder file and its tensors' shapes by name; no tensor is read.

    Of a whole segmentor's file only the encoder is seen, without `encoder.` before its names.

    Raises:
        UserError: the file is missing, not safetensors, or its record cannot be read.
    """
    shapes, metadata = read_shapes(path)
    return EncoderRecord.from_metadata(path, metadata), encoder_part(shapes)


def _refuse_other_version(path: Path, metadata: dict[str, str]) -> None:
    """Raise where an encoder file is of a later version; one of 0.1.0 needs no upgrade but has nothing to check."""
    if metadata.get("format") == FORMAT and metadata.get("version") != VERSION:
        found = metadata.get("version", "none")
        raise UserError(f"{path}: encoder version {found}; this swinssl reads version {VERSION}. Update swinssl.")


def encoder_part(by_name: dict[str, Any]) -> dict[str, Any]:
    """The entries of an encoder, by its own names, out of an encoder's or a whole segmentor's."""
    inside = {name.removeprefix("encoder."): x for name, x in by_name.items() if name.startswith("encoder.")}
    return inside or by_name


def blocks_of(names: Iterable[str], stage: int) -> int:
    """How many transformer blocks a stage has, by the names of an encoder's tensors."""
    start = f"stages.{stage}.blocks."
    return len({name[len(start) :].split(".")[0] for name in names if name.startswith(start)})


def _value(text: str) -> Any:
    try:
        return files.parse_json(text)
    except (ValueError, RecursionError):
        return text
