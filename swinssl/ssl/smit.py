"""SMIT: masked image prediction with distillation of masked tokens and of the whole image (paper 3.2 item 8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numpy.typing import NDArray
from pydantic import Field

from swinssl.randomness import Draws
from swinssl.ssl.masked_views import with_token_masks
from swinssl.ssl.method import Crops, Method, Outcome
from swinssl.ssl.options import DistillationOptions, ErrorOptions, MaskOptions

if TYPE_CHECKING:
    from torch import Tensor, nn

    from swinssl.networks.swin_encoder import SwinEncoder
    from swinssl.ssl.batch import Batch, Moment
    from swinssl.ssl.pretext_network import PretextNetwork


class SmitOptions(MaskOptions, ErrorOptions, DistillationOptions):
    """Choices of SMIT."""

    image_weight: float = Field(1.0, ge=0, description="Weight of painting the masked voxels (MIP).")
    patch_weight: float = Field(0.1, ge=0, description="Weight of the loss over masked tokens (MPD).")
    global_weight: float = Field(0.1, ge=0, description="Weight of the loss over the whole image (GTD, ITD).")


class Smit(Method):
    """Two masked crops of a region; the student paints what is masked and matches the teacher, who sees all of it."""

    name = "smit"
    summary = "Reconstruct masked patches, and match a teacher's view of them and of the whole image."
    Options = SmitOptions
    views = 2
    masks = True
    teacher_heads = ("norm", "global", "patch")
    centres = ("global", "patch")

    def prepare(self, crops: Crops, draws: Draws) -> dict[str, NDArray]:
        return with_token_masks(draws, crops, self.images, self.options)

    def heads(self, encoder: SwinEncoder) -> dict[str, nn.Module]:
        from swinssl.ssl.heads import VoxelShuffleHead
        from swinssl.ssl.token_distillation import distillation_heads

        voxels = VoxelShuffleHead(encoder.widths[4], channels=self.images.channels, mean=self.images.mean)
        return {"voxels": voxels, **distillation_heads(encoder, prototypes=self.options.prototypes, patches=True)}

    def losses(self, student: PretextNetwork, batch: Batch, moment: Moment) -> Outcome:
        from swinssl.ssl.losses import reconstruction_error
        from swinssl.ssl.token_distillation import distil

        options = self.options
        seen = batch.seen_by(student)
        terms, measures = distil(student, seen, batch, moment, options=options)
        errors = reconstruction_error(
            student.heads["voxels"](seen.bottom),
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
        return Outcome(losses, terms, measures)

    def painted(self, student: PretextNetwork, batch: Batch) -> dict[str, Tensor]:
        from swinssl.ssl.masked_views import painted_under_mask

        return painted_under_mask(student, batch)
