"""How far and how widely attention looks: mean attention distance and entropy of every head.

The mean attention distance is that of Dosovitskiy et al. (arXiv 2010.11929, appendix D.7): from a token to those it
attends to, weighted by the attention, averaged over tokens. Heads that look near beside heads that look far are what
the paper calls diversity of attention (sections 2.2 and 6). In a Swin block it ends at the window's edge, so it is
given beside that of even attention over the same window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from swinssl.core.geometry import Spacing
from swinssl.networks.swin.encoder import SwinBlock
from swinssl.networks.swin.windows import MASKED, WindowMaps

Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class AttentionSpan:
    """What the heads of one block look at, means over tokens. Padding is left out, and the rest scaled up to 1.

    Args:
        distance_voxels: (heads,) in voxels of the image.
        distance_mm: (heads,).
        entropy: (heads,) in nats; 0 is a single token, `even_entropy` all tokens alike.
        on_padding: (heads,) share of the attention that goes to padded places, which hold no image.
        even_distance_voxels, even_distance_mm, even_entropy: of even attention over the tokens that may be seen.
        tokens: that the means are over.
    """

    distance_voxels: Float64
    distance_mm: Float64
    entropy: Float64
    on_padding: Float64
    even_distance_voxels: float
    even_distance_mm: float
    even_entropy: float
    tokens: int


@dataclass(frozen=True, eq=False)
class AttentionRows:
    """What T tokens of each of B samples attend to, of the N slots of their windows.

    Args:
        weights: (B, T, heads, N) softmax over all slots.
        keys: (B, T, N) raster index of the token in each slot; the number of tokens where the slot is padding.
        seen: (B, T, N) whether the mask lets the token see the slot; never padding.
    """

    weights: Tensor
    keys: Tensor
    seen: Tensor


def attention_rows(block: SwinBlock, tokens: Tensor, where: WindowMaps, chosen: Tensor) -> AttentionRows:
    """The attention of some tokens, computed for them alone; the arithmetic is that of `WindowAttention`.

    Args:
        tokens: (B, L, C) that enter the block, in window order.
        where: maps of the block's stage.
        chosen: (B, T) raster indices.
    """
    gather, mask = where.of_block(shifted=block.shifted)
    attn, slots, count = block.attn, math.prod(where.window), tokens.shape[1]
    place = where.rank[chosen]
    slot = place if gather is None else gather.back[place]
    window, own = slot // slots, slot % slots
    beside = window[..., None] * slots + torch.arange(slots, device=slot.device)
    source = beside if gather is None else gather.into[beside]
    # A padded slot holds zeros, as in the block.
    normed = F.pad(block.norm1(tokens), (0, 0, 0, 1))
    sample = torch.arange(len(tokens), device=tokens.device)[:, None]
    weight, bias = attn.qkv.weight.chunk(3), (None,) * 3 if attn.qkv.bias is None else attn.qkv.bias.chunk(3)
    query = F.linear(normed[sample, place], weight[0], bias[0]).unflatten(-1, (attn.heads, -1))
    key = F.linear(normed[sample[..., None], source], weight[1], bias[1]).unflatten(-1, (attn.heads, -1))
    scores = torch.einsum("bthc,btnhc->bthn", query, key) * query.shape[-1] ** -0.5
    scores += attn.bias(where.window, tokens.device).movedim(0, 1)[own]
    seen = source < count
    if mask is not None:
        own_mask = mask[window, own]
        scores += own_mask[:, :, None]
        seen &= own_mask > MASKED / 2
    raster = torch.cat([where.order, where.order.new_tensor([count])])
    return AttentionRows(scores.softmax(dim=-1), raster[source], seen)


class AttentionTotals:
    """Sums over tokens of what the heads of one block look at.

    Args:
        size: tokens of the block's map, along the image's axes (z, y, x) as the encoder's weights know them.
        token_voxels: edge of a token in voxels of the image.
        spacing: mm of a voxel along the same axes.
    """

    def __init__(self, *, size: Sequence[int], token_voxels: int, spacing: Spacing) -> None:
        grid = torch.stack(torch.meshgrid(*(torch.arange(n) for n in size), indexing="ij"), dim=-1)
        voxels = torch.cat([grid.view(-1, 3), torch.zeros(1, 3, dtype=torch.long)]).double() * token_voxels
        # The last row stands for padding, which is left out.
        self._places = torch.stack([voxels, voxels * torch.tensor(spacing, dtype=torch.double)])
        self._sums: Float64 | None = None
        self._even = np.zeros(3)
        self._tokens = 0

    def add(self, rows: AttentionRows, chosen: Tensor) -> None:
        """Take the attention of the tokens with these (B, T) raster indices."""
        weights, keys, seen, chosen = (
            t.detach().flatten(0, 1).cpu() for t in (rows.weights, rows.keys, rows.seen, chosen)
        )
        real = keys < len(self._places[0]) - 1
        apart = torch.stack([(places[keys] - places[chosen][:, None]).norm(dim=-1) for places in self._places])
        weights = weights.double()
        on_padding = (weights * ~real[:, None]).sum(dim=-1)
        weights = weights * real[:, None]
        weights /= weights.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(torch.double).tiny)
        found = torch.stack(
            [
                *torch.einsum("ktn,thn->kth", apart, weights),
                -torch.special.xlogy(weights, weights).sum(dim=-1),
                on_padding,
            ]
        )
        sums = found.sum(dim=1).numpy()
        self._sums = sums if self._sums is None else self._sums + sums
        number = seen.sum(dim=-1).double()
        even = torch.stack([*((apart * seen).sum(dim=-1) / number), number.log()])
        self._even += even.sum(dim=-1).numpy()
        self._tokens += len(keys)

    def span(self) -> AttentionSpan:
        """The means so far; needs tokens."""
        assert self._sums is not None
        means, even = self._sums / self._tokens, self._even / self._tokens
        return AttentionSpan(
            distance_voxels=means[0],
            distance_mm=means[1],
            entropy=means[2],
            on_padding=means[3],
            even_distance_voxels=float(even[0]),
            even_distance_mm=float(even[1]),
            even_entropy=float(even[2]),
            tokens=self._tokens,
        )
