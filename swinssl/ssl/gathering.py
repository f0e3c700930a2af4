"""The rows of all ranks' samples in one tensor, so that a loss over the batch does not depend on how it is split."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from swinssl.devices import several_ranks


def gather_samples(rows: Tensor, samples: Tensor, *, count: int) -> tuple[Tensor, Tensor]:
    """Rows of every sample, each at its index in the whole batch; the gradient finds its way back to its rank.

    Args:
        rows: (B, ...) of this rank's samples.
        samples: (B,) their indices in the batch.
        count: samples of the batch, over all ranks.

    Returns:
        (count, ...) rows, zero for a sample that no rank has in this part of the batch; and (count,) whether one has.
    """
    whole = rows.new_zeros((count, *rows.shape[1:])).index_copy(0, samples, rows)
    present = torch.zeros(count, device=rows.device).index_fill(0, samples, 1.0)
    if several_ranks():
        from torch.distributed.nn.functional import all_reduce

        whole = all_reduce(whole)
        dist.all_reduce(present)
    return whole, present > 0


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum over all ranks, without gradient."""
    summed = values.detach().clone()
    if several_ranks():
        dist.all_reduce(summed)
    return summed
