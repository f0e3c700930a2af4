"""DINO: the student matches the teacher's output for the other view of the same region.

Source: arXiv 2605.18491, section 3.2, item 6; DINO, arXiv 2104.14294.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from numpy.typing import NDArray

from swinssl.core.rng import KeyedRng
from swinssl.ssl.method import Crops, Method, MethodOutput
from swinssl.ssl.parts.options import DistillationOptions

if TYPE_CHECKING:
    from torch import nn

    from swinssl.networks.swin.encoder import SwinEncoder
    from swinssl.ssl.parts.batch import Batch, StepContext
    from swinssl.ssl.parts.pretext_network import PretextNetwork


class DinoOptions(DistillationOptions):
    """Options of DINO."""


class Dino(Method):
    """Two crops of a region as two global views; a distribution over prototypes from the mean token at 1/16."""

    Options = DinoOptions
    views = 2
    teacher_heads = ("norm", "global")
    centres = ("global",)
    clip, clip_per = 3.0, "tensor"

    def prepare(self, crops: Crops, rng: KeyedRng) -> dict[str, NDArray]:
        return {"images": crops}

    def heads(self, encoder: SwinEncoder) -> dict[str, nn.Module]:
        from swinssl.ssl.parts.token_distillation import distillation_heads

        return distillation_heads(encoder, prototypes=self.options.prototypes, patches=False)

    def losses(self, student: PretextNetwork, batch: Batch, context: StepContext) -> MethodOutput:
        from swinssl.ssl.parts.token_distillation import distil

        seen = batch.encode_student(student)
        terms, measures = distil(student, seen, batch, context, options=self.options)
        return MethodOutput(terms["global"], measures=measures)
