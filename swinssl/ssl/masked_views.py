"""What the masked-image methods share: the masks of a sample's views, and what the network paints under them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from swinssl.randomness import Draws
from swinssl.ssl.masks import PATCH, at_stage4, cell_tokens, random_mask
from swinssl.ssl.method import Crops, Images
from swinssl.ssl.options import MaskOptions

if TYPE_CHECKING:
    from torch import Tensor

    from swinssl.ssl.batch import Batch
    from swinssl.ssl.pretext_network import PretextNetwork


def draw_masks(draws: Draws, views: int, images: Images, options: MaskOptions) -> NDArray[np.bool_]:
    """(views, Z/2, Y/2, X/2) masks, one for each view by itself."""
    chance = draws("mask")
    tokens = [edge // PATCH for edge in images.patch_size]
    cell = cell_tokens(options.mask_cell, spacing=images.spacing)
    return np.stack([random_mask(chance, tokens=tokens, cell=cell, ratio=options.mask_ratio) for _ in range(views)])


def with_token_masks(draws: Draws, crops: Crops, images: Images, options: MaskOptions) -> dict[str, NDArray]:
    """Crops with their masks, and with those at 1/16, where single tokens are compared."""
    mask = draw_masks(draws, len(crops), images, options)
    return {"images": crops, "mask": mask, "token_mask": np.stack([at_stage4(one) for one in mask])}


def painted_under_mask(student: PretextNetwork, batch: Batch) -> dict[str, Tensor]:
    """The image that is left, and the image with what the head `voxels` paints where it was masked."""
    hidden, images = batch.masked_voxels()[:, None], batch.rows("images")
    found = student.heads["voxels"](batch.seen_by(student).bottom)
    return {"seen": images.masked_fill(hidden, 0.0), "painted": found.where(hidden, images)}
