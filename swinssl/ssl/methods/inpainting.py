"""Inpainting: reconstruct the image from a copy in which boxes are replaced by noise.

Source: arXiv 2605.18491, section 3.2, item 2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from numpy.typing import NDArray

from swinssl.core.rng import KeyedRng
from swinssl.ssl.method import Crops, Method, MethodOutput
from swinssl.ssl.parts.cut_out import cut_out
from swinssl.ssl.parts.options import CutOutOptions, ErrorOptions

if TYPE_CHECKING:
    from torch import Tensor, nn

    from swinssl.networks.swin.encoder import SwinEncoder
    from swinssl.ssl.parts.batch import Batch, StepContext
    from swinssl.ssl.parts.pretext_network import PretextNetwork


class InpaintingOptions(CutOutOptions, ErrorOptions):
    """Options of inpainting."""


class Inpainting(Method):
    """One crop with boxes of noise; a convolutional decoder reconstructs the clean crop; loss over all voxels."""

    Options = InpaintingOptions

    def prepare(self, crops: Crops, rng: KeyedRng) -> dict[str, NDArray]:
        noisy, _ = cut_out(rng("cut-out"), crops[0], ratio=self.options.cut_out)
        return {"images": noisy[None], "clean": crops}

    def heads(self, encoder: SwinEncoder) -> dict[str, nn.Module]:
        from swinssl.ssl.parts.heads import ConvolutionalDecoder

        return {
            "decoder": ConvolutionalDecoder(
                encoder.plan.embed_dim, channels=self.images.channels, mean=self.images.mean
            )
        }

    def losses(self, student: PretextNetwork, batch: Batch, context: StepContext) -> MethodOutput:
        from swinssl.ssl.parts.losses import reconstruction_error

        seen = batch.encode_student(student)
        reconstructed = student.heads["decoder"](seen.last_map)
        errors = reconstruction_error(reconstructed, batch.rows("clean"), kind=self.options.reconstruction_loss)
        return MethodOutput(batch.by_sample(errors))

    def reconstructed(self, student: PretextNetwork, batch: Batch) -> dict[str, Tensor]:
        volumes = student.heads["decoder"](batch.encode_student(student).last_map)
        return {"clean": batch.rows("clean"), "reconstructed": volumes}
