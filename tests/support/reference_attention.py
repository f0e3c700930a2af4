"""Attention weights of all tokens, written the plain way: a window of every token is made by walking over the map."""

from __future__ import annotations

import itertools
import math

import torch


def reference_weights(x, weights, name, plan, *, shifted):
    """(B, tokens, heads, tokens + 1) softmax of every token over every other; the last column is padding.

    x: (B, Z, Y, X, C) raster tokens that enter the block.
    """
    batch, *size, width = x.shape
    heads = weights[f"{name}.attn.relative_position_bias_table"].shape[1]
    shrunk = [plan.shrink_window and n <= plan.window for n in size]
    window = [n if small else plan.window for n, small in zip(size, shrunk, strict=True)]
    shift = [plan.window // 2 if shifted and not small else 0 for small in shrunk]
    padded = [math.ceil(n / w) * w for n, w in zip(size, window, strict=True)]
    norm = torch.nn.functional.layer_norm(x, (width,), weights[f"{name}.norm1.weight"], weights[f"{name}.norm1.bias"])
    everywhere = torch.zeros(batch, *padded, width, dtype=x.dtype)
    everywhere[:, : size[0], : size[1], : size[2]] = norm
    qkv = everywhere @ weights[f"{name}.attn.qkv.weight"].T
    if f"{name}.attn.qkv.bias" in weights:
        qkv = qkv + weights[f"{name}.attn.qkv.bias"]
    query, key, _ = qkv.unflatten(-1, (3, heads, width // heads)).unbind(-3)
    table, count = weights[f"{name}.attn.relative_position_bias_table"], math.prod(size)
    out = torch.zeros(batch, count, heads, count + 1, dtype=x.dtype)
    places = list(itertools.product(*(range(n) for n in padded)))

    def rolled(place):
        """Where a place is after the cyclic shift."""
        return [(p - s) % n for p, s, n in zip(place, shift, padded, strict=True)]

    def window_of(place):
        return [r // w for r, w in zip(rolled(place), window, strict=True)]

    def region(place):
        """Places that were brought together by the shift alone are in different regions; so is padding, if masked."""
        crossed = [s > 0 and p < s for p, s in zip(place, shift, strict=True)]
        real = all(p < n for p, n in zip(place, size, strict=True))
        return (*crossed, real) if plan.mask_padding else (*crossed,)

    def slot(place):
        inside = [r % w for r, w in zip(rolled(place), window, strict=True)]
        return (inside[0] * window[1] + inside[1]) * window[2] + inside[2]

    def bias(own, other):
        # MONAI cuts the full window's index, so its rows are of other offsets.
        shape = (plan.window,) * 3 if plan.legacy_bias_index else window
        apart = [
            a - b + plan.window - 1 for a, b in zip(unravel(slot(own), shape), unravel(slot(other), shape), strict=True)
        ]
        edge = 2 * plan.window - 1
        return table[(apart[0] * edge + apart[1]) * edge + apart[2]]

    def raster(place):
        inside = all(p < n for p, n in zip(place, size, strict=True))
        return (place[0] * size[1] + place[1]) * size[2] + place[2] if inside else count

    for own in itertools.product(*(range(n) for n in size)):
        others = [other for other in places if window_of(other) == window_of(own)]
        scores = torch.stack(
            [
                (query[:, *own] * key[:, *other]).sum(-1) * (width // heads) ** -0.5
                + bias(own, other)
                + (0.0 if region(own) == region(other) else -100.0)
                for other in others
            ],
            dim=-1,
        )
        index = torch.tensor([raster(other) for other in others])
        out[:, raster(own)].index_add_(2, index, scores.softmax(dim=-1))
    return out


def unravel(index, shape):
    return index // (shape[1] * shape[2]), index // shape[2] % shape[1], index % shape[2]
