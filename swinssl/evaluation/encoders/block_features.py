"""What every Swin block of an encoder makes of chosen tokens, and what its heads look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swinssl.core.geometry import Spacing
from swinssl.evaluation.encoders.attention_span import AttentionSpan, AttentionTotals, attention_rows
from swinssl.networks.swin.encoder import DIVISOR, Stage, SwinBlock, SwinEncoder

# Voxels of a token of the first and of the last stage. Nothing is chosen twice where each token of the last has one.
FINEST, COARSEST = 2, DIVISOR // 2
# Voxels that pass through an encoder together.
PASSED_VOXELS = 96**3


def coarsest_tokens(patch_size: Sequence[int]) -> int:
    """Tokens of a crop at the last stage."""
    return int(np.prod([edge // COARSEST for edge in patch_size]))


def draw_places(rng: np.random.Generator, patch_size: Sequence[int], *, tokens: int) -> NDArray[np.int64]:
    """(tokens, 3) places (z, y, x) on the first stage's grid, uniform, no two of them in one token of the last stage.

    So they are different tokens at every stage: a token that counts twice would make layers look alike.
    """
    cells = [edge // COARSEST for edge in patch_size]
    drawn = rng.choice(int(np.prod(cells)), tokens, replace=False)
    corner = np.stack(np.unravel_index(drawn, cells), axis=1)
    inside = COARSEST // FINEST
    return corner * inside + rng.integers(0, inside, (tokens, 3))


class BlockReader:
    """Reads an encoder's blocks, all in one pass; sums up what their heads look at.

    Args:
        encoder: in evaluation mode, on its device.
        patch_size: voxels (z, y, x) of a crop.
        spacing: mm (z, y, x) of a voxel.
    """

    def __init__(self, encoder: SwinEncoder, *, patch_size: Sequence[int], spacing: Spacing) -> None:
        self.encoder = encoder
        # The axes as the encoder's weights know them.
        self._turn = -1 if encoder.plan.axis_order == "xyz" else 1
        self._blocks = [
            (stage, cast(SwinBlock, block))
            for stage, own in enumerate(encoder.stages)
            for block in cast(Stage, own).blocks
        ]
        self._sizes = [[edge // (FINEST << stage) for edge in patch_size[:: self._turn]] for stage in range(4)]
        z, y, x = spacing[:: self._turn]
        self._attention = [
            AttentionTotals(size=self._sizes[stage], token_voxels=FINEST << stage, spacing=(z, y, x))
            for stage, _ in self._blocks
        ]

    @torch.no_grad()
    def read(self, crops: NDArray[np.float32], places: NDArray[np.int64]) -> list[NDArray[np.float32]]:
        """The chosen tokens behind every block, (B, T, C) each, in the order of the blocks.

        Args:
            crops: (B, C, *patch_size).
            places: (B, T, 3) from `draw_places`.
        """
        found: list[list[NDArray[np.float32]]] = [[] for _ in self._blocks]
        at_once = max(1, PASSED_VOXELS // int(np.prod(crops.shape[2:])))
        device = next(self.encoder.parameters()).device
        for start in range(0, len(crops), at_once):
            some = slice(start, start + at_once)
            with self._listening(torch.from_numpy(places[some]).to(device), found):
                self.encoder(torch.from_numpy(crops[some]).to(device))
        return [np.concatenate(parts) for parts in found]

    def attention(self) -> tuple[AttentionSpan, ...]:
        """Of every block, over all that was read."""
        return tuple(totals.span() for totals in self._attention)

    @contextmanager
    def _listening(self, places: Tensor, found: list[list[NDArray[np.float32]]]) -> Iterator[None]:
        hooks = [
            block.register_forward_hook(self._hook(number, self._raster(places, stage), found[number]))
            for number, (stage, block) in enumerate(self._blocks)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _hook(self, number: int, chosen: Tensor, kept: list[NDArray[np.float32]]) -> Any:
        def hear(block: SwinBlock, given: tuple[Any, ...], out: Tensor) -> None:
            tokens, where = given[:2]
            sample = torch.arange(len(out), device=out.device)[:, None]
            kept.append(out[sample, where.rank[chosen]].float().cpu().numpy())
            self._attention[number].add(attention_rows(block, tokens, where, chosen), chosen)

        return hear

    def _raster(self, places: Tensor, stage: int) -> Tensor:
        """(B, T) index, on a stage's map, of the tokens that hold these places of the first stage's."""
        a, b, c = (places >> stage).flip(-1).unbind(-1) if self._turn < 0 else (places >> stage).unbind(-1)
        _, middle, last = self._sizes[stage]
        return (a * middle + b) * last + c
