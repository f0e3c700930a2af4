"""One part of a batch on the device, and the state of the run that a step depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from swinssl.ssl.parts.distillation import Centre
from swinssl.ssl.parts.pretext_network import Features, PretextNetwork
from swinssl.ssl.parts.teacher import Teacher


@dataclass(frozen=True)
class Batch:
    """Samples with their views, on the device.

    Args:
        tensors: the arrays of `Method.prepare`, (B, V, ...) by name; `images` is one of them.
        samples: (B,) indices of the samples in the whole batch.
        drop_path: (B, V, blocks, 2) uniform draws of stochastic depth; None drops nothing.
    """

    tensors: Mapping[str, Tensor]
    samples: Tensor
    drop_path: Tensor | None = None

    @property
    def views(self) -> int:
        return self.tensors["images"].shape[1]

    def rows(self, name: str) -> Tensor:
        """A tensor with samples and views flattened, (B * V, ...)."""
        return self.tensors[name].flatten(0, 1)

    def encode_student(self, student: PretextNetwork) -> Features:
        """The student's features of all views, (B * V, ...); masked if the samples have masks."""
        mask = self.rows("mask") if "mask" in self.tensors else None
        draws = None if self.drop_path is None else self.drop_path.flatten(0, 1)
        return student.encode(self.rows("images"), draws, mask=mask)

    @torch.no_grad()
    def encode_unmasked(self, network: PretextNetwork) -> Features:
        """Features of all views without mask, gradient or stochastic depth."""
        return network.encode(self.rows("images"))

    def by_sample(self, losses: Tensor) -> Tensor:
        """(B,) means over the views of (B * V,) losses."""
        return losses.view(-1, self.views).mean(1)

    def masked_voxels(self) -> Tensor:
        """(B * V, Z, Y, X) booleans: voxels under masked tokens."""
        mask = self.rows("mask")
        for axis in (1, 2, 3):
            mask = mask.repeat_interleave(2, axis)
        return mask


@dataclass(frozen=True)
class StepContext:
    """What a step depends on, apart from its batch.

    Args:
        share: fraction of the run that is done.
        batch_size: samples of the whole batch, over all ranks.
        teacher: None for methods without one.
        centres: of the teacher's logits, by head.
    """

    share: float
    batch_size: int
    teacher: Teacher | None = None
    centres: Mapping[str, Centre] = field(default_factory=dict)
