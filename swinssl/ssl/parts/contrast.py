"""NT-Xent: two views of a sample attract each other and repel all other views of the batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from swinssl.core.devices import sum_over_ranks


def nt_xent(views: Tensor, samples: Tensor, *, count: int, temperature: float) -> Tensor:
    """Normalised-temperature cross-entropy of each sample, against all samples of the batch over all ranks.

    For an anchor z_i and its other view z_j: -log(exp(s_ij / t) / sum over k != i of exp(s_ik / t)), s the cosine
    similarity; computed in float32 through logsumexp.

    Args:
        views: (B, 2, D) embeddings of two views of this rank's samples.
        samples: (B,) indices of the samples in the whole batch.
        count: samples of the whole batch.
        temperature: divisor of the similarity, > 0.

    Returns:
        (B,) mean over a sample's two anchors.

    Source: arXiv 2605.18491, section 3.2, item 4; SimCLR, arXiv 2002.05709, eq. 1.
    """
    with torch.autocast(views.device.type, enabled=False):
        embeddings = F.normalize(views.float(), dim=-1)
        every, present = gather_samples(embeddings, samples, count=count)
        similarity = embeddings.flatten(0, 1) @ every.flatten(0, 1).T / temperature  # (2B, 2 count)
        anchors = (2 * samples[:, None] + torch.arange(2, device=samples.device)).flatten()
        absent = ~present.repeat_interleave(2)[None].expand_as(similarity)
        itself = F.one_hot(anchors, 2 * count).bool()
        similarity = similarity.masked_fill(absent | itself, float("-inf"))
        positive = similarity.gather(1, (anchors ^ 1)[:, None])[:, 0]
        return (similarity.logsumexp(1) - positive).view(-1, 2).mean(1)


def gather_samples(rows: Tensor, samples: Tensor, *, count: int) -> tuple[Tensor, Tensor]:
    """Rows of every sample, each at its index in the whole batch; gradients flow back to the rank of each sample.

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
