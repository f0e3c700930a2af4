"""What blocks make of chosen tokens: those of a second implementation, wherever tokens lie in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.reference_swin import reference_maps

from swinssl.evaluation.encoders import block_features
from swinssl.evaluation.encoders.block_features import BlockReader, coarsest_tokens, draw_places
from swinssl.networks.network_plan import SwinEncoderPlan
from swinssl.networks.swin.encoder import SwinEncoder

SIZES = {"embed_dim": 8, "depths": (2, 1, 2, 1), "heads": (1, 2, 2, 4)}
PATCH = (64, 32, 96)
OPTIONS = {
    "smit": {},
    "tiny": {"shrink_window": True, "mask_padding": True},
    "window 7": {"window": 7, "qkv_bias": True, "merge_order": "monai"},
}


def make_encoder(**options):
    torch.manual_seed(0)
    encoder = SwinEncoder(SwinEncoderPlan(**SIZES, **options), in_channels=1)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return encoder.eval()


def crops_and_places(samples=2, tokens=5):
    rng = np.random.default_rng(0)
    crops = rng.normal(size=(samples, 1, *PATCH)).astype(np.float32)
    return crops, np.stack([draw_places(rng, PATCH, tokens=tokens) for _ in range(samples)])


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_tokens_are_those_that_hold_the_places(options):
    encoder = make_encoder(**options)
    crops, places = crops_and_places()
    found = BlockReader(encoder, patch_size=PATCH, spacing=(1, 1, 1)).read(crops, places)
    with torch.no_grad():
        maps = reference_maps(encoder.plan, encoder.state_dict(), torch.from_numpy(crops))
        expected = [(stage, x) for what, stage, x in maps if what == "block"]
    assert len(found) == len(expected) == 6
    for own, (stage, maps) in zip(found, expected, strict=True):
        assert own.shape == (2, 5, 8 * 2**stage)
        for sample in range(2):
            z, y, x = (places[sample] >> stage).T
            np.testing.assert_allclose(own[sample], maps[sample, z, y, x].numpy(), rtol=1e-3, atol=1e-4)


def test_turned_axes_are_the_same_places_of_the_image():
    """An encoder that was trained on (x, y, z) sees a turned image and gives the same tokens and distances."""
    encoder, turned = make_encoder(), make_encoder(axis_order="xyz")
    crops, places = crops_and_places()
    plain = BlockReader(encoder, patch_size=PATCH, spacing=(3, 2, 1))
    other = BlockReader(turned, patch_size=PATCH[::-1], spacing=(1, 2, 3))
    for a, b in zip(
        plain.read(crops, places),
        other.read(np.ascontiguousarray(crops.transpose(0, 1, 4, 3, 2)), np.ascontiguousarray(places[..., ::-1])),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    for a, b in zip(plain.attention(), other.attention(), strict=True):
        np.testing.assert_allclose(a.distance_mm, b.distance_mm, rtol=1e-4)
        assert a.even_distance_mm == pytest.approx(b.even_distance_mm)


def test_how_many_crops_pass_at_once_changes_nothing(monkeypatch):
    encoder = make_encoder()
    crops, places = crops_and_places(samples=3)
    together = BlockReader(encoder, patch_size=PATCH, spacing=(1, 1, 1))
    first = together.read(crops, places)
    monkeypatch.setattr(block_features, "PASSED_VOXELS", 1)
    alone = BlockReader(encoder, patch_size=PATCH, spacing=(1, 1, 1))
    for a, b in zip(first, alone.read(crops, places), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    for a, b in zip(together.attention(), alone.attention(), strict=True):
        np.testing.assert_allclose(a.entropy, b.entropy, rtol=1e-5)
        assert a.tokens == b.tokens == 15


def test_the_encoder_is_left_as_it_was():
    encoder = make_encoder()
    BlockReader(encoder, patch_size=PATCH, spacing=(1, 1, 1)).read(*crops_and_places())
    assert not any(module._forward_hooks for module in encoder.modules())


def test_places_are_different_tokens_at_every_stage_and_cover_the_crop():
    assert coarsest_tokens(PATCH) == 4 * 2 * 6
    seen = np.zeros([edge // 2 for edge in PATCH], int)
    for seed in range(2000):
        places = draw_places(np.random.default_rng(seed), PATCH, tokens=48)
        assert len(np.unique(places >> 3, axis=0)) == 48
        seen[tuple(places.T)] += 1
    # 48 of 49,152 / 2: each place is drawn about twice in 1024 draws.
    assert seen.sum() == 2000 * 48
    by_octant = seen.reshape(2, 16, 2, 8, 2, 24).sum(axis=(1, 3, 5))
    np.testing.assert_allclose(by_octant / seen.sum(), 1 / 8, atol=1e-9)
    within = seen.reshape(4, 8, 2, 8, 6, 8).sum(axis=(0, 2, 4))
    assert np.abs(within / within.mean() - 1).max() < 0.35


@pytest.mark.parametrize("tokens", [1, 7])
def test_fewer_places_come_from_everywhere(tokens):
    cells = [
        tuple(cell) for s in range(400) for cell in draw_places(np.random.default_rng(s), PATCH, tokens=tokens) >> 3
    ]
    assert len(set(cells)) == 48
