"""A transformer block computed for a few windows at a time, so that what lies in between stays in a CPU's cache.

The arithmetic is that of `SwinBlock`. For training three maps are kept (queries with keys and values, the sum after
attention, the hidden layer before its activation); probabilities, norms and activations are computed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from swinssl.networks.window_groups import WindowGroup

EPS = 1e-5
ATEN = torch.ops.aten


class BlockWeights(NamedTuple):
    """The block's parameters, linear weights (out, in); or their gradients."""

    norm1_weight: Tensor
    norm1_bias: Tensor
    qkv_weight: Tensor
    qkv_bias: Tensor | None
    proj_weight: Tensor
    proj_bias: Tensor
    norm2_weight: Tensor
    norm2_bias: Tensor
    fc1_weight: Tensor
    fc1_bias: Tensor
    fc2_weight: Tensor
    fc2_bias: Tensor


class Kept(NamedTuple):
    """What the backward pass needs of one group: (slots, 3C), (tokens, C) and (tokens, 4C)."""

    qkv: Tensor
    attended: Tensor
    hidden: Tensor


def grouped_block(
    tokens: Tensor, weights: BlockWeights, bias: Tensor, groups: Sequence[WindowGroup], *, keep: Tensor | None
) -> Tensor:
    """y = x + keep0 * attention(LN(x)), then y + keep1 * MLP(LN(y)).

    Args:
        tokens: (B, L, C) on the CPU.
        weights: of the block.
        bias: (heads, N, N) added to the scores.
        groups: that hold every window of the batch once.
        keep: (B, 2) factors of the two residual branches (stochastic depth), or None.
    """
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else tokens.dtype
    if torch.is_grad_enabled():
        return cast(Tensor, _Training.apply(tokens, bias, keep, tuple(groups), dtype, *weights))
    with torch.autocast("cpu", enabled=False):
        block, rows = _Block(weights, bias, dtype), tokens.reshape(-1, tokens.shape[-1])
        out = torch.empty_like(rows)
        for group in groups:
            group.put(out, block.forward(group.take(rows), group, keep)[0])
    return out.view_as(tokens)


class _Training(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, bias: Tensor, keep: Any, groups: Any, dtype: Any, *weights: Any) -> Tensor:
        kept: list[Tensor] = []
        with torch.autocast("cpu", enabled=False):
            block, rows = _Block(BlockWeights(*weights), bias, dtype), tokens.reshape(-1, tokens.shape[-1])
            out = torch.empty_like(rows)
            for group in groups:
                values, own = block.forward(group.take(rows), group, keep)
                group.put(out, values)
                kept += own
        ctx.groups, ctx.dtype = groups, dtype
        ctx.has_keep = keep is not None
        ctx.save_for_backward(tokens, bias, keep, *weights, *kept)
        return out.view_as(tokens)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        tokens, bias, keep, *others = ctx.saved_tensors
        count = len(BlockWeights._fields)
        weights, kept = BlockWeights(*others[:count]), others[count:]
        del others
        with torch.autocast("cpu", enabled=False):
            block = _Backward(weights, bias, ctx.dtype)
            rows, above = (t.reshape(-1, t.shape[-1]) for t in (tokens, gradient))
            below = torch.empty_like(rows)
            for number, group in enumerate(ctx.groups):
                own = Kept(*kept[3 * number : 3 * number + 3])
                group.put(below, block.backward(group.take(above), group.take(rows), own, group, keep))
        return below.view_as(tokens), block.bias_gradient, None, None, None, *block.weight_gradients()


class _Block:
    """The block's arithmetic on the tokens of one group; residual sums as they come, products in `dtype`."""

    def __init__(self, weights: BlockWeights, bias: Tensor, dtype: torch.dtype) -> None:
        self.weights, self.dtype = weights, dtype
        self.width = len(weights.norm1_weight)
        self.heads, self.window = bias.shape[0], bias.shape[1]
        self.scale = (self.width // self.heads) ** -0.5
        cast_weights = BlockWeights._make(w if w is None else w.to(dtype) for w in weights)
        # The scale of the scores goes with the queries' weights.
        scale = torch.ones(3, dtype=dtype)
        scale[0] = self.scale
        scale = scale.repeat_interleave(self.width)
        self.linear = cast_weights._replace(
            qkv_weight=cast_weights.qkv_weight * scale[:, None],
            qkv_bias=None if cast_weights.qkv_bias is None else cast_weights.qkv_bias * scale,
        )
        self.bias = bias.to(dtype)
        self.added: dict[int, Tensor] = {}

    def forward(self, x: Tensor, group: WindowGroup, keep: Tensor | None) -> tuple[Tensor, Kept]:
        """(tokens, C) in and out."""
        w = self.linear
        qkv = F.linear(group.pad(self.norm1(x)[0]), w.qkv_weight, w.qkv_bias)
        query, key, value = self.by_head(qkv)
        attention = self.from_heads(self.probabilities(query, key, group) @ value)
        branch = F.linear(group.unpad(attention), w.proj_weight, w.proj_bias)
        attended = x + _scaled(branch, keep, group, 0)
        hidden = F.linear(self.norm2(attended)[0], w.fc1_weight, w.fc1_bias)
        branch = F.linear(F.gelu(hidden), w.fc2_weight, w.fc2_bias)
        return attended + _scaled(branch, keep, group, 1), Kept(qkv, attended, hidden)

    def norm1(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised in `dtype`, mean, reciprocal deviation."""
        return self._norm(x, self.weights.norm1_weight, self.weights.norm1_bias)

    def norm2(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self._norm(x, self.weights.norm2_weight, self.weights.norm2_bias)

    def _norm(self, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        out, mean, reciprocal = torch.native_layer_norm(x, (self.width,), weight, bias, EPS)
        return out.to(self.dtype), mean, reciprocal

    def by_head(self, qkv: Tensor) -> Tensor:
        """(3, windows * heads, N, C / heads) from (slots, 3C)."""
        parts = qkv.view(-1, self.window, 3, self.heads, self.width // self.heads)
        return parts.permute(2, 0, 3, 1, 4).reshape(3, -1, self.window, self.width // self.heads)

    def from_heads(self, out: Tensor) -> Tensor:
        """(slots, C) from (windows * heads, N, C / heads)."""
        parts = out.view(-1, self.heads, self.window, self.width // self.heads)
        return parts.transpose(1, 2).reshape(-1, self.width)

    def probabilities(self, query: Tensor, key: Tensor, group: WindowGroup) -> Tensor:
        """(windows * heads, N, N)."""
        scores = query @ key.mT
        scores.view(-1, self.heads, self.window, self.window).add_(self._added(group.mask))
        return torch.softmax(scores, -1)

    def _added(self, mask: Tensor | None) -> Tensor:
        """Bias and mask, (heads, N, N)."""
        if mask is None:
            return self.bias
        if id(mask) not in self.added:
            self.added[id(mask)] = self.bias + mask.to(self.dtype)
        return self.added[id(mask)]


class _Backward(_Block):
    """The gradients, summed over the groups in float32."""

    def __init__(self, weights: BlockWeights, bias: Tensor, dtype: torch.dtype) -> None:
        super().__init__(weights, bias, dtype)
        self.bias_gradient = torch.zeros_like(bias)
        self.sums = BlockWeights._make(w if w is None else torch.zeros_like(w) for w in weights)

    def backward(self, above: Tensor, x: Tensor, kept: Kept, group: WindowGroup, keep: Tensor | None) -> Tensor:
        """(tokens, C) gradient of `x` from that of the output."""
        w, sums = self.linear, self.sums
        normed, *moments = self.norm2(kept.attended)
        branch = _scaled(above, keep, group, 1).to(self.dtype)
        below = self._linear(branch, F.gelu(kept.hidden), w.fc2_weight, sums.fc2_weight, sums.fc2_bias)
        below = ATEN.gelu_backward(below, kept.hidden)
        below = self._linear(below, normed, w.fc1_weight, sums.fc1_weight, sums.fc1_bias)
        weight, norm_sums = self.weights.norm2_weight, (sums.norm2_weight, sums.norm2_bias)
        attended = self._norm_backward(below, kept.attended, moments, weight, *norm_sums).add_(above)

        branch = _scaled(attended, keep, group, 0).to(self.dtype)
        query, key, value = self.by_head(kept.qkv)
        probabilities = self.probabilities(query, key, group)
        attention = group.unpad(self.from_heads(probabilities @ value))
        below = self._linear(branch, attention, w.proj_weight, sums.proj_weight, sums.proj_bias)
        below = self._attention_backward(self._to_heads(group.pad(below)), query, key, value, probabilities)
        normed, *moments = self.norm1(x)
        below = self._linear(below, group.pad(normed), w.qkv_weight, sums.qkv_weight, sums.qkv_bias)
        weight, norm_sums = self.weights.norm1_weight, (sums.norm1_weight, sums.norm1_bias)
        return self._norm_backward(group.unpad(below), x, moments, weight, *norm_sums).add_(attended)

    def weight_gradients(self) -> BlockWeights:
        """After the last group."""
        self.sums.qkv_weight[: self.width] *= self.scale
        if self.sums.qkv_bias is not None:
            self.sums.qkv_bias[: self.width] *= self.scale
        return self.sums

    def _linear(
        self, above: Tensor, inputs: Tensor, weight: Tensor, weight_sum: Tensor, bias_sum: Tensor | None
    ) -> Tensor:
        if weight_sum.dtype == above.dtype:
            weight_sum.addmm_(above.T, inputs)
        else:
            weight_sum += above.T @ inputs
        if bias_sum is not None:
            bias_sum += above.sum(0, dtype=bias_sum.dtype)
        return above @ weight

    def _norm_backward(
        self, above: Tensor, x: Tensor, moments: list[Tensor], weight: Tensor, weight_sum: Tensor, bias_sum: Tensor
    ) -> Tensor:
        mean, reciprocal = moments
        below, for_weight, for_bias = ATEN.native_layer_norm_backward(
            above.to(x.dtype), x, (self.width,), mean, reciprocal, weight, weight, (True, True, True)
        )
        weight_sum += for_weight
        bias_sum += for_bias
        return cast(Tensor, below)

    def _to_heads(self, values: Tensor) -> Tensor:
        """(windows * heads, N, C / heads) from (slots, C)."""
        parts = values.view(-1, self.window, self.heads, self.width // self.heads)
        return parts.transpose(1, 2).reshape(-1, self.window, self.width // self.heads)

    def _attention_backward(
        self, above: Tensor, query: Tensor, key: Tensor, value: Tensor, probabilities: Tensor
    ) -> Tensor:
        """(slots, 3C) gradient of queries, keys and values."""
        scores = ATEN._softmax_backward_data(above @ value.mT, probabilities, -1, probabilities.dtype)
        by_window = scores.view(-1, self.heads, self.window, self.window)
        self.bias_gradient += by_window.sum(0, dtype=self.bias_gradient.dtype)
        out = above.new_empty(3, *above.shape)
        torch.bmm(scores, key, out=out[0])
        torch.bmm(scores.mT, query, out=out[1])
        torch.bmm(probabilities.mT, above, out=out[2])
        parts = out.view(3, -1, self.heads, self.window, self.width // self.heads)
        return parts.permute(1, 3, 0, 2, 4).reshape(-1, 3 * self.width)


def _scaled(branch: Tensor, keep: Tensor | None, group: WindowGroup, index: int) -> Tensor:
    return branch if keep is None else branch * keep[:, index][group.samples, None]
