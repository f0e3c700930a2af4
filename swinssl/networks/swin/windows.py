"""Integer maps of shifted-window attention: which token goes where. Computed once per (map size, window) and cached.

The tokens of a stage are kept in *window order*: the tokens of one window lie beside each other, the windows in raster
order. Unshifted blocks then move nothing; a shifted block needs one gather in and one out; merging is one gather that
also produces the next stage's window order. Image order is restored only where a map leaves the encoder.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from swinssl.networks.network_plan import MergeOrder

Size = tuple[int, int, int]

# Parities (z, y, x) of the eight neighbours in the order in which merging concatenates them.
# monai_legacy reads 010 and 001 twice and never 110 and 011.
MERGE_ORDERS: dict[MergeOrder, tuple[str, ...]] = {
    "lexicographic": ("000", "001", "010", "011", "100", "101", "110", "111"),
    "smit": ("000", "100", "010", "001", "110", "011", "101", "111"),
    "monai": ("000", "100", "010", "001", "110", "101", "011", "111"),
    "monai_legacy": ("000", "100", "010", "001", "101", "010", "001", "111"),
}
# Large enough to remove a key, small enough for exactness of imports in fp32 and bf16.
MASKED = -100.0

P = ParamSpec("P")
R = TypeVar("R")


def on_cpu(function: Callable[P, R]) -> Callable[P, R]:
    """Integer maps need values: they are computed on the CPU also where `meta` is torch's default device."""

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch.device("cpu"):
            return function(*args, **kwargs)

    return wrapped


@dataclass(frozen=True)
class Gather:
    """A move of tokens into attention windows and back.

    Args:
        into: (slots,) source token of every window slot; the number of tokens where the slot is padding.
        back: (tokens,) window slot of every token.
        padded: some slot is padding.
    """

    into: Tensor
    back: Tensor
    padded: bool


@dataclass(frozen=True)
class WindowMaps:
    """Everything that the two kinds of block of one stage need.

    Args:
        window: the edges actually used, maybe shrunken.
        order: (tokens,) raster index of the token at each place in window order.
        rank: (tokens,) place in window order of each raster index.
        plain: how tokens enter unshifted windows; None when window order is that already.
        shifted: how they enter shifted windows; None when no axis shifts.
        plain_mask: (windows, N, N) added to the scores, or None.
        shifted_mask: likewise for shifted windows.
    """

    window: Size
    order: Tensor
    rank: Tensor
    plain: Gather | None
    shifted: Gather | None
    plain_mask: Tensor | None
    shifted_mask: Tensor | None

    def of_block(self, *, shifted: bool) -> tuple[Gather | None, Tensor | None]:
        """How tokens enter the windows of a block, and its mask; where no axis shifts, shifted blocks are as others."""
        if shifted and self.shifted is not None:
            return self.shifted, self.shifted_mask
        return self.plain, self.plain_mask


@lru_cache(maxsize=256)
@on_cpu
def window_maps(size: Size, window: int, *, shrink: bool, mask_padding: bool, device: torch.device) -> WindowMaps:
    """The maps of a stage whose map has `size` tokens along (z, y, x)."""
    edges = _triple(min(n, window) if shrink else window for n in size)
    # Where the whole axis is one window, a shift would only cut it; SMIT shifts nevertheless.
    shift = _triple(0 if shrink and n <= window else window // 2 for n in size)
    padded = _triple(math.ceil(n / w) * w for n, w in zip(size, edges, strict=True))
    tokens = math.prod(size)

    raster = torch.full(padded, tokens)
    raster[: size[0], : size[1], : size[2]] = torch.arange(tokens).view(size)
    plain_slots = _windows(raster, edges).reshape(-1)
    order = plain_slots[plain_slots < tokens]
    rank = torch.empty(tokens + 1, dtype=torch.long)
    rank[order] = torch.arange(tokens)
    rank[tokens] = tokens

    region = torch.zeros(padded, dtype=torch.long)
    if mask_padding:
        region += (raster == tokens).long() * 1000
    plain = _gather(rank[plain_slots], tokens, device) if padded != size else None
    plain_mask = _mask(_windows(region, edges), device) if mask_padding and padded != size else None

    shifted, shifted_mask = None, None
    if any(shift):
        rolled = torch.roll(raster, [-s for s in shift], (0, 1, 2))
        shifted = _gather(rank[_windows(rolled, edges).reshape(-1)], tokens, device)
        region = torch.roll(region, [-s for s in shift], (0, 1, 2))
        cuts = [
            ((0, n - w), (n - w, n - s), (n - s, n)) if s else ((0, n),)
            for n, w, s in zip(padded, edges, shift, strict=True)
        ]
        for number, (z, y, x) in enumerate(itertools.product(*cuts)):
            region[slice(*z), slice(*y), slice(*x)] += number
        shifted_mask = _mask(_windows(region, edges), device)
    return WindowMaps(edges, order.to(device), rank[:tokens].to(device), plain, shifted, plain_mask, shifted_mask)


@lru_cache(maxsize=256)
@on_cpu
def merge_map(
    size: Size, order: MergeOrder, *, window: int, shrink: bool, next_in_window_order: bool, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """Where merging takes its neighbours from.

    Returns:
        (tokens,) places, in this stage's window order, of the eight neighbours merged into each token of the next
        stage, which are in its window order, or in raster order for the last merging; and the inverse of this
        permutation, None where neighbours are duplicated.
    """
    here = window_maps(size, window, shrink=shrink, mask_padding=False, device=torch.device("cpu"))
    half = _triple(n // 2 for n in size)
    rows = torch.arange(math.prod(half))
    if next_in_window_order:
        rows = window_maps(half, window, shrink=shrink, mask_padding=False, device=torch.device("cpu")).order
    z, y, x = rows // (half[1] * half[2]), rows // half[2] % half[1], rows % half[2]
    columns = [
        here.rank[((2 * z + int(p[0])) * size[1] + 2 * y + int(p[1])) * size[2] + 2 * x + int(p[2])]
        for p in MERGE_ORDERS[order]
    ]
    into = torch.stack(columns, dim=1).reshape(-1)
    inverse = None if order == "monai_legacy" else into.argsort().to(device)
    return into.to(device), inverse


@lru_cache(maxsize=64)
@on_cpu
def bias_index(window: Size, table_window: int, *, legacy: bool, device: torch.device) -> Tensor:
    """(N * N,) rows of the relative position table for every pair (query, key) of a window.

    Args:
        table_window: window edge the table was made for; it has (2 * table_window - 1)**3 rows.
        legacy: build the full window's index and cut it to N x N, as MONAI does where the window was shrunken; the
            rows are then not those of the geometry.
    """
    edge = 2 * table_window - 1
    shape = (table_window,) * 3 if legacy else window
    place = torch.stack(torch.meshgrid(*(torch.arange(n) for n in shape), indexing="ij")).flatten(1).T
    apart = place[:, None] - place[None] + (table_window - 1)
    index = (apart[..., 0] * edge + apart[..., 1]) * edge + apart[..., 2]
    count = math.prod(window)
    return index[:count, :count].reshape(-1).to(device)


def _windows(grid: Tensor, edges: Size) -> Tensor:
    """(windows, N) entries of a padded grid, window by window."""
    a, b, c = (n // w for n, w in zip(grid.shape, edges, strict=True))
    split = grid.reshape(a, edges[0], b, edges[1], c, edges[2])
    return split.permute(0, 2, 4, 1, 3, 5).reshape(-1, math.prod(edges))


def _gather(into: Tensor, tokens: int, device: torch.device) -> Gather:
    back = torch.empty(tokens, dtype=torch.long)
    real = into < tokens
    back[into[real]] = torch.arange(len(into))[real]
    return Gather(into.to(device), back.to(device), bool((~real).any()))


def _mask(region: Tensor, device: torch.device) -> Tensor:
    """(windows, N, N): 0 between slots of one region, MASKED between others."""
    return torch.where(region[:, :, None] == region[:, None, :], 0.0, MASKED).to(device)


def _triple(values: Iterable[int]) -> Size:
    z, y, x = values
    return z, y, x
