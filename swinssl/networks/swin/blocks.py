"""A transformer block computed for a few windows at a time, so that what lies in between stays in a CPU's cache.

The arithmetic is that of `SwinBlock`. Three maps are kept for the backward pass: queries, keys and values; the sum
after attention; the hidden layer before its activation. Probabilities, norms and activations are computed again. All
that lies between is written into the same memory group after group.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from swinssl.networks.swin.window_groups import WindowGroup

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


class Saved(NamedTuple):
    """What the backward pass needs of one group.

    Args:
        qkv: (3, windows * heads, C / heads, N).
        attended: (tokens, C), the sum after attention.
        hidden: (tokens, 4C), before its activation.
    """

    qkv: Tensor
    attended: Tensor
    hidden: Tensor


def grouped_block(
    tokens: Tensor, weights: BlockWeights, bias: Tensor, groups: Sequence[WindowGroup], *, keep_prob: Tensor | None
) -> Tensor:
    """y = x + keep0 * attention(LN(x)), then y + keep1 * MLP(LN(y)).

    Args:
        tokens: (B, L, C) on the CPU.
        weights: of the block.
        bias: (heads, N, N) added to the scores.
        groups: that hold every window of the batch once.
        keep_prob: (B, 2) factors of the two residual branches (stochastic depth), or None.
    """
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else tokens.dtype
    if torch.is_grad_enabled():
        return cast(Tensor, _Training.apply(tokens, bias, keep_prob, tuple(groups), dtype, *weights))
    with torch.autocast("cpu", enabled=False):
        block = _Block(weights, bias, dtype)
        return block.run(tokens, groups, keep_prob, saved=block.scratch_saved)


class _Training(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, tokens: Tensor, bias: Tensor, keep_prob: Any, groups: Any, dtype: Any, *weights: Any
    ) -> Tensor:
        saved: list[Tensor] = []
        with torch.autocast("cpu", enabled=False):
            block = _Block(BlockWeights(*weights), bias, dtype)

            def new(group: WindowGroup) -> Saved:
                group_saved = block.new_saved(group)
                saved.extend(group_saved)
                return group_saved

            out = block.run(tokens, groups, keep_prob, saved=new)
        ctx.groups, ctx.dtype = groups, dtype
        ctx.save_for_backward(tokens, bias, keep_prob, *weights, *saved)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        tokens, bias, keep_prob, *others = ctx.saved_tensors
        count = len(BlockWeights._fields)
        weights, saved = BlockWeights(*others[:count]), others[count:]
        del others
        with torch.autocast("cpu", enabled=False):
            block = _Backward(weights, bias, ctx.dtype)
            rows, above = (t.reshape(-1, t.shape[-1]) for t in (tokens, gradient))
            below = torch.empty_like(rows)
            for number, group in enumerate(ctx.groups):
                group_saved = Saved(*saved[3 * number : 3 * number + 3])
                group.put(below, block.backward(group.take(above), group.take(rows), group_saved, group, keep_prob))
        return below.view_as(tokens), block.bias_gradient, None, None, None, *block.weight_gradients()


class _Block:
    """The block's arithmetic on the tokens of one group; residual sums in the tokens' type, products in `dtype`."""

    def __init__(self, weights: BlockWeights, bias: Tensor, dtype: torch.dtype) -> None:
        self.weights, self.dtype = weights, dtype
        self.width = len(weights.norm1_weight)
        self.heads, self.window = bias.shape[0], bias.shape[1]
        self.head_width = self.width // self.heads
        # The scale of the scores goes with the queries' weights.
        self.scale = self.head_width**-0.5
        scale = torch.tensor([self.scale, 1.0, 1.0], dtype=dtype).repeat_interleave(self.width)
        linear = BlockWeights._make(w if w is None else w.to(dtype) for w in weights)
        self.linear = linear._replace(
            qkv_weight=linear.qkv_weight * scale[:, None],
            qkv_bias=torch.zeros_like(scale) if linear.qkv_bias is None else linear.qkv_bias * scale,
        )
        self.bias = bias.to(dtype)
        self.memory: dict[str, Tensor] = {}

    def run(
        self,
        tokens: Tensor,
        groups: Sequence[WindowGroup],
        keep_prob: Tensor | None,
        *,
        saved: Callable[[WindowGroup], Saved],
    ) -> Tensor:
        """(B, L, C) in and out; `saved` gives the memory that a group's saved maps are written into."""
        rows = tokens.reshape(-1, self.width)
        out = torch.empty_like(rows)
        for group in groups:
            group.put(out, self.forward(group.take(rows), saved(group), group, keep_prob))
        return out.view_as(tokens)

    def new_saved(self, group: WindowGroup) -> Saved:
        """Memory of this group alone."""
        return Saved(*(torch.empty(shape, dtype=dtype) for shape, dtype in self._saved_shapes(group)))

    def scratch_saved(self, group: WindowGroup) -> Saved:
        """Memory that the next group writes over."""
        names = Saved._fields
        return Saved(*(self.scratch(n, s, d) for n, (s, d) in zip(names, self._saved_shapes(group), strict=True)))

    def _saved_shapes(self, group: WindowGroup) -> tuple[tuple[tuple[int, ...], torch.dtype], ...]:
        tokens, by_head = len(group.rows), (3, group.windows * self.heads, self.head_width, self.window)
        stream = self.weights.norm1_weight.dtype
        return (by_head, self.dtype), ((tokens, self.width), stream), ((tokens, 4 * self.width), self.dtype)

    def scratch(self, name: str, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
        """Memory under a name, the same for each group, so that it stays in the cache."""
        size = math.prod(shape)
        if name not in self.memory or self.memory[name].numel() < size:
            self.memory[name] = torch.empty(size, dtype=dtype or self.dtype)
        return self.memory[name][:size].view(*shape)

    def forward(self, x: Tensor, saved: Saved, group: WindowGroup, keep_prob: Tensor | None) -> Tensor:
        """(tokens, C) in and out."""
        w = self.linear
        normed, _ = self.norm(x, self.weights.norm1_weight, self.weights.norm1_bias)
        qkv = self._affine("wide", group.pad(normed), w.qkv_weight, cast(Tensor, w.qkv_bias))
        parts = qkv.view(-1, self.window, 3, self.heads, self.head_width).permute(2, 0, 3, 4, 1)
        saved.qkv.view(parts.shape).copy_(parts)
        attention = self.attention(saved.qkv, self.probabilities(saved.qkv, group))
        branch = self._affine("narrow", group.unpad(attention), w.proj_weight, w.proj_bias)
        torch.add(x, _scaled(branch, keep_prob, group, 0), out=saved.attended)
        normed, _ = self.norm(saved.attended, self.weights.norm2_weight, self.weights.norm2_bias)
        torch.addmm(w.fc1_bias, normed, w.fc1_weight.T, out=saved.hidden)
        branch = self._affine("narrow", self.activated(saved.hidden), w.fc2_weight, w.fc2_bias)
        out = self.scratch("out", x.shape, x.dtype)
        return torch.add(saved.attended, _scaled(branch, keep_prob, group, 1), out=out)

    def norm(self, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """LayerNorm of (tokens, C) in `dtype`; mean and reciprocal deviation."""
        out, mean, reciprocal = torch.native_layer_norm(x, (self.width,), weight, bias, EPS)
        return out.to(self.dtype), (mean, reciprocal)

    def probabilities(self, qkv: Tensor, group: WindowGroup) -> Tensor:
        """(windows * heads, N queries, N keys)."""
        query, key, _ = qkv
        scores = self.scratch("scores", (len(query), self.window, self.window))
        scores.view(-1, self.heads, self.window, self.window).copy_(self._added(group.mask))
        scores.baddbmm_(query.mT, key)
        return torch._softmax(scores, -1, False, out=scores)

    def attention(self, qkv: Tensor, probabilities: Tensor) -> Tensor:
        """(slots, C). Products whose result is N wide are the fastest: hence values turned."""
        by_head = torch.bmm(qkv[2], probabilities.mT, out=self.scratch("by head", qkv[2].shape))
        out = self.scratch("attention", (by_head.numel() // self.width, self.width))
        out.view(-1, self.window, self.width).copy_(by_head.view(-1, self.width, self.window).mT)
        return out

    def activated(self, hidden: Tensor) -> Tensor:
        """GELU of (tokens, 4C)."""
        return ATEN.gelu.out(hidden, out=self.scratch("activated", hidden.shape))

    def _affine(self, name: str, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.addmm(bias, x, weight.T, out=self.scratch(name, (len(x), len(weight))))

    def _added(self, mask: Tensor | None) -> Tensor:
        """Bias and mask, ([windows,] heads, N, N)."""
        return self.bias if mask is None else self.bias + mask.to(self.dtype)


class _Backward(_Block):
    """The gradients, those of weights summed over the groups in the weights' own type."""

    def __init__(self, weights: BlockWeights, bias: Tensor, dtype: torch.dtype) -> None:
        super().__init__(weights, bias, dtype)
        self.bias_gradient = torch.zeros_like(bias)
        self.sums = BlockWeights._make(w if w is None else torch.zeros_like(w) for w in weights)

    def backward(self, above: Tensor, x: Tensor, saved: Saved, group: WindowGroup, keep_prob: Tensor | None) -> Tensor:
        """(tokens, C) gradient of `x` from that of the output."""
        w, weights, sums = self.linear, self.weights, self.sums
        normed, moments = self.norm(saved.attended, weights.norm2_weight, weights.norm2_bias)
        branch = _scaled(above, keep_prob, group, 1).to(self.dtype)
        below = self._linear("wide", branch, self.activated(saved.hidden), w.fc2_weight, sums.fc2_weight, sums.fc2_bias)
        ATEN.gelu_backward.grad_input(below, saved.hidden, grad_input=below)
        below = self._linear("narrow", below, normed, w.fc1_weight, sums.fc1_weight, sums.fc1_bias)
        sum_of = (sums.norm2_weight, sums.norm2_bias)
        attended = self._norm(below, saved.attended, moments, weights.norm2_weight, *sum_of).add_(above)

        branch = _scaled(attended, keep_prob, group, 0).to(self.dtype)
        probabilities = self.probabilities(saved.qkv, group)
        attention = group.unpad(self.attention(saved.qkv, probabilities))
        below = self._linear("narrow", branch, attention, w.proj_weight, sums.proj_weight, sums.proj_bias)
        below = self._attention(group.pad(below), saved.qkv, probabilities)
        normed, moments = self.norm(x, weights.norm1_weight, weights.norm1_bias)
        below = self._linear("narrow", below, group.pad(normed), w.qkv_weight, sums.qkv_weight, sums.qkv_bias)
        sum_of = (sums.norm1_weight, sums.norm1_bias)
        return self._norm(group.unpad(below), x, moments, weights.norm1_weight, *sum_of).add_(attended)

    def weight_gradients(self) -> BlockWeights:
        """After the last group."""
        self.sums.qkv_weight[: self.width] *= self.scale
        if self.sums.qkv_bias is not None:
            self.sums.qkv_bias[: self.width] *= self.scale
        return self.sums

    def _linear(
        self, name: str, above: Tensor, inputs: Tensor, weight: Tensor, weight_sum: Tensor, bias_sum: Tensor | None
    ) -> Tensor:
        if weight_sum.dtype == above.dtype:
            weight_sum.addmm_(above.T, inputs)
        else:
            weight_sum += above.T @ inputs
        if bias_sum is not None:
            bias_sum += above.sum(0, dtype=bias_sum.dtype)
        return torch.mm(above, weight, out=self.scratch("below " + name, (len(above), weight.shape[1])))

    def _norm(
        self,
        above: Tensor,
        x: Tensor,
        moments: tuple[Tensor, Tensor],
        weight: Tensor,
        weight_sum: Tensor,
        bias_sum: Tensor,
    ) -> Tensor:
        wanted = (True, True, True)
        below, for_weight, for_bias = ATEN.native_layer_norm_backward(
            above.to(x.dtype), x, (self.width,), *moments, weight, weight, wanted
        )
        weight_sum += for_weight
        bias_sum += for_bias
        return cast(Tensor, below)

    def _attention(self, above: Tensor, qkv: Tensor, probabilities: Tensor) -> Tensor:
        """(slots, 3C) gradient of queries, keys and values from that of the attention's output, (slots, C)."""
        query, key, value = qkv
        by_head = self.scratch("by head", value.shape)
        by_head.view(-1, self.width, self.window).copy_(above.view(-1, self.window, self.width).mT)
        out = self.scratch("below by head", qkv.shape)
        torch.bmm(by_head, probabilities, out=out[2])
        scores = torch.bmm(by_head.mT, value, out=self.scratch("below scores", probabilities.shape))
        ATEN._softmax_backward_data.out(scores, probabilities, -1, scores.dtype, grad_input=scores)
        by_window = scores.view(-1, self.heads, self.window, self.window)
        self.bias_gradient += by_window.sum(0, dtype=self.bias_gradient.dtype)
        torch.bmm(key, scores.mT, out=out[0])
        torch.bmm(query, scores, out=out[1])
        below = self.scratch("wide", (above.shape[0], 3 * self.width))
        parts = out.view(3, -1, self.width, self.window).permute(1, 3, 0, 2)
        below.view(parts.shape).copy_(parts)
        return below


def _scaled(branch: Tensor, keep_prob: Tensor | None, group: WindowGroup, index: int) -> Tensor:
    return branch if keep_prob is None else branch * keep_prob[:, index][group.samples, None]
