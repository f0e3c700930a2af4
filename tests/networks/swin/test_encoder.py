"""The encoder against a second implementation, for every option and shape; stochastic depth; precision."""

from __future__ import annotations

import pytest
import torch
from support.reference_swin import reference_encoder

from swinssl.networks.network_plan import SwinEncoderPlan
from swinssl.networks.swin.encoder import SwinEncoder

SMALL = SwinEncoderPlan(embed_dim=4, depths=(2, 3, 2, 2), heads=(1, 2, 2, 4))
# MONAI's SwinUNETR: window 7 shrinks to the deep maps and reads the wrong biases there.
MONAI = {
    "window": 7,
    "qkv_bias": True,
    "patch_norm": False,
    "skip_norm": "plain",
    "skip_taps": "merge",
    "merge_order": "monai",
    "legacy_bias_index": True,
    "shrink_window": True,
}


def make(plan, *, in_channels=1, seed=0):
    """An encoder whose every weight matters: nothing is left at 0 or 1."""
    torch.manual_seed(seed)
    encoder = SwinEncoder(plan, in_channels=in_channels)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return encoder


def noise(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def assert_equals_reference(plan, size, *, in_channels=1, batch=1):
    # In double precision, where all that differs but rounding shows.
    encoder, image = make(plan, in_channels=in_channels).double(), noise(batch, in_channels, *size).double()
    with torch.no_grad():
        expected = reference_encoder(plan, encoder.state_dict(), image)
        fused = encoder.eval()(image)
    spelled_out = encoder.train()(image)
    assert len(expected) == len(fused) == len(spelled_out) == 5
    for found in (fused, spelled_out):
        for there, here in zip(expected, found, strict=True):
            torch.testing.assert_close(here, there, rtol=1e-9, atol=1e-10)


# Token maps of the four stages: 96 gives 48, 24, 12, 6, whose last is padded to 8; 32 gives 16, 8, 4, 2.
SIZES = [(64, 64, 64), (32, 64, 96), (96, 32, 64), (64, 96, 32), (32, 32, 160)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("shrink", [False, True], ids=["pads", "shrinks"])
@pytest.mark.parametrize("mask", [False, True], ids=["padding attended", "padding masked"])
def test_equals_the_plain_implementation_on_every_shape(size, shrink, mask):
    assert_equals_reference(SMALL.model_copy(update={"shrink_window": shrink, "mask_padding": mask}), size)


@pytest.mark.parametrize("size", [(32, 32, 32), (32, 64, 32)], ids=str)
@pytest.mark.parametrize("order", ["lexicographic", "smit", "monai", "monai_legacy"])
def test_merges_in_every_published_order(size, order):
    assert_equals_reference(SMALL.model_copy(update={"merge_order": order}), size)


@pytest.mark.parametrize("size", [(64, 64, 64), (96, 32, 32), (32, 32, 96)], ids=str)
@pytest.mark.parametrize("order", ["monai", "monai_legacy"])
def test_equals_the_plain_implementation_as_monai_s_network(size, order):
    assert_equals_reference(SMALL.model_copy(update=MONAI | {"merge_order": order}), size)


@pytest.mark.parametrize(
    "options",
    [
        {"qkv_bias": True},
        {"patch_norm": False},
        {"skip_norm": "plain"},
        {"skip_taps": "merge"},
        {"skip_taps": "merge", "skip_norm": "plain"},
        {"window": 6},
        {"shrink_window": True, "legacy_bias_index": True},
        {"window": 7, "shrink_window": True, "mask_padding": True},
    ],
    ids=lambda options: ", ".join(f"{k}={v}" for k, v in options.items()),
)
def test_every_option_equals_the_plain_implementation(options):
    assert_equals_reference(SMALL.model_copy(update=options), (64, 32, 32))


def test_samples_of_a_batch_and_channels_are_kept_apart():
    assert_equals_reference(SMALL, (96, 32, 32), in_channels=3, batch=3)


def test_the_legacy_bias_index_matters_only_in_shrunken_windows():
    image = noise(1, 1, 64, 64, 64)
    plan = SMALL.model_copy(update={"window": 4, "shrink_window": True})
    encoder, legacy = make(plan), make(plan.model_copy(update={"legacy_bias_index": True}))
    with torch.no_grad():
        # 64^3: maps of 32, 16, 8, 4: no window is shrunken. 32^3: the last map has 2 tokens an axis.
        assert all(torch.equal(a, b) for a, b in zip(encoder(image), legacy(image), strict=True))
        small = [torch.equal(a, b) for a, b in zip(encoder(image[..., :32]), legacy(image[..., :32]), strict=True)]
    assert small == [True, True, True, False, False]


def test_gradients_are_those_of_the_plain_implementation_and_reach_every_parameter():
    plan = SMALL.model_copy(update={"qkv_bias": True, "mask_padding": True})
    encoder, image = make(plan), noise(2, 1, 32, 96, 32)
    leaves = {name: p.detach().clone().requires_grad_() for name, p in encoder.named_parameters()}
    for maps in (encoder(image), reference_encoder(plan, leaves, image)):
        sum((m * noise(*m.shape, seed=i)).sum() for i, m in enumerate(maps)).backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
        error = (parameter.grad - leaves[name].grad).norm() / leaves[name].grad.norm()
        assert error < 1e-4, f"{name}: {error}"


def test_masked_padding_changes_nothing_where_nothing_is_padded():
    image = noise(1, 1, 64, 64, 64)
    with torch.no_grad():
        free, masked = (make(SMALL.model_copy(update={"mask_padding": m}))(image) for m in (False, True))
    assert all(torch.equal(a, b) for a, b in zip(free, masked, strict=True))


def test_maps_have_the_published_widths_and_edges():
    plan = SwinEncoderPlan(embed_dim=16, depths=(1, 1, 1, 1), heads=(1, 2, 4, 8))
    with torch.no_grad():
        maps = make(plan)(noise(1, 1, 32, 64, 96))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (16, 16, 32, 48),
        (32, 8, 16, 24),
        (64, 4, 8, 12),
        (128, 2, 4, 6),
        (256, 1, 2, 3),
    ]


def test_an_edge_that_cannot_be_halved_five_times_is_refused():
    with pytest.raises(ValueError, match=r"\(32, 48, 32\) must be multiples of 32"):
        make(SMALL)(noise(1, 1, 32, 48, 32))


class TestStochasticDepth:
    """Drop path: a residual branch of a sample is left out where its draw lies below the block's rate."""

    PLAN = SMALL.model_copy(update={"drop_path": 0.4})
    BLOCKS = sum(PLAN.depths)

    def run(self, draws, encoder=None):
        image = noise(1, 1, 32, 32, 64).repeat(2, 1, 1, 1, 1)
        with torch.no_grad():
            return (encoder or make(self.PLAN))(image, draws)

    def test_is_a_function_of_the_draws(self):
        draws = torch.rand(2, self.BLOCKS, 2, generator=torch.Generator().manual_seed(3))
        first = self.run(draws)
        torch.manual_seed(99)
        assert all(torch.equal(a, b) for a, b in zip(first, self.run(draws), strict=True))
        assert not torch.equal(first[4], self.run(draws.flip(0))[4])

    def test_a_sample_depends_on_its_own_draws_only(self):
        draws = torch.rand(2, self.BLOCKS, 2, generator=torch.Generator().manual_seed(3))
        other = torch.cat((draws[:1], torch.zeros_like(draws[1:])))
        for a, b in zip(self.run(draws), self.run(other), strict=True):
            torch.testing.assert_close(a[0], b[0])
            assert not torch.allclose(a[1], b[1])

    def test_drops_a_branch_below_its_rate_and_keeps_the_mean(self):
        # With every draw 0.2 the blocks of rate over 0.2 lose their branches, the others' grow by 1 / (1 - rate).
        expected = make(self.PLAN)
        blocks = [b for stage in expected.stages for b in stage.blocks]
        for number, block in enumerate(blocks):
            rate = 0.4 * number / (self.BLOCKS - 1)  # linear over all blocks, from 0 at the first
            factor = 0.0 if rate > 0.2 else 1 / (1 - rate)
            with torch.no_grad():
                for last in (block.attn.proj, block.mlp.fc2):
                    last.weight.mul_(factor)
                    last.bias.mul_(factor)
        dropped = self.run(torch.full((2, self.BLOCKS, 2), 0.2))
        for a, b in zip(dropped, self.run(None, expected), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-5)

    def test_the_two_branches_of_a_block_are_dropped_apart(self):
        kept = torch.full((2, self.BLOCKS, 2), 0.99)
        no_attention, no_mlp = kept.clone(), kept.clone()
        no_attention[:, -1, 0], no_mlp[:, -1, 1] = 0.0, 0.0
        a, b, c = (self.run(d)[4] for d in (kept, no_attention, no_mlp))
        assert not torch.allclose(a, b) and not torch.allclose(a, c) and not torch.allclose(b, c)

    def test_no_draws_drop_nothing(self):
        without = self.run(None, make(SMALL.model_copy(update={"drop_path": 0.0})))
        assert all(torch.equal(a, b) for a, b in zip(self.run(None), without, strict=True))


@pytest.mark.parametrize("grad", [False, True], ids=["prediction", "training"])
def test_bfloat16_is_close_to_float32(grad):
    # The published depth; the relative L2 error of the five outputs at 64^3 was measured as 0.003 to 0.007.
    plan = SwinEncoderPlan(embed_dim=16, heads=(1, 2, 4, 8))
    torch.manual_seed(0)
    encoder, image = SwinEncoder(plan, in_channels=1), noise(1, 1, 32, 64, 32)
    with torch.set_grad_enabled(grad):
        exact = encoder(image)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = encoder(image)
    for there, here in zip(exact, rounded, strict=True):
        assert ((here.float() - there).norm() / there.norm()).item() < 0.015
