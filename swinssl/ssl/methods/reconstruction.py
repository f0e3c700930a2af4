"""Reconstruction: auto-encode the unchanged image.

Source: arXiv 2605.18491, section 3.2, item 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from numpy.typing import NDArray

from swinssl.core.rng import KeyedRng
from swinssl.ssl.method import Crops, Method, MethodOutput
from swinssl.ssl.parts.options import ErrorOptions

if TYPE_CHECKING:
    from torch import Tensor, nn

    from swinssl.networks.swin.encoder import SwinEncoder
    from swinssl.ssl.parts.batch import Batch, StepContext
    from swinssl.ssl.parts.pretext_network import PretextNetwork


class ReconstructionOptions(ErrorOptions):
    """Options of reconstruction."""


class Reconstruction(Method):
    """One crop; a convolutional decoder without skip connections reconstructs it; loss over all voxels."""

    Options = ReconstructionOptions

    def prepare(self, crops: Crops, rng: KeyedRng) -> dict[str, NDArray]:
        return {"images": crops}

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
        errors = reconstruction_error(reconstructed, batch.rows("images"), kind=self.options.reconstruction_loss)
        return MethodOutput(batch.by_sample(errors))

    def reconstructed(self, student: PretextNetwork, batch: Batch) -> dict[str, Tensor]:
        return {"reconstructed": student.heads["decoder"](batch.encode_student(student).last_map)}
