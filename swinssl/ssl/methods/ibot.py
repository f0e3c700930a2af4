"""iBOT: DINO, plus masked tokens that match the teacher's tokens of the unmasked view.

Source: arXiv 2605.18491, section 3.2, item 7; iBOT, arXiv 2111.07832.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from numpy.typing import NDArray
from pydantic import Field

from swinssl.core.rng import KeyedRng
from swinssl.ssl.method import Crops, Method, MethodOutput
from swinssl.ssl.parts.masking import with_token_masks
from swinssl.ssl.parts.options import DistillationOptions, MaskOptions

if TYPE_CHECKING:
    from torch import nn

    from swinssl.networks.swin.encoder import SwinEncoder
    from swinssl.ssl.parts.batch import Batch, StepContext
    from swinssl.ssl.parts.pretext_network import PretextNetwork


class IbotOptions(MaskOptions, DistillationOptions):
    """Options of iBOT."""

    global_weight: float = Field(1.0, ge=0, description="Weight of the global loss.")
    patch_weight: float = Field(1.0, ge=0, description="Weight of the loss over masked tokens.")


class Ibot(Method):
    """Two masked crops of a region; separate heads give global and token distributions over prototypes."""

    Options = IbotOptions
    views = 2
    masks = True
    teacher_heads = ("norm", "global", "patch")
    centres = ("global", "patch")
    clip, clip_per = 3.0, "tensor"

    def prepare(self, crops: Crops, rng: KeyedRng) -> dict[str, NDArray]:
        return with_token_masks(rng, crops, self.images, self.options)

    def heads(self, encoder: SwinEncoder) -> dict[str, nn.Module]:
        from swinssl.ssl.parts.token_distillation import distillation_heads

        return distillation_heads(encoder, prototypes=self.options.prototypes, patches=True)

    def losses(self, student: PretextNetwork, batch: Batch, context: StepContext) -> MethodOutput:
        from swinssl.ssl.parts.token_distillation import distil

        seen = batch.encode_student(student)
        terms, measures = distil(student, seen, batch, context, options=self.options)
        losses = self.options.global_weight * terms["global"] + self.options.patch_weight * terms["patch"]
        return MethodOutput(losses, terms, measures)
