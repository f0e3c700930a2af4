"""Blocks computed window group by window group: the same numbers and gradients as computed whole."""

from __future__ import annotations

import math

import pytest
import torch

from swinssl.networks.network_plan import SwinEncoderPlan
from swinssl.networks.swin import encoder as swin_encoder
from swinssl.networks.swin.encoder import SwinEncoder
from swinssl.networks.swin.window_groups import window_groups
from swinssl.networks.swin.windows import window_maps

SIZES = {"embed_dim": 8, "depths": (2, 2, 2, 2), "heads": (1, 2, 2, 4), "drop_path": 0.3}
OPTIONS = {
    "smit": ({}, (64, 32, 64)),
    "qkv bias": ({"qkv_bias": True}, (32, 64, 32)),
    "shrunken windows": ({"shrink_window": True, "mask_padding": True}, (64, 32, 32)),
    "masked padding": ({"window": 3, "mask_padding": True, "qkv_bias": True}, (32, 64, 32)),
    "legacy bias": ({"window": 7, "shrink_window": True, "legacy_bias_index": True}, (96, 32, 32)),
    "merged taps": ({"skip_taps": "merge", "skip_norm": "plain", "merge_order": "monai_legacy"}, (64, 32, 32)),
}


@pytest.fixture(autouse=True)
def small_groups(monkeypatch):
    monkeypatch.setattr(swin_encoder, "GROUP_SLOTS", 300)


def make_encoder(**options):
    torch.manual_seed(0)
    encoder = SwinEncoder(SwinEncoderPlan(**SIZES, **options), in_channels=1)
    with torch.no_grad():  # so that biases, norms and tables matter
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return encoder


def outputs_and_gradients(encoder, image, draws):
    encoder.zero_grad()
    image = image.clone().requires_grad_()
    maps = encoder(image, draws)
    weights = (torch.linspace(-1, 1, m.numel()).view(m.shape).sin() for m in maps)
    sum((m * w).sum() for m, w in zip(maps, weights, strict=True)).backward()
    return [m.detach() for m in maps], {name: p.grad for name, p in encoder.named_parameters()} | {"image": image.grad}


@pytest.mark.parametrize("dropped", [False, True], ids=["", "drop path"])
@pytest.mark.parametrize(("options", "shape"), OPTIONS.values(), ids=OPTIONS)
def test_equals_the_whole_block(options, shape, dropped, monkeypatch):
    encoder = make_encoder(**options)
    image = torch.randn(2, 1, *shape)
    draws = torch.rand(2, 8, 2) if dropped else None
    maps, gradients = outputs_and_gradients(encoder, image, draws)
    with torch.no_grad():
        for grouped, again in zip(maps, encoder(image, draws), strict=True):
            torch.testing.assert_close(again, grouped, rtol=0, atol=0)
    monkeypatch.setattr(SwinEncoder, "_groups", lambda *_: None)
    whole_maps, whole_gradients = outputs_and_gradients(encoder, image, draws)
    for whole, grouped in zip(whole_maps, maps, strict=True):
        torch.testing.assert_close(grouped, whole, rtol=0, atol=1e-5)
    for name, whole in whole_gradients.items():
        assert torch.linalg.vector_norm(gradients[name] - whole) <= 1e-4 * torch.linalg.vector_norm(whole), name


def test_bfloat16_is_as_near_to_float32_as_the_whole_block_is(monkeypatch):
    """In prediction; in training with bfloat16 blocks are computed whole."""
    encoder = make_encoder()
    image = torch.randn(1, 1, 64, 64, 64)

    def distances():
        with torch.autocast("cpu", torch.bfloat16):
            return torch.tensor([(m.float() - e).norm() / e.norm() for m, e in zip(encoder(image), exact, strict=True)])

    with torch.no_grad():
        exact = encoder(image)
        in_groups = distances()
        monkeypatch.setattr(SwinEncoder, "_groups", lambda *_: None)
        whole = distances()
    assert in_groups.max() < 0.03 and torch.all(in_groups < 1.3 * whole)


@pytest.mark.parametrize("in_groups", [True, False])
def test_recomputed_blocks_give_the_same_gradients(in_groups, monkeypatch):
    encoder = make_encoder()
    image, draws = torch.randn(2, 1, 32, 32, 64), torch.rand(2, 8, 2)
    if not in_groups:
        monkeypatch.setattr(SwinEncoder, "_groups", lambda *_: None)
    maps, gradients = outputs_and_gradients(encoder, image, draws)
    encoder.recompute = True
    again, gradients_again = outputs_and_gradients(encoder, image, draws)
    assert all(torch.equal(a, b) for a, b in zip(maps, again, strict=True))
    assert all(torch.equal(gradient, gradients_again[name]) for name, gradient in gradients.items())


def test_frozen_weights_get_no_gradient_and_the_image_its_own():
    encoder = make_encoder().requires_grad_(False)
    image = torch.randn(1, 1, 32, 32, 32, requires_grad=True)
    encoder(image)[-1].sum().backward()
    assert image.grad.abs().sum() > 0
    assert all(p.grad is None for p in encoder.parameters())


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(("size", "window"), [((8, 8, 12), 4), ((6, 6, 6), 4), ((4, 7, 9), 3)])
def test_every_window_of_the_batch_is_in_one_group(size, window, shifted):
    groups = window_groups(size, window, shrink=False, mask_padding=True, shifted=shifted, batch=2, slots=200)
    rows = torch.cat([group.rows for group in groups])
    assert torch.equal(rows.sort().values, torch.arange(2 * math.prod(size)))
    where = window_maps(size, window, shrink=False, mask_padding=True, device=torch.device("cpu"))
    gather = where.shifted if shifted else where.plain
    slots = 2 * math.prod(size) if gather is None else 2 * len(gather.into)
    assert sum(group.slots for group in groups) == slots
    assert all(group.slots <= 200 and group.slots == group.windows * window**3 for group in groups)
    assert all(torch.equal(group.samples, group.rows // math.prod(size)) for group in groups)
