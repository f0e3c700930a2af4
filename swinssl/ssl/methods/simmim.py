"""SimMIM: reconstruct the voxels of randomly masked tokens.

Source: arXiv 2605.18491, section 3.2, item 1; SimMIM, arXiv 2111.09886.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from numpy.typing import NDArray

from swinssl.core.rng import KeyedRng
from swinssl.ssl.method import Crops, Method, MethodOutput
from swinssl.ssl.parts.masking import draw_masks
from swinssl.ssl.parts.options import ErrorOptions, MaskOptions

if TYPE_CHECKING:
    from torch import Tensor, nn

    from swinssl.networks.swin.encoder import SwinEncoder
    from swinssl.ssl.parts.batch import Batch, StepContext
    from swinssl.ssl.parts.pretext_network import PretextNetwork


class SimMimOptions(MaskOptions, ErrorOptions):
    """Options of SimMIM."""


class SimMIM(Method):
    """One crop with three quarters of its cells masked; a linear layer reconstructs it; loss over masked voxels."""

    Options = SimMimOptions
    masks = True

    def prepare(self, crops: Crops, rng: KeyedRng) -> dict[str, NDArray]:
        return {"images": crops, "mask": draw_masks(rng, len(crops), self.images, self.options)}

    def heads(self, encoder: SwinEncoder) -> dict[str, nn.Module]:
        from swinssl.ssl.parts.heads import VoxelShuffleHead

        return {"voxels": VoxelShuffleHead(encoder.widths[4], channels=self.images.channels, mean=self.images.mean)}

    def losses(self, student: PretextNetwork, batch: Batch, context: StepContext) -> MethodOutput:
        from swinssl.ssl.parts.losses import reconstruction_error

        seen = batch.encode_student(student)
        errors = reconstruction_error(
            student.heads["voxels"](seen.last_map),
            batch.rows("images"),
            kind=self.options.reconstruction_loss,
            where=batch.masked_voxels(),
        )
        return MethodOutput(batch.by_sample(errors))

    def reconstructed(self, student: PretextNetwork, batch: Batch) -> dict[str, Tensor]:
        from swinssl.ssl.parts.masking import reconstructed_under_mask

        return reconstructed_under_mask(student, batch)
