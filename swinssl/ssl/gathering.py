"""The rows of all ranks' samples in one tensor, so that a loss over the batch does not depend on how it is split."""

from __future__ import annotations

import torch
from torch import Tensor

from swinssl.collectives import sum_over_ranks


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
    return sum_over_ranks(whole), sum_over_ranks(present) > 0
