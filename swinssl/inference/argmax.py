"""From logits to structures: the argmax of exclusive labels, or each region with a probability above 0.5.

The result is one integer per voxel, so that interpolation can find cells whose corners disagree.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swinssl.dataset.labels import LabelSet

# The last bit of an int64 is its sign.
MOST_REGIONS = 63


def decide(logits: Tensor, labels: LabelSet) -> Tensor:
    """The index of the largest logit (exclusive labels; the first of equal ones), or one bit per present region.

    Args:
        logits: (K, ...).

    Returns:
        (...) integers. If two places have the same code, so has every place interpolated between them.

    Raises:
        ValueError: more regions than bits.
    """
    if not labels.regions:
        return _largest(logits)
    if len(logits) > MOST_REGIONS:
        raise ValueError(f"{len(logits)} regions; at most {MOST_REGIONS} are supported")
    bits = torch.zeros(logits.shape[1:], dtype=torch.uint8 if len(logits) <= 8 else torch.int64, device=logits.device)
    for region, logit in enumerate(logits):
        bits |= (logit > 0).to(bits.dtype) << region
    return bits


def winners(decided: Tensor, labels: LabelSet) -> NDArray:
    """The result of `decide` as `LabelSet.output_to_raw` takes it: (...) indices, or (R, ...) booleans for regions."""
    if not labels.regions:
        return decided.cpu().numpy()
    return np.stack([((decided >> region) & 1).bool().cpu().numpy() for region in range(labels.num_outputs)])


def probabilities(logits: Tensor, labels: LabelSet) -> Tensor:
    """(K, ...) softmax over exclusive labels, or the sigmoid of each region."""
    return logits.sigmoid() if labels.regions else logits.softmax(0)


def _largest(logits: Tensor) -> Tensor:
    # A running maximum reads each logit once, in order; a reduction over the first axis takes 1.6 times as long.
    best = logits[0].clone()
    index = torch.zeros(best.shape, dtype=torch.uint8 if len(logits) <= 256 else torch.int32, device=logits.device)
    larger = torch.empty(best.shape, dtype=torch.bool, device=logits.device)
    for structure, logit in enumerate(logits[1:], start=1):
        # Indices rise, so a product and a maximum, which vectorise, replace a masked assignment.
        torch.gt(logit, best, out=larger)
        flags = larger.view(torch.uint8) if index.dtype == torch.uint8 else larger.to(index.dtype)
        torch.maximum(index, flags.mul_(structure), out=index)
        torch.maximum(best, logit, out=best)
    return index
