"""Masked tokens and taps of the encoder: replaced after the embedding, whatever order the tokens are computed in."""

from __future__ import annotations

import pytest
import torch

from swinssl.networks.network_plan import SwinEncoderPlan
from swinssl.networks.swin import encoder as swin_encoder
from swinssl.networks.swin.encoder import SwinEncoder

SIZE = (32, 64, 32)
SMALL = {"embed_dim": 8, "depths": (2, 1, 1, 1), "heads": (1, 2, 4, 8)}


def encoder_of(**changes):
    torch.manual_seed(0)
    return SwinEncoder(SwinEncoderPlan(**{**SMALL, **changes}), in_channels=1)


def inputs():
    rng = torch.Generator().manual_seed(1)
    image = torch.rand(2, 1, *SIZE, generator=rng)
    mask = torch.rand(2, *(n // 2 for n in SIZE), generator=rng) < 0.5
    return image, mask, torch.randn(8, generator=rng).requires_grad_()


def voxels(mask):
    for axis in (1, 2, 3):
        mask = mask.repeat_interleave(2, axis)
    return mask[:, None]


@pytest.mark.parametrize("changes", [{}, {"axis_order": "xyz"}, {"patch_norm": False}, {"skip_taps": "merge"}])
def test_masked_voxels_are_not_seen_and_visible_ones_are(changes):
    encoder = encoder_of(**changes)
    image, mask, token = inputs()
    with torch.no_grad():
        seen = encoder(image, mask=mask, mask_token=token)
        for a, b in zip(seen, encoder(image.masked_fill(voxels(mask), 9.0), mask=mask, mask_token=token), strict=True):
            assert torch.equal(a, b)
        other = encoder(image.masked_fill(~voxels(mask), 9.0), mask=mask, mask_token=token)
    assert not torch.allclose(seen[0], other[0])


@pytest.mark.parametrize("order", ["zyx", "xyz"])
def test_the_token_stands_where_the_mask_says(order):
    # The first map with taps at the merging is the embedding itself, normalised without weights.
    encoder = encoder_of(axis_order=order, skip_taps="merge", skip_norm="plain")
    image, mask, token = inputs()
    with torch.no_grad():
        first = encoder(image, mask=mask, mask_token=token)[0].movedim(1, -1)
        plain = encoder(image)[0].movedim(1, -1)
    expected = torch.nn.functional.layer_norm(token.detach(), (8,))
    torch.testing.assert_close(first[mask], expected.expand(int(mask.sum()), 8))
    assert torch.equal(first[~mask], plain[~mask])


def test_groups_of_windows_compute_the_same(monkeypatch):
    image, mask, token = inputs()
    encoder, gradients = encoder_of(), []
    for whole in (False, True):
        if whole:
            monkeypatch.setattr(SwinEncoder, "_groups", lambda self, size, tokens: None)
        encoder.zero_grad()
        token.grad = None
        encoder(image, mask=mask, mask_token=token)[4].square().mean().backward()
        gradients.append(token.grad)
    assert swin_encoder.GROUP_SLOTS > 0
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


def test_the_gradient_of_the_token_is_that_of_finite_differences():
    encoder = encoder_of().double()
    image, mask, token = inputs()
    image, token = image.double(), token.detach().double().requires_grad_()

    def loss(of_token):
        return encoder(image, mask=mask, mask_token=of_token)[4].square().sum()

    loss(token).backward()
    step = torch.zeros_like(token)
    step[3] = 1e-5
    with torch.no_grad():
        slope = float(loss(token + step) - loss(token - step)) / 2e-5
    assert float(token.grad[3]) == pytest.approx(slope, rel=1e-4)


def test_the_taps_are_the_last_stage_s_output_and_the_merging_before_it():
    encoder = encoder_of()
    image, _, _ = inputs()
    seen = {}
    encoder.stages[3].blocks[0].register_forward_hook(lambda module, args, out: seen.update(before=args[0], after=out))
    with torch.no_grad():
        stage4, merge3 = (encoder(image, feature_level=feature_level)[5] for feature_level in ("stage4", "merge3"))
        skip = encoder(image)[3]
    # The skip of the last stage is its output, normalised.
    torch.testing.assert_close(encoder.norms[3](stage4.movedim(1, -1)).movedim(-1, 1), skip)
    assert stage4.shape == merge3.shape == (2, 64, 2, 4, 2)
    for found, tokens in ((stage4, seen["after"]), (merge3, seen["before"])):
        rows = found.flatten(2).transpose(1, 2)
        assert torch.equal(rows.sort(1).values, tokens.sort(1).values)  # the same tokens, in raster order
