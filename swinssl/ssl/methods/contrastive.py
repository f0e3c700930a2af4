"""Contrastive learning: match two crops of the same region among all crops of the batch.

Source: arXiv 2605.18491, section 3.2, item 4; SimCLR, arXiv 2002.05709.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from swinssl.core.rng import KeyedRng
from swinssl.ssl.method import Crops, Method, MethodOutput
from swinssl.ssl.parts.options import PoolOptions

if TYPE_CHECKING:
    from torch import nn

    from swinssl.networks.swin.encoder import SwinEncoder
    from swinssl.ssl.parts.batch import Batch, StepContext
    from swinssl.ssl.parts.pretext_network import PretextNetwork

EMBEDDED = 128
# Largest change of the contrast, and of the brightness as a share of [0, 1].
GAIN, OFFSET = 0.2, 0.1


class ContrastiveOptions(PoolOptions):
    """Options of contrastive learning."""

    temperature: float = Field(0.5, gt=0, description="Divisor of the cosine similarity.")
    view_change: Literal["none", "mild"] = Field(
        "mild", description="mild flips each view at random and changes its brightness and contrast slightly."
    )


class Contrastive(Method):
    """Two augmented crops of a region; an MLP on the mean of the last map gives 128 features; NT-Xent."""

    Options = ContrastiveOptions
    views = 2
    least_batch = 2

    def prepare(self, crops: Crops, rng: KeyedRng) -> dict[str, NDArray]:
        if self.options.view_change == "none":
            return {"images": crops}
        view_rng = rng("view change")
        return {"images": np.stack([_changed(view_rng, crop) for crop in crops])}

    def heads(self, encoder: SwinEncoder) -> dict[str, nn.Module]:
        from swinssl.ssl.parts.heads import PooledHead

        width = encoder.widths[4]
        # The token that the public code reads for this task is the second.
        return {"embedding": PooledHead(width, width, EMBEDDED, pool=self.options.pool, token=1)}

    def losses(self, student: PretextNetwork, batch: Batch, context: StepContext) -> MethodOutput:
        from swinssl.ssl.parts.contrast import nt_xent

        seen = batch.encode_student(student)
        embedded = student.heads["embedding"](seen.last_map).unflatten(0, (-1, 2))
        losses = nt_xent(embedded, batch.samples, count=context.batch_size, temperature=self.options.temperature)
        return MethodOutput(losses)


def _changed(rng: np.random.Generator, crop: Crops) -> Crops:
    axes = tuple(axis for axis in (1, 2, 3) if rng.random() < 0.5)
    gain, offset = 1.0 + rng.uniform(-GAIN, GAIN), rng.uniform(-OFFSET, OFFSET)
    return (np.flip(crop, axes) * np.float32(gain) + np.float32(offset)).astype(np.float32)
