"""Masks of the masked-image methods: random cells of a size in voxels or mm, on the grid of the encoder's tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from swinssl.core.errors import UserError
from swinssl.core.rng import KeyedRng
from swinssl.ssl.method import Crops, Images
from swinssl.ssl.parts.options import MaskOptions

if TYPE_CHECKING:
    from torch import Tensor

    from swinssl.ssl.parts.batch import Batch
    from swinssl.ssl.parts.pretext_network import PretextNetwork


# Voxels along a token's edge, and tokens along the edge of a token of the stage-4 map.
PATCH = 2
STAGE4 = 8


def cell_tokens(cell: str, *, spacing: Sequence[float]) -> tuple[int, int, int]:
    """Edges (z, y, x) in tokens, at least 1, of a mask cell.

    Args:
        cell: edge in voxels (`16`) or in mm (`24mm`), the same along every axis.
        spacing: mm (z, y, x) of the voxels.

    Raises:
        UserError: it is neither.
    """
    number, in_mm = cell.removesuffix("mm"), cell.endswith("mm")
    try:
        edge = float(number)
    except ValueError:
        edge = math.nan
    if not (math.isfinite(edge) and edge > 0):
        raise UserError(f"--mask-cell {cell}: expected an edge in voxels (16) or in mm (24mm).")
    z, y, x = (max(1, round((edge / mm if in_mm else edge) / PATCH)) for mm in spacing)
    return z, y, x


def random_mask(
    rng: np.random.Generator, *, tokens: Sequence[int], cell: Sequence[int], ratio: float
) -> NDArray[np.bool_]:
    """A mask whose cells are masked or not as a whole: ceil(ratio * cells) of them, all choices equally likely.

    Args:
        tokens: (z, y, x) of the mask; where it is no multiple of the cell, the last cells are cut off.
        cell: tokens (z, y, x) of a cell.
        ratio: share of the cells, 0 to 1.

    Returns:
        (z, y, x), True where a token is masked.
    """
    cells = [-(-n // c) for n, c in zip(tokens, cell, strict=True)]
    chosen = np.zeros(math.prod(cells), dtype=bool)
    # The tolerance is for ratios such as 0.7, whose product with a whole number can lie a rounding above it.
    chosen[rng.permutation(len(chosen))[: math.ceil(ratio * len(chosen) - 1e-9)]] = True
    mask = chosen.reshape(cells)
    for axis, edge in enumerate(cell):
        mask = mask.repeat(edge, axis)
    z, y, x = tokens
    return mask[:z, :y, :x]


def at_stage4(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which tokens of the map at 1/16 are masked: those that are for more than half.

    With cells of 16 voxels, or of a multiple, a token is masked as a whole or not at all.

    Args:
        mask: (z, y, x) of the tokens at 1/2; edges multiples of 8.
    """
    z, y, x = (n // STAGE4 for n in mask.shape)
    return mask.reshape(z, STAGE4, y, STAGE4, x, STAGE4).mean(axis=(1, 3, 5)) > 0.5


def draw_masks(rng: KeyedRng, views: int, images: Images, options: MaskOptions) -> NDArray[np.bool_]:
    """(views, Z/2, Y/2, X/2) masks, one for each view by itself."""
    mask_rng = rng("mask")
    tokens = [edge // PATCH for edge in images.patch_size]
    cell = cell_tokens(options.mask_cell, spacing=images.spacing)
    return np.stack([random_mask(mask_rng, tokens=tokens, cell=cell, ratio=options.mask_ratio) for _ in range(views)])


def with_token_masks(rng: KeyedRng, crops: Crops, images: Images, options: MaskOptions) -> dict[str, NDArray]:
    """Crops with their masks, and with those at 1/16, where single tokens are compared."""
    mask = draw_masks(rng, len(crops), images, options)
    return {"images": crops, "mask": mask, "token_mask": np.stack([at_stage4(one) for one in mask])}


def reconstructed_under_mask(student: PretextNetwork, batch: Batch) -> dict[str, Tensor]:
    """The image that is left, and the image with what the head `voxels` paints where it was masked."""
    hidden, images = batch.masked_voxels()[:, None], batch.rows("images")
    volumes = student.heads["voxels"](batch.encode_student(student).last_map)
    return {"seen": images.masked_fill(hidden, 0.0), "reconstructed": volumes.where(hidden, images)}
