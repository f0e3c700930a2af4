"""What a pretrained encoder's file says of how it was trained: safetensors metadata, each value a JSON string."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from swinssl import files
from swinssl.errors import UserError
from swinssl.networks.network_plan import PRESETS, SwinEncoderPlan, encoder_preset
from swinssl.preprocessing.plans import EncoderReference, Intensity

FIRST_KERNEL = "patch_embed.proj.weight"
T = TypeVar("T")


@dataclass(frozen=True)
class EncoderFacts:
    """A pretrained encoder, as far as its file describes it; None where it does not.

    Args:
        reference: what the plan keeps of it.
        preset: size of the encoder.
        encoder: its exact form, where that is no preset's.
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

    Metadata keys, all optional: `spacing` and `patch_size` (z, y, x), `preset`, `encoder` (a SwinEncoderPlan),
    `axis_order`, `intensity` (an Intensity). Where the size is not named it is told from the tensors' shapes.

    Raises:
        UserError: the file is missing, not safetensors, holds no Swin encoder, or its metadata cannot be read.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="numpy") as stream:
            metadata = stream.metadata() or {}
            names = {name.removeprefix("encoder."): name for name in stream.keys()}  # noqa: SIM118 (not a mapping)
            kernel = stream.get_slice(names[FIRST_KERNEL]).get_shape() if FIRST_KERNEL in names else None
    except FileNotFoundError:
        raise UserError(f"--init {path}: no such file. Give the path of a pretrained encoder.safetensors.") from None
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"--init {path}: not a readable safetensors file ({error}). Give an encoder.safetensors, or convert the "
            "checkpoint with swinssl_weights import."
        ) from None
    if kernel is None:
        raise UserError(
            f"--init {path}: holds no Swin encoder of ours (no {FIRST_KERNEL}). Convert the checkpoint with "
            "swinssl_weights import."
        )
    value = _Metadata(path, metadata)
    preset = value("preset", str) or _preset_of(names, width=int(kernel[0]))
    if preset is not None:
        encoder_preset(preset)
    return EncoderFacts(
        reference=EncoderReference(
            sha256=files.sha256_of(path),
            name=path.stem if path.stem != "encoder" else path.resolve().parent.name,
            spacing=value("spacing", _triple),
            axis_order=value("axis_order", str) or "zyx",
        ),
        preset=preset,
        encoder=value("encoder", SwinEncoderPlan.model_validate),
        patch_size=value("patch_size", _edges),
        intensity=value("intensity", Intensity.model_validate),
    )


class _Metadata:
    """Reads one key as JSON (or as bare text) and makes something of it."""

    def __init__(self, path: Path, metadata: dict[str, str]) -> None:
        self.path, self.metadata = path, metadata

    def __call__(self, key: str, make: Callable[[Any], T]) -> T | None:
        text = self.metadata.get(key)
        if text is None:
            return None
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        if value is None:
            return None
        try:
            return make(value)
        except (ValidationError, ValueError, TypeError):
            raise UserError(
                f"--init {self.path}: its metadata {key} = {text!r} cannot be read. Export the encoder again."
            ) from None


def _preset_of(names: dict[str, str], *, width: int) -> str | None:
    """The preset of these tensors; the first, where several differ only in what a patch is cut to."""
    depths = tuple(
        len({name.split(".")[3] for name in names if name.startswith(f"stages.{stage}.blocks.")}) for stage in range(4)
    )
    found = [n for n, plan in PRESETS.items() if plan.embed_dim == width and plan.depths == depths]
    return found[0] if found else None


def _triple(value: Any) -> tuple[float, float, float]:
    z, y, x = (float(v) for v in value)
    if min(z, y, x) <= 0:
        raise ValueError("not positive")
    return z, y, x


def _edges(value: Any) -> tuple[int, int, int]:
    z, y, x = (int(v) for v in value)
    if min(z, y, x) <= 0:
        raise ValueError("not positive")
    return z, y, x
