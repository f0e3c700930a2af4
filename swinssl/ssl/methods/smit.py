"""SMIT: masked image prediction with self-distillation of masked tokens and of the whole image.

Source: arXiv 2605.18491, section 3.2, item 8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from numpy.typing import NDArray
from pydantic import Field

from swinssl.core.rng import KeyedRng
from swinssl.ssl.method import Crops, Method, MethodOutput
from swinssl.ssl.parts.masking import with_token_masks
from swinssl.ssl.parts.options import DistillationOptions, ErrorOptions, MaskOptions

if TYPE_CHECKING:
    from torch import Tensor, nn

    from swinssl.networks.swin.encoder import SwinEncoder
    from swinssl.ssl.parts.batch import Batch, StepContext
    from swinssl.ssl.parts.pretext_network import PretextNetwork


class SmitOptions(MaskOptions, ErrorOptions, DistillationOptions):
    """Options of SMIT."""

    image_weight: float = Field(1.0, ge=0, description="Weight of reconstructing the masked voxels (MIP).")
    patch_weight: float = Field(0.1, ge=0, description="Weight of the loss over masked tokens (MPD).")
    global_weight: float = Field(0.1, ge=0, description="Weight of the loss over the whole image (GTD, ITD).")


class Smit(Method):
    """Two masked crops of a region; the student reconstructs them and matches a teacher that sees them unmasked."""

    Options = SmitOptions
    views = 2
    masks = True
    teacher_heads = ("norm", "global", "patch")
    centres = ("global", "patch")

    def prepare(self, crops: Crops, rng: KeyedRng) -> dict[str, NDArray]:
        return with_token_masks(rng, crops, self.images, self.options)

    def heads(self, encoder: SwinEncoder) -> dict[str, nn.Module]:
        from swinssl.ssl.parts.heads import VoxelShuffleHead
        from swinssl.ssl.parts.token_distillation import distillation_heads

        voxels = VoxelShuffleHead(encoder.widths[4], channels=self.images.channels, mean=self.images.mean)
        return {"voxels": voxels, **distillation_heads(encoder, prototypes=self.options.prototypes, patches=True)}

    def losses(self, student: PretextNetwork, batch: Batch, context: StepContext) -> MethodOutput:
        from swinssl.ssl.parts.losses import reconstruction_error
        from swinssl.ssl.parts.token_distillation import distil

        options = self.options
        seen = batch.encode_student(student)
        terms, measures = distil(student, seen, batch, context, options=options)
        errors = reconstruction_error(
            student.heads["voxels"](seen.last_map),
            batch.rows("images"),
            kind=options.reconstruction_loss,
            where=batch.masked_voxels(),
        )
        terms["image"] = batch.by_sample(errors)
        losses = (
            options.image_weight * terms["image"]
            + options.patch_weight * terms["patch"]
            + options.global_weight * terms["global"]
        )
        return MethodOutput(losses, terms, measures)

    def reconstructed(self, student: PretextNetwork, batch: Batch) -> dict[str, Tensor]:
        from swinssl.ssl.parts.masking import reconstructed_under_mask

        return reconstructed_under_mask(student, batch)
