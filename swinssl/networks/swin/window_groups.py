"""Which windows of a batch are computed together: as many as fit the cache, mostly of one mask."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from swinssl.networks.swin.windows import Size, on_cpu, window_maps


@dataclass(frozen=True)
class WindowGroup:
    """Some windows of a batch of tokens (B * L, C); N slots a window.

    Args:
        windows: number of windows.
        slots: number of slots, windows * N.
        first: first row where the group's rows are a run of the batch, else None.
        rows: (tokens,) rows of the group's tokens where they are none.
        real: (tokens,) slots that hold a token; None where all do.
        mask: added to the scores: (N, N) where all these windows have the same, else (windows, 1, N, N); or None.
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
    gather, masks = where.of_block(shifted=shifted)
    tokens, each = math.prod(size), math.prod(where.window)
    into = torch.arange(tokens) if gather is None else gather.into
    into = into.view(-1, each)
    kind_of = torch.zeros(len(into), dtype=torch.long)
    if masks is not None:
        masks, kind_of = torch.unique(masks, dim=0, return_inverse=True)
    # Windows of one mask beside each other, sample by sample where there is but one.
    rows = torch.cat([torch.where(into < tokens, into + sample * tokens, -1) for sample in range(batch)])
    kind_of = kind_of.repeat(batch)
    order = kind_of.argsort(stable=True)
    most = max(1, slots // each)
    return tuple(
        _group(rows[some], None if masks is None else masks[kind_of[some]], tokens=tokens)
        for some in order.tensor_split(math.ceil(len(rows) / most))
    )


def _group(rows: Tensor, masks: Tensor | None, *, tokens: int) -> WindowGroup:
    """The group of windows with these (windows, N) rows, -1 where no token is, and (windows, N, N) masks."""
    flat = rows.reshape(-1)
    real = None if bool((flat >= 0).all()) else (flat >= 0).nonzero()[:, 0]
    present = flat if real is None else flat[real]
    mask = None if masks is None or not bool(masks.any()) else masks[:, None]
    if mask is not None and bool((mask == mask[:1]).all()):
        mask = mask[0, 0]
    is_run = bool((present.diff() == 1).all())
    return WindowGroup(
        windows=len(rows),
        slots=len(flat),
        first=int(present[0]) if is_run else None,
        rows=present,
        real=real,
        mask=mask,
        samples=present // tokens,
    )
