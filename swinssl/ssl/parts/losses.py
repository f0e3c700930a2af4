"""Per-sample losses of reconstruction and of classification."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

ErrorKind = Literal["l2", "l1"]


def reconstruction_error(prediction: Tensor, target: Tensor, *, kind: ErrorKind, where: Tensor | None = None) -> Tensor:
    """Mean error of each sample over its voxels and channels.

    Args:
        prediction: (B, C, Z, Y, X).
        target: likewise.
        kind: `l2` is the squared error (the paper), `l1` the absolute error (public code of SimMIM and SMIT).
        where: (B, Z, Y, X) mask of the voxels to average over; None is all.

    Returns:
        (B,) float32; 0 for a sample whose mask is empty.

    Source: arXiv 2605.18491, section 3.2, items 1 to 3; SimMIM, arXiv 2111.09886, eq. 1.
    """
    difference = prediction.float() - target.float()
    error = (difference.square() if kind == "l2" else difference.abs()).mean(1)
    if where is None:
        return error.mean((1, 2, 3))
    counted = where.sum((1, 2, 3)).clamp_min(1)
    return (error * where).sum((1, 2, 3)) / counted


def classification_loss(logits: Tensor, target: Tensor) -> Tensor:
    """(B,) cross-entropy of (B, classes) logits with (B,) target classes."""
    return F.cross_entropy(logits.float(), target, reduction="none")
