"""A second Swin encoder, written the plain way: pad, roll, cut into windows, mask in slices, attend, put back.

It shares no code with swinssl/networks and reads its weights by name. Layout (B, Z, Y, X, C) throughout.
"""

from __future__ import annotations

import itertools
import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

# Parities (z, y, x) in which the eight neighbours are concatenated.
ORDERS = {
    "lexicographic": "000 001 010 011 100 101 110 111",
    "smit": "000 100 010 001 110 011 101 111",
    "monai": "000 100 010 001 110 101 011 111",
    "monai_legacy": "000 100 010 001 101 010 001 111",
}


def reference_encoder(plan, weights: dict[str, Tensor], image: Tensor) -> list[Tensor]:
    """The five maps of an encoder with `weights` (names as in its state_dict), (B, C, Z, Y, X)."""
    walked = list(reference_maps(plan, weights, image))
    after_merging = [x for what, _, x in walked if what != "block"]
    after_blocks = list({stage: x for what, stage, x in walked if what == "block"}.values())
    taps = after_merging if plan.skip_taps == "merge" else after_blocks
    maps = [
        layer_norm(m, weights, f"norms.{i}") if plan.skip_norm == "affine" else F.layer_norm(m, m.shape[-1:])
        for i, m in enumerate(taps)
    ]
    if plan.skip_taps == "stage":
        maps.append(after_merging[-1])
    return [m.permute(0, 4, 1, 2, 3) for m in maps]


def reference_maps(plan, weights: dict[str, Tensor], image: Tensor):
    """Yield ("embedding", 0, x), then ("block", stage, x) of every block and ("merging", stage, x) of every merging."""
    x = F.conv3d(image, weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"], stride=2)
    x = x.permute(0, 2, 3, 4, 1)
    if plan.patch_norm:
        x = layer_norm(x, weights, "patch_embed.norm")
    yield "embedding", 0, x
    for stage in range(4):
        for number in range(plan.depths[stage]):
            x = block(x, weights, f"stages.{stage}.blocks.{number}", plan, plan.heads[stage], shifted=number % 2 == 1)
            yield "block", stage, x
        neighbours = [x[:, int(a) :: 2, int(b) :: 2, int(c) :: 2] for a, b, c in ORDERS[plan.merge_order].split()]
        name = f"stages.{stage}.merging"
        x = layer_norm(torch.cat(neighbours, dim=-1), weights, f"{name}.norm") @ weights[f"{name}.reduction.weight"].T
        yield "merging", stage, x


def block(x, weights, name, plan, heads, *, shifted):
    x = x + attention(layer_norm(x, weights, f"{name}.norm1"), weights, f"{name}.attn", plan, heads, shifted=shifted)
    hidden = F.gelu(linear(layer_norm(x, weights, f"{name}.norm2"), weights, f"{name}.mlp.fc1"))
    return x + linear(hidden, weights, f"{name}.mlp.fc2")


def attention(x, weights, name, plan, heads, *, shifted):
    batch, *size, width = x.shape
    shrunk = [plan.shrink_window and n <= plan.window for n in size]
    window = [n if small else plan.window for n, small in zip(size, shrunk, strict=True)]
    shift = [plan.window // 2 if shifted and not small else 0 for small in shrunk]
    padded = [math.ceil(n / w) * w for n, w in zip(size, window, strict=True)]
    x = F.pad(x, (0, 0, 0, padded[2] - size[2], 0, padded[1] - size[1], 0, padded[0] - size[0]))
    x = torch.roll(x, [-s for s in shift], (1, 2, 3))

    windows = cut(x, window).reshape(-1, math.prod(window), width)
    query, key, value = linear(windows, weights, f"{name}.qkv").chunk(3, dim=-1)
    rows = relative_rows(tuple(window), plan.window, legacy=plan.legacy_bias_index)
    bias = weights[f"{name}.relative_position_bias_table"][rows].permute(2, 0, 1)
    barrier = region_barrier(size, padded, window, shift, mask_padding=plan.mask_padding).repeat(batch, 1, 1)
    outputs = []
    for head, (q, k, v) in enumerate(
        zip(query.chunk(heads, -1), key.chunk(heads, -1), value.chunk(heads, -1), strict=True)
    ):
        scores = q @ k.transpose(1, 2) / math.sqrt(width // heads) + bias[head] + barrier
        outputs.append(torch.softmax(scores, dim=-1) @ v)
    out = linear(torch.cat(outputs, dim=-1), weights, f"{name}.proj")

    counts = [n // w for n, w in zip(padded, window, strict=True)]
    out = out.reshape(batch, *counts, *window, width).permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(batch, *padded, width)
    out = torch.roll(out, shift, (1, 2, 3))
    return out[:, : size[0], : size[1], : size[2]]


def cut(x, window):
    """(B, Z, Y, X, C) to (B, windows, N, C)."""
    batch, *size, width = x.shape
    (a, b, c), (p, q, r) = [n // w for n, w in zip(size, window, strict=True)], window
    x = x.reshape(batch, a, p, b, q, c, r, width).permute(0, 1, 3, 5, 2, 4, 6, 7)
    return x.reshape(batch, a * b * c, p * q * r, width)


def region_barrier(size, padded, window, shift, *, mask_padding):
    """(windows, N, N): -100 between tokens that the roll brought together, and between padding and the rest."""
    region = torch.zeros(padded)
    cuts = [
        [slice(0, -w), slice(-w, -s), slice(-s, None)] if s else [slice(None)]
        for w, s in zip(window, shift, strict=True)
    ]
    for number, (z, y, x) in enumerate(itertools.product(*cuts)):
        region[z, y, x] = number
    if mask_padding:
        real = torch.zeros(padded, dtype=torch.bool)
        real[: size[0], : size[1], : size[2]] = True
        region[~torch.roll(real, [-s for s in shift], (0, 1, 2))] += 1000
    ids = cut(region[None, ..., None], window)[0, :, :, 0]
    return torch.where(ids[:, None] == ids[:, :, None], 0.0, -100.0)


@cache
def relative_rows(window, table_window, *, legacy):
    """(N, N) row of the bias table for each pair's distance, query minus key, spelled out pair by pair."""
    full = (table_window,) * 3 if legacy else window
    places = list(itertools.product(*(range(n) for n in full)))[: math.prod(window)]
    w, edge = table_window - 1, 2 * table_window - 1
    rows = [[((q[0] - k[0] + w) * edge + q[1] - k[1] + w) * edge + q[2] - k[2] + w for k in places] for q in places]
    return torch.tensor(rows)


def linear(x, weights, name):
    return F.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def layer_norm(x, weights, name):
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps=1e-5)
