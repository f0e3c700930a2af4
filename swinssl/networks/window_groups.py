"""Which windows of a batch are computed together: as many as fit the cache, all of one mask."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from swinssl.networks.window_maps import Size, on_cpu, window_maps


@dataclass(frozen=True)
class WindowGroup:
    """Some windows of a batch of tokens (B * L, C); N slots a window.

    Args:
        windows: number of windows.
        slots: number of slots, windows * N.
        first: first row where the group's rows are a run of the batch, else None.
        rows: (tokens,) rows of the group's tokens where they are none.
        real: (tokens,) slots that hold a token; None where all do.
        mask: (N, N) added to the scores of each of these windows, or None.
        samples: (tokens,) which sample of the batch each token is of.
    """

    windows: int
    slots: int
    first: int | None
    rows: Tensor
    real: Tensor | None
    mask: Tensor | None
    samples: Tensor

    def take(self, batch_rows: Tensor) -> Tensor:
        """(tokens, C) of this group."""
        if self.first is not None:
            return batch_rows[self.first : self.first + len(self.rows)]
        return F.embedding(self.rows, batch_rows)

    def put(self, batch_rows: Tensor, values: Tensor) -> None:
        """Write (tokens, C) where `take` reads."""
        if self.first is not None:
            batch_rows[self.first : self.first + len(self.rows)] = values
        else:
            batch_rows.index_copy_(0, self.rows, values)

    def pad(self, values: Tensor) -> Tensor:
        """(slots, C) from (tokens, C), zero where no token is."""
        if self.real is None:
            return values
        return values.new_zeros(self.slots, values.shape[1]).index_copy_(0, self.real, values)

    def unpad(self, values: Tensor) -> Tensor:
        """(tokens, C) from (slots, C)."""
        return values if self.real is None else values.index_select(0, self.real)


@lru_cache(maxsize=64)
@on_cpu
def window_groups(
    size: Size, window: int, *, shrink: bool, mask_padding: bool, shifted: bool, batch: int, slots: int
) -> tuple[WindowGroup, ...]:
    """Groups of about `slots` slots that hold every window of a batch once.

    Args:
        size: tokens (z, y, x) of the map.
        window: edge; shrink and mask_padding as in `window_maps`.
        shifted: of a shifted block.
        batch: samples.
    """
    where = window_maps(size, window, shrink=shrink, mask_padding=mask_padding, device=torch.device("cpu"))
    gather, masks = where.plain, where.plain_mask
    if shifted and where.shifted is not None:
        gather, masks = where.shifted, where.shifted_mask
    tokens, each = math.prod(size), math.prod(where.window)
    into = torch.arange(tokens) if gather is None else gather.into
    into = into.view(-1, each)
    kinds, kind_of = torch.zeros(1, each, each), torch.zeros(len(into), dtype=torch.long)
    if masks is not None:
        kinds, kind_of = torch.unique(masks, dim=0, return_inverse=True)
    groups = []
    for kind, mask in enumerate(kinds):
        alike = into[kind_of == kind]
        padding = alike == tokens
        rows = torch.cat([alike + sample * tokens for sample in range(batch)])
        padding = padding.repeat(batch, 1)
        most = max(1, slots // each)
        count = math.ceil(len(rows) / most)
        for some, absent in zip(rows.tensor_split(count), padding.tensor_split(count), strict=True):
            groups.append(_group(some, absent, mask if bool(mask.any()) else None, tokens=tokens))
    return tuple(groups)


def _group(rows: Tensor, padding: Tensor, mask: Tensor | None, *, tokens: int) -> WindowGroup:
    """The group of windows with these (windows, N) rows."""
    windows, slots = len(rows), rows.numel()
    flat, absent = rows.reshape(-1), padding.reshape(-1)
    real = None if not bool(absent.any()) else (~absent).nonzero()[:, 0]
    present = flat if real is None else flat[real]
    is_run = bool((present.diff() == 1).all())
    return WindowGroup(windows, slots, int(present[0]) if is_run else None, present, real, mask, present // tokens)
