"""Attention of chosen tokens: as an independent implementation has it, and its distance and entropy worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support.reference_attention import reference_weights

from swinssl.evaluation.encoders.attention_span import AttentionRows, AttentionTotals, attention_rows
from swinssl.networks.network_plan import SwinEncoderPlan
from swinssl.networks.swin.encoder import SwinEncoder
from swinssl.networks.swin.windows import window_maps

CPU = torch.device("cpu")
SMALL = {"embed_dim": 8, "depths": (2, 1, 1, 1), "heads": (2, 2, 2, 2)}
PLANS = {
    "smit": ({}, (6, 5, 9)),
    "qkv bias, window 3": ({"qkv_bias": True, "window": 3}, (6, 6, 9)),
    "masked padding": ({"mask_padding": True}, (6, 5, 9)),
    "shrunken": ({"shrink_window": True, "mask_padding": True}, (2, 3, 8)),
    "legacy bias": ({"shrink_window": True, "legacy_bias_index": True, "window": 5}, (3, 5, 7)),
}


@pytest.mark.parametrize("shifted", [False, True], ids=["plain", "shifted"])
@pytest.mark.parametrize(("options", "size"), PLANS.values(), ids=PLANS)
def test_the_rows_are_those_of_whole_windows_spelled_out(options, size, shifted):
    plan = SwinEncoderPlan(**SMALL, **options)
    torch.manual_seed(0)
    encoder = SwinEncoder(plan, in_channels=1).double()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    block = encoder.stages[0].blocks[int(shifted)]
    count = math.prod(size)
    tokens = torch.randn(2, count, 8, dtype=torch.double)
    where = window_maps(size, plan.window, shrink=plan.shrink_window, mask_padding=plan.mask_padding, device=CPU)
    chosen = torch.stack([torch.randperm(count)[:20] for _ in range(2)])
    with torch.no_grad():
        rows = attention_rows(block, tokens[:, where.order], where, chosen)
    weights = {f"stages.0.blocks.{int(shifted)}.{name}": value for name, value in block.state_dict().items()}
    expected = reference_weights(
        tokens.view(2, *size, 8), weights, f"stages.0.blocks.{int(shifted)}", plan, shifted=shifted
    )
    for sample in range(2):
        for t, token in enumerate(chosen[sample].tolist()):
            found = torch.zeros(2, count + 1, dtype=torch.double)
            found.index_add_(1, rows.keys[sample, t], rows.weights[sample, t])
            torch.testing.assert_close(found, expected[sample, token], rtol=1e-9, atol=1e-12)
            # What the mask hides has no weight to speak of.
            hidden = ~rows.seen[sample, t] & (rows.keys[sample, t] < count)
            assert not hidden.any() or rows.weights[sample, t][:, hidden].max() < 1e-12


def span_of(weights, keys, chosen, *, size=(2, 2, 2), token_voxels=2, spacing=(1.0, 1.0, 1.0), seen=None):
    """Of one sample; weights (T, heads, N)."""
    totals = AttentionTotals(size=size, token_voxels=token_voxels, spacing=spacing)
    keys, weights = torch.tensor(keys)[None], torch.tensor(weights, dtype=torch.double)[None]
    seen = keys < math.prod(size) if seen is None else torch.tensor(seen)[None]
    totals.add(AttentionRows(weights, keys, seen), torch.tensor(chosen)[None])
    return totals.span()


class TestByHand:
    """Windows of 2 x 2 x 2 tokens, 2 voxels each."""

    def test_even_attention(self):
        # From a corner of the cube: itself, 3 at 1 token, 3 at sqrt 2, 1 at sqrt 3.
        span = span_of([[[1 / 8] * 8]], [list(range(8))], [0])
        tokens = (3 + 3 * math.sqrt(2) + math.sqrt(3)) / 8
        assert span.distance_voxels == pytest.approx([2 * tokens]) and span.even_distance_voxels == pytest.approx(
            2 * tokens
        )
        assert span.entropy == pytest.approx([math.log(8)]) and span.even_entropy == pytest.approx(math.log(8))
        assert span.on_padding == [0] and span.tokens == 1

    def test_two_heads_one_near_one_far_in_mm(self):
        # Head 1 looks at the token itself, head 2 evenly at the neighbours along z (3 mm voxels) and x (1 mm).
        near, far = [1.0, 0, 0, 0, 0, 0, 0, 0], [0, 0.5, 0, 0, 0.5, 0, 0, 0]
        span = span_of([[near, far]], [list(range(8))], [0], spacing=(3.0, 2.0, 1.0))
        assert span.distance_voxels == pytest.approx([0, 2]) and span.distance_mm == pytest.approx([0, (2 + 6) / 2])
        assert span.entropy == pytest.approx([0, math.log(2)])

    def test_the_mean_is_over_tokens(self):
        # One token looks at itself, another at the far corner.
        weights = [[[1.0, 0, 0, 0, 0, 0, 0, 0]], [[1.0, 0, 0, 0, 0, 0, 0, 0]]]
        span = span_of(weights, [list(range(8))] * 2, [0, 7])
        assert span.distance_voxels == pytest.approx([math.sqrt(12) / 2]) and span.tokens == 2

    def test_padding_is_left_out_and_said(self):
        # Half of the attention lies on two padded slots; the rest is even over two tokens.
        span = span_of([[[0.25] * 4]], [[0, 1, 8, 8]], [0])
        assert span.on_padding == pytest.approx([0.5])
        assert span.distance_voxels == pytest.approx([1.0]) and span.entropy == pytest.approx([math.log(2)])
        assert span.even_entropy == pytest.approx(math.log(2))

    def test_even_attention_keeps_to_what_the_mask_shows(self):
        span = span_of([[[0.5, 0.5, 0, 0]]], [[0, 1, 2, 4]], [0], seen=[[True, True, False, False]])
        assert span.even_distance_voxels == pytest.approx(1.0) and span.even_entropy == pytest.approx(math.log(2))


def test_of_zero_queries_attention_is_even():
    """Through a real block: without queries and biases every head looks evenly over its window."""
    plan = SwinEncoderPlan(**SMALL, window=2)
    block = SwinEncoder(plan, in_channels=1).stages[0].blocks[0]
    torch.nn.init.zeros_(block.attn.qkv.weight)
    torch.nn.init.zeros_(block.attn.relative_position_bias_table)
    size = (4, 2, 4)
    where = window_maps(size, 2, shrink=False, mask_padding=False, device=CPU)
    chosen = torch.arange(32)[None]
    totals = AttentionTotals(size=size, token_voxels=2, spacing=(1.0, 1.0, 1.0))
    with torch.no_grad():
        totals.add(attention_rows(block, torch.randn(1, 32, 8), where, chosen), chosen)
    span = totals.span()
    expected = 2 * (3 + 3 * math.sqrt(2) + math.sqrt(3)) / 8
    np.testing.assert_allclose(span.distance_voxels, [expected] * 2, rtol=1e-6)
    np.testing.assert_allclose(span.entropy, [math.log(8)] * 2, rtol=1e-6)
    assert span.even_distance_voxels == pytest.approx(expected)
