"""Rotation: classify by which multiple of 90 degrees an image was rotated.

Source: arXiv 2605.18491, section 3.2, item 5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from swinssl.core.rng import KeyedRng
from swinssl.ssl.method import Crops, Images, Method, MethodOutput
from swinssl.ssl.parts.options import TurnOptions
from swinssl.ssl.parts.rot90 import NUM_ROTATIONS, require_square, rot90

if TYPE_CHECKING:
    from torch import nn

    from swinssl.networks.swin.encoder import SwinEncoder
    from swinssl.ssl.parts.batch import Batch, StepContext
    from swinssl.ssl.parts.pretext_network import PretextNetwork


class RotationOptions(TurnOptions):
    """Options of rotation."""


class Rotation(Method):
    """One crop rotated by 0, 90, 180 or 270 degrees; a linear layer on the mean of the last map classifies it."""

    Options = RotationOptions

    def __init__(self, options: RotationOptions, images: Images) -> None:
        super().__init__(options, images)
        require_square(images.patch_size, options.rotation_plane)

    def prepare(self, crops: Crops, rng: KeyedRng) -> dict[str, NDArray]:
        turns = int(rng("rotation").integers(NUM_ROTATIONS))
        image = rot90(crops[0], turns, plane=self.options.rotation_plane)
        return {"images": image[None], "turns": np.array([turns])}

    def heads(self, encoder: SwinEncoder) -> dict[str, nn.Module]:
        from swinssl.ssl.parts.heads import PooledHead

        return {"turns": PooledHead(encoder.widths[4], NUM_ROTATIONS, pool=self.options.pool)}

    def losses(self, student: PretextNetwork, batch: Batch, context: StepContext) -> MethodOutput:
        from swinssl.ssl.parts.losses import classification_loss

        seen, turns = batch.encode_student(student), batch.rows("turns")
        logits = student.heads["turns"](seen.last_map)
        accuracy = float((logits.argmax(1) == turns).float().mean())
        return MethodOutput(
            batch.by_sample(classification_loss(logits, turns)), measures={"rotation_accuracy": accuracy}
        )
