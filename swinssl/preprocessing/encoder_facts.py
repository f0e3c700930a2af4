"""What a plan needs to know of a pretrained encoder, read from its file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from swinssl import files
from swinssl.errors import UserError
from swinssl.json_model import first_fault
from swinssl.networks.encoder_file import FIRST_KERNEL, EncoderRecord, blocks_of, read_encoder_header
from swinssl.networks.network_plan import PRESETS, SwinEncoderPlan
from swinssl.preprocessing.plans import EncoderReference, Intensity


@dataclass(frozen=True)
class EncoderFacts:
    """A pretrained encoder, as far as its file describes it; None where it does not.

    Args:
        reference: what the plan keeps of it.
        preset: size of the encoder.
        encoder: its exact form.
        patch_size: (z, y, x) voxels it was trained on.
        intensity: of its pretraining.
    """

    reference: EncoderReference
    preset: str | None = None
    encoder: SwinEncoderPlan | None = None
    patch_size: tuple[int, int, int] | None = None
    intensity: Intensity | None = None


def read_encoder_facts(path: Path) -> EncoderFacts:
    """The facts of an encoder file; no tensor is read.

    The keys are those of `EncoderRecord`, all optional. Where the size is not named it is told from the shapes.

    Raises:
        UserError: the file is missing, not safetensors, holds no Swin encoder, or its metadata cannot be read.
    """
    path = Path(path)
    record, shapes = read_encoder_header(path)
    if FIRST_KERNEL not in shapes:
        raise UserError(
            f"--init {path}: holds no Swin encoder of ours (no {FIRST_KERNEL}). Convert the checkpoint with "
            "swinssl_weights import."
        )
    if record.encoder is None and record.preset is None:
        record = record.model_copy(update={"preset": _preset_of(shapes)})
    encoder = record.described
    return EncoderFacts(
        reference=EncoderReference(
            sha256=files.sha256_of(path),
            name=encoder_name(path),
            spacing=record.spacing,
            axis_order=encoder.axis_order if encoder is not None else record.axis_order or "zyx",
        ),
        preset=record.preset,
        encoder=encoder,
        patch_size=record.patch_size,
        intensity=_intensity(path, record),
    )


def encoder_name(path: Path) -> str:
    """What an encoder is called: its file, with its folder where the file is called like those of other runs."""
    folder, found = path.resolve().parent.name, re.fullmatch("encoder(_best)?", path.stem)
    return f"{folder}{found[1] or ''}" if found else path.stem


def _intensity(path: Path, record: EncoderRecord) -> Intensity | None:
    if record.intensity is None:
        return None
    try:
        return Intensity.model_validate(record.intensity)
    except ValidationError as error:
        raise UserError(f"{path}: its intensity: {first_fault(error)}. Export the encoder again.") from None


def _preset_of(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """The preset of these tensors; the first, where several differ only in what a patch is cut to."""
    width = shapes[FIRST_KERNEL][0]
    depths = tuple(blocks_of(shapes, stage) for stage in range(4))
    found = [n for n, plan in PRESETS.items() if plan.embed_dim == width and plan.depths == depths]
    return found[0] if found else None
