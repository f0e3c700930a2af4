"""SwinUNETR's pretraining: rotation, inpainting and contrastive learning together.

Source: arXiv 2605.18491, section 3.2, item 9; Tang et al., arXiv 2111.14791.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from swinssl.core.rng import KeyedRng
from swinssl.ssl.method import Crops, Images, Method, MethodOutput
from swinssl.ssl.parts.cut_out import cut_out
from swinssl.ssl.parts.options import CutOutOptions, ErrorOptions, TurnOptions
from swinssl.ssl.parts.rot90 import NUM_ROTATIONS, require_square, rot90

if TYPE_CHECKING:
    from torch import Tensor, nn

    from swinssl.networks.swin.encoder import SwinEncoder
    from swinssl.ssl.parts.batch import Batch, StepContext
    from swinssl.ssl.parts.pretext_network import PretextNetwork

VERSIONS = 2
EMBEDDED = 512


class SwinUnetrOptions(TurnOptions, CutOutOptions, ErrorOptions):
    """Options of SwinUNETR's pretraining."""

    temperature: float = Field(0.5, gt=0, description="Divisor of the cosine similarity.")


class SwinUnetr(Method):
    """Two versions of one crop, each rotated and with boxes of noise; classification, reconstruction and NT-Xent."""

    Options = SwinUnetrOptions
    least_batch = 2

    def __init__(self, options: SwinUnetrOptions, images: Images) -> None:
        super().__init__(options, images)
        require_square(images.patch_size, options.rotation_plane)

    @property
    def seen_views(self) -> int:
        return VERSIONS

    def prepare(self, crops: Crops, rng: KeyedRng) -> dict[str, NDArray]:
        turns, cut_out_rng = rng("rotation").integers(NUM_ROTATIONS, size=VERSIONS), rng("cut-out")
        clean = [rot90(crops[0], int(turn), plane=self.options.rotation_plane) for turn in turns]
        noisy = [cut_out(cut_out_rng, image, ratio=self.options.cut_out)[0] for image in clean]
        return {"images": np.stack(noisy), "clean": np.stack(clean), "turns": turns}

    def heads(self, encoder: SwinEncoder) -> dict[str, nn.Module]:
        from swinssl.ssl.parts.heads import ConvolutionalDecoder, PooledHead

        width, pool = encoder.widths[4], self.options.pool
        return {
            "turns": PooledHead(width, NUM_ROTATIONS, pool=pool, token=0),
            "embedding": PooledHead(width, EMBEDDED, pool=pool, token=1),
            "decoder": ConvolutionalDecoder(
                encoder.plan.embed_dim, channels=self.images.channels, mean=self.images.mean
            ),
        }

    def losses(self, student: PretextNetwork, batch: Batch, context: StepContext) -> MethodOutput:
        from swinssl.ssl.parts.contrast import nt_xent
        from swinssl.ssl.parts.losses import classification_loss, reconstruction_error

        seen, turns, options = batch.encode_student(student), batch.rows("turns"), self.options
        logits = student.heads["turns"](seen.last_map)
        embedded = student.heads["embedding"](seen.last_map).unflatten(0, (-1, VERSIONS))
        reconstructed = student.heads["decoder"](seen.last_map)
        error = reconstruction_error(reconstructed, batch.rows("clean"), kind=options.reconstruction_loss)
        terms = {
            "rotation": batch.by_sample(classification_loss(logits, turns)),
            "contrast": nt_xent(embedded, batch.samples, count=context.batch_size, temperature=options.temperature),
            "inpainting": batch.by_sample(error),
        }
        accuracy = float((logits.argmax(1) == turns).float().mean())
        losses = terms["rotation"] + terms["contrast"] + terms["inpainting"]
        return MethodOutput(losses, terms, {"rotation_accuracy": accuracy})

    def reconstructed(self, student: PretextNetwork, batch: Batch) -> dict[str, Tensor]:
        volumes = student.heads["decoder"](batch.encode_student(student).last_map)
        return {"clean": batch.rows("clean"), "reconstructed": volumes}
