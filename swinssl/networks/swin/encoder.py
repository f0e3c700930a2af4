"""The Swin transformer encoder in 3D."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import accumulate
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from swinssl.networks.network_plan import SwinEncoderPlan
from swinssl.networks.swin.blocks import BlockWeights, grouped_block
from swinssl.networks.swin.window_groups import WindowGroup, window_groups
from swinssl.networks.swin.windows import Gather, Size, WindowMaps, bias_index, merge_map, window_maps

MLP_RATIO = 4
# Patch embedding and four mergings halve the map five times.
DIVISOR = 32
# Slots that are computed together: what they need in between should stay in a core's cache.
GROUP_SLOTS = 2048
# Tokens that are merged together in prediction.
MERGED_TOKENS = 2048
# Where the heads of pretraining may read: the output of the fourth stage's blocks, or of the third merging.
FeatureLevel = Literal["stage4", "merge3"]
# Of unshifted and of shifted windows.
Groups = tuple[tuple[WindowGroup, ...], tuple[WindowGroup, ...]]


class SwinEncoder(nn.Module):
    """Swin Transformer encoder of volumes (Swin, arXiv 2103.14030).

    Args:
        plan: widths, depths, window and the options that published weights need.
        in_channels: image channels.
    """

    def __init__(self, plan: SwinEncoderPlan, *, in_channels: int) -> None:
        super().__init__()
        self.plan = plan
        self.patch_embed = PatchEmbedding(in_channels, plan.embed_dim, norm=plan.patch_norm)
        self.stages = nn.ModuleList(
            Stage(plan, index, first_block=first) for index, first in enumerate(accumulate((0, *plan.depths[:-1])))
        )
        normalised = self.widths[: 4 if plan.skip_taps == "stage" else 5]
        self.norms = nn.ModuleList(nn.LayerNorm(w) for w in normalised) if plan.skip_norm == "affine" else None
        # Activation checkpointing: keep each block's input alone and compute the block again in the backward pass.
        self.recompute = False

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the five outputs."""
        return tuple(self.plan.embed_dim * 2**i for i in range(5))

    def forward(
        self,
        image: Tensor,
        drop_path_draws: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        mask_token: Tensor | None = None,
        feature_level: FeatureLevel | None = None,
    ) -> list[Tensor]:
        """Five feature maps, from half the image's resolution to a thirty-second.

        Args:
            image: (B, C, Z, Y, X), edges multiples of 32.
            drop_path_draws: (B, blocks, 2) uniform in [0, 1), one for each residual branch; None drops nothing.
            mask: (B, Z/2, Y/2, X/2) booleans: tokens that `mask_token` replaces.
            mask_token: (embed_dim,) stands for a masked token, after the patch embedding and its norm.
            feature_level: also return a map at 1/16, before any norm: that of the last stage's blocks or of the third
                merging.

        Returns:
            (B, embed_dim * 2**i, Z, Y, X) maps at 1/2, 1/4, 1/8, 1/16 and 1/32, then that of `feature_level`, if any.

        Raises:
            ValueError: an edge is not a multiple of 32.
        """
        if any(edge % DIVISOR for edge in image.shape[2:]):
            raise ValueError(f"image edges {tuple(image.shape[2:])} must be multiples of {DIVISOR}")
        embedded = self.patch_embed(self._turned(image))
        if mask is not None and mask_token is not None:
            hidden = mask_token.to(embedded.dtype)[:, None, None, None]
            embedded = torch.where(self._turned(mask[:, None]), hidden, embedded)
        size: Size = (embedded.shape[2], embedded.shape[3], embedded.shape[4])
        shrink, window, device = self.plan.shrink_window, self.plan.window, image.device
        tokens = embedded.flatten(2).transpose(1, 2)
        start = window_maps(size, window, shrink=shrink, mask_padding=False, device=device)
        tokens = gather_rows(tokens, start.order, start.rank)

        by_stage = self.plan.skip_taps == "stage"
        maps = [] if by_stage else [self._skip(embedded, 0)]
        feature_maps: list[Tensor] = []
        del embedded  # as large as a stage's tokens
        for index, stage in enumerate(cast(Iterable[Stage], self.stages)):
            draws = None
            if drop_path_draws is not None:
                first = sum(self.plan.depths[:index])
                draws = drop_path_draws[:, first : first + self.plan.depths[index]]
            where = window_maps(size, window, shrink=shrink, mask_padding=self.plan.mask_padding, device=device)
            recompute = self.recompute and torch.is_grad_enabled()
            tokens = stage.transform(tokens, where, draws, self._groups(size, tokens), recompute=recompute)
            if by_stage:
                maps.append(self._skip(_as_map(gather_rows(tokens, where.rank, where.order), size), index))
            if feature_level == "stage4" and index == 3:
                feature_maps.append(_as_map(gather_rows(tokens, where.rank, where.order), size))
            tokens = stage.merge(tokens, size)
            size = (size[0] // 2, size[1] // 2, size[2] // 2)
            if feature_level == "merge3" and index == 2:
                feature_maps.append(_as_map(self._in_raster_order(tokens, size), size))
            last = index == len(self.stages) - 1
            if last or not by_stage:
                merged = _as_map(tokens if last else self._in_raster_order(tokens, size), size)
                maps.append(merged if by_stage else self._skip(merged, index + 1))
        return [self._turned(m) for m in (*maps, *feature_maps)]

    def _turned(self, volume: Tensor) -> Tensor:
        """A view of (B, C, Z, Y, X) with the axes as the weights know them, or of such a map as (B, C, Z, Y, X)."""
        return volume if self.plan.axis_order == "zyx" else volume.transpose(2, 4)

    def _groups(self, size: Size, tokens: Tensor) -> Groups | None:
        """Windows to compute together; None where blocks are computed whole.

        On a CPU only; and not where bfloat16 is trained, which is faster whole: there products are so cheap that
        computing probabilities again costs more than the cache gains.
        """
        in_bf16 = torch.is_autocast_enabled("cpu") and torch.is_grad_enabled()
        if tokens.device.type != "cpu" or in_bf16 or torch.compiler.is_compiling():
            return None
        plan, batch = self.plan, len(tokens)
        plain, shifted = (
            window_groups(
                size,
                plan.window,
                shrink=plan.shrink_window,
                mask_padding=plan.mask_padding,
                shifted=shifted,
                batch=batch,
                slots=GROUP_SLOTS,
            )
            for shifted in (False, True)
        )
        return plain, shifted

    def _in_raster_order(self, tokens: Tensor, size: Size) -> Tensor:
        where = window_maps(
            size, self.plan.window, shrink=self.plan.shrink_window, mask_padding=False, device=tokens.device
        )
        return gather_rows(tokens, where.rank, where.order)

    def _skip(self, feature_map: Tensor, index: int) -> Tensor:
        """The map normalised over its channels."""
        channels_last = feature_map.movedim(1, -1)
        if self.norms is None:
            normalised = F.layer_norm(channels_last, channels_last.shape[-1:])
        else:
            normalised = self.norms[index](channels_last)
        return normalised.movedim(-1, 1)


class PatchEmbedding(nn.Module):
    """2 x 2 x 2 voxels to one token: strided convolution, then LayerNorm over channels.

    The convolution is computed as the product that it is, of the voxels that make a token: its result is then in the
    order of tokens, channels last, which torch's would have to be copied into.
    """

    def __init__(self, in_channels: int, width: int, *, norm: bool) -> None:
        super().__init__()
        self.proj = nn.Conv3d(in_channels, width, kernel_size=2, stride=2)
        self.norm = nn.LayerNorm(width) if norm else None

    def forward(self, image: Tensor) -> Tensor:
        halves = image.unflatten(4, (-1, 2)).unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
        voxels = halves.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)
        tokens = F.linear(voxels, self.proj.weight.flatten(1), self.proj.bias)
        return (tokens if self.norm is None else self.norm(tokens)).movedim(-1, 1)


class Stage(nn.Module):
    """Blocks at one resolution, alternately unshifted and shifted, and the merging to the next resolution."""

    def __init__(self, plan: SwinEncoderPlan, index: int, *, first_block: int) -> None:
        super().__init__()
        width = plan.embed_dim * 2**index
        # Stochastic depth rises linearly over all blocks of the encoder, from 0 at the first.
        deepest = max(sum(plan.depths) - 1, 1)
        self.blocks = nn.ModuleList(
            SwinBlock(
                plan,
                width=width,
                heads=plan.heads[index],
                shifted=number % 2 == 1,
                drop_path=plan.drop_path * (first_block + number) / deepest,
            )
            for number in range(plan.depths[index])
        )
        self.merging = PatchMerging(plan, width=width, next_in_window_order=index < 3)

    def transform(
        self, tokens: Tensor, where: WindowMaps, draws: Tensor | None, groups: Groups | None, *, recompute: bool
    ) -> Tensor:
        for number, block in enumerate(self.blocks):
            arguments = (tokens, where, None if draws is None else draws[:, number], groups)
            # Nothing is drawn inside a block, so there is no random state to bring back.
            tokens = (
                checkpoint(block, *arguments, use_reentrant=False, preserve_rng_state=False)
                if recompute
                else block(*arguments)
            )
        return tokens

    def merge(self, tokens: Tensor, size: Size) -> Tensor:
        return self.merging(tokens, size)


class SwinBlock(nn.Module):
    """x + DropPath(Attention(LN(x))), then x + DropPath(MLP(LN(x))), on tokens in window order."""

    def __init__(self, plan: SwinEncoderPlan, *, width: int, heads: int, shifted: bool, drop_path: float) -> None:
        super().__init__()
        self.shifted, self.drop_path = shifted, drop_path
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(plan, width=width, heads=heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width)

    def forward(self, tokens: Tensor, where: WindowMaps, draws: Tensor | None, groups: Groups | None) -> Tensor:
        """tokens: (B, L, C); draws: (B, 2) uniform, one for each residual branch, or None."""
        keep_prob = None
        if draws is not None and self.drop_path > 0.0:
            keep_prob = (draws >= self.drop_path).to(tokens.dtype) / (1.0 - self.drop_path)
        if groups is not None:
            bias = self.attn.bias(where.window, tokens.device)
            return grouped_block(tokens, self._weights(), bias, groups[self.shifted], keep_prob=keep_prob)
        gather, mask = where.of_block(shifted=self.shifted)
        attended = self._attend(self.norm1(tokens), gather, mask, where.window)
        tokens = tokens + _scaled(attended, keep_prob, branch=0)
        return tokens + _scaled(self.mlp(self.norm2(tokens)), keep_prob, branch=1)

    def _weights(self) -> BlockWeights:
        attn, mlp = self.attn, self.mlp
        return BlockWeights(
            norm1_weight=self.norm1.weight,
            norm1_bias=self.norm1.bias,
            qkv_weight=attn.qkv.weight,
            qkv_bias=attn.qkv.bias,
            proj_weight=attn.proj.weight,
            proj_bias=attn.proj.bias,
            norm2_weight=self.norm2.weight,
            norm2_bias=self.norm2.bias,
            fc1_weight=mlp.fc1.weight,
            fc1_bias=mlp.fc1.bias,
            fc2_weight=mlp.fc2.weight,
            fc2_bias=mlp.fc2.bias,
        )

    def _attend(self, tokens: Tensor, gather: Gather | None, mask: Tensor | None, window: Size) -> Tensor:
        batch, _, width = tokens.shape
        if gather is not None:
            if gather.padded:
                tokens = F.pad(tokens, (0, 0, 0, 1))
            tokens = gather_rows(tokens, gather.into, None if gather.padded else gather.back)
        windows = tokens.reshape(-1, math.prod(window), width)
        out = self.attn(windows, mask, window).reshape(batch, -1, width)
        if gather is None:
            return out
        return gather_rows(out, gather.back, None if gather.padded else gather.into)


class WindowAttention(nn.Module):
    """Multi-head attention inside windows, with a learned bias for each relative position and head."""

    def __init__(self, plan: SwinEncoderPlan, *, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.table_window, self.legacy = heads, plan.window, plan.legacy_bias_index
        self.qkv = nn.Linear(width, 3 * width, bias=plan.qkv_bias)
        self.proj = nn.Linear(width, width)
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * plan.window - 1) ** 3, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, windows: Tensor, mask: Tensor | None, window: Size) -> Tensor:
        """windows: (B * W, N, C); mask: (W, N, N) added to the scores, or None."""
        count, slots, width = windows.shape
        qkv = self.qkv(windows).view(count, slots, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        added = self.bias(window, windows.device)[None]
        if mask is not None:
            added = (added + mask[:, None]).repeat(count // len(mask), 1, 1, 1)
        if self.training or torch.is_grad_enabled():
            # The fused kernels cannot return the gradient of an added bias; this spells out the same arithmetic.
            scores = (query * (width // self.heads) ** -0.5) @ key.transpose(-2, -1) + added.to(query.dtype)
            out = scores.softmax(dim=-1).to(value.dtype) @ value
        else:
            out = F.scaled_dot_product_attention(query, key, value, added.to(query.dtype))
        return self.proj(out.transpose(1, 2).reshape(count, slots, width))

    def bias(self, window: Size, device: torch.device) -> Tensor:
        """(heads, N, N) added to the scores of a window of these edges."""
        slots = math.prod(window)
        index = bias_index(window, self.table_window, legacy=self.legacy, device=device)
        return self.relative_position_bias_table[index].view(slots, slots, -1).permute(2, 0, 1)


class Mlp(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, MLP_RATIO * width)
        self.fc2 = nn.Linear(MLP_RATIO * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(tokens)))


class PatchMerging(nn.Module):
    """Eight neighbouring tokens to one of twice the width: concatenate, LayerNorm, linear without bias."""

    def __init__(self, plan: SwinEncoderPlan, *, width: int, next_in_window_order: bool) -> None:
        super().__init__()
        self.plan, self.next_in_window_order = plan, next_in_window_order
        self.norm = nn.LayerNorm(8 * width)
        self.reduction = nn.Linear(8 * width, 2 * width, bias=False)

    def forward(self, tokens: Tensor, size: Size) -> Tensor:
        into, inverse = merge_map(
            size,
            self.plan.merge_order,
            window=self.plan.window,
            shrink=self.plan.shrink_window,
            next_in_window_order=self.next_in_window_order,
            device=tokens.device,
        )
        if torch.is_grad_enabled():
            return self._merged(gather_rows(tokens, into, inverse))
        # Part by part, since the gathered tokens and their norm are each as large as the stage's.
        return torch.cat([self._merged(tokens.index_select(1, part)) for part in into.split(8 * MERGED_TOKENS)], dim=1)

    def _merged(self, neighbours: Tensor) -> Tensor:
        """(B, M, 2C) from the (B, 8M, C) neighbours."""
        return self.reduction(self.norm(neighbours.reshape(len(neighbours), neighbours.shape[1] // 8, -1)))


def _as_map(raster_tokens: Tensor, size: Size) -> Tensor:
    return raster_tokens.transpose(1, 2).reshape(len(raster_tokens), -1, *size)


def _scaled(branch_output: Tensor, keep_prob: Tensor | None, *, branch: int) -> Tensor:
    return branch_output if keep_prob is None else branch_output * keep_prob[:, branch, None, None]


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
