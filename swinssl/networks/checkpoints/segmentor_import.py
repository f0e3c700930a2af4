"""A published segmentor as ours: the encoder and the convolutional decoder of a SwinUNETR or of SMIT's segmentor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from swinssl.core.errors import UserError
from swinssl.core.text import listed
from swinssl.networks.checkpoints.encoder_import import ImportedEncoder
from swinssl.networks.checkpoints.encoder_transfer import TransferReport
from swinssl.networks.checkpoints.foreign_checkpoint import Checkpoint
from swinssl.networks.checkpoints.published_encoders import DECODER
from swinssl.networks.network_plan import NetworkPlan
from swinssl.networks.segmentor import SwinSegmentor

OUTPUT = "head.weight"


@dataclass(frozen=True)
class ImportedSegmentor:
    """A segmentor as ours.

    Args:
        plan: encoder, decoder and norm.
        in_channels: of the image.
        num_outputs: channels of the logits.
        tensors: by our names, as `SwinSegmentor(plan)` has them.
        names: by our name, the file's (without the prefixes of wrappers).
        report: what was taken; `adapted` are scales and offsets of norms that have none in the file: 1 and 0.
    """

    plan: NetworkPlan
    in_channels: int
    num_outputs: int
    tensors: dict[str, Tensor]
    names: dict[str, str]
    report: TransferReport


def import_segmentor(checkpoint: Checkpoint, encoder: ImportedEncoder) -> ImportedSegmentor:
    """The whole segmentor of a checkpoint, which computes the logits that it was trained to.

    The encoder keeps its axis order; the decoder's kernels are turned, once, to (z, y, x).

    Args:
        encoder: of the same checkpoint, not adapted.

    Raises:
        UserError: the file's decoder is no SwinUNETR's.
    """
    names = {own: name for name in checkpoint.tensors if (own := DECODER.ours(name)) is not None}
    found = {own: checkpoint.tensors[name] for own, name in names.items()}
    if OUTPUT not in found:
        raise UserError(
            f"{checkpoint.path}: holds an encoder and no decoder of a SwinUNETR. Import the encoder alone, without "
            "--whole."
        )
    if encoder.plan.axis_order == "xyz":
        found = {own: t.transpose(2, 4).contiguous() if t.ndim == 5 else t for own, t in found.items()}
    norm: Literal["batch", "instance"] = "batch" if any("running_mean" in own for own in found) else "instance"
    plan = NetworkPlan(preset=checkpoint.path.stem, decoder="full", norm=norm, encoder=encoder.plan)
    channels, outputs = encoder.in_channels, len(found[OUTPUT])
    with torch.device("meta"):
        shapes = SwinSegmentor(plan, in_channels=channels, num_outputs=outputs).state_dict()
    wanted = {name: tensor for name, tensor in shapes.items() if not name.startswith("encoder.")}
    neutral = _neutral_norms(wanted, found) if norm == "instance" else {}
    found = {**found, **neutral}
    misfits = [name for name, there in wanted.items() if name not in found or found[name].shape != there.shape]
    if misfits:
        raise UserError(
            f"{checkpoint.path}: its decoder is not that of a SwinUNETR of width {encoder.plan.embed_dim}; "
            f"{len(misfits)} tensors are missing or have another shape: {listed(misfits)}. Import the encoder alone, "
            "without --whole."
        )
    decoder = {name: found[name] for name in wanted}
    names = {own: name for own, name in names.items() if own in wanted}
    report = TransferReport(
        matched=(*(f"encoder.{name}" for name in encoder.report.matched), *(n for n in decoder if n not in neutral)),
        adapted=tuple(neutral),
        missing=(),
        unexpected=encoder.report.unexpected,
        left_out=tuple(name for name in encoder.report.left_out if name not in names.values()),
    )
    tensors = {f"encoder.{name}": tensor for name, tensor in encoder.tensors.items()} | decoder
    names |= {f"encoder.{own}": name for own, name in encoder.names.items()}
    return ImportedSegmentor(plan, channels, outputs, tensors, names, report)


def _neutral_norms(wanted: dict[str, Tensor], found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Scale 1 and offset 0 of the instance norms, where the file's have neither."""
    fill = {"weight": torch.ones, "bias": torch.zeros}
    return {
        name: fill[name.rpartition(".")[2]](there.shape)
        for name, there in wanted.items()
        if there.ndim == 1 and name not in found and not name.startswith("head.")
    }
