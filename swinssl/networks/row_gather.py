"""Moving rows of (B, L, C): a permutation whose gradient is the inverse permutation, not a scatter."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor


def gather_rows(rows: Tensor, index: Tensor, inverse: Tensor | None) -> Tensor:
    """`rows[:, index]`.

    Args:
        rows: (B, L, C).
        index: (M,) rows to take.
        inverse: (L,) where each row went; None where `index` is no permutation.
    """
    if inverse is None or torch.compiler.is_compiling():
        return rows[:, index]
    return cast(Tensor, _Permutation.apply(rows, index, inverse))


class _Permutation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return rows.index_select(1, index)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (inverse,) = ctx.saved_tensors
        return gradient.index_select(1, inverse), None, None
