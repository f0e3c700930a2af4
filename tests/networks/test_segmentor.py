"""The segmentor: shapes, deep supervision, gradients, and that no sample or side effect leaks."""

from __future__ import annotations

import pytest
import torch

from swinssl.networks.architectures import build_network
from swinssl.networks.network_plan import NetworkPlan, SwinEncoderPlan, encoder_preset

TINY = SwinEncoderPlan(embed_dim=16, depths=(1, 2, 1, 1), heads=(1, 2, 4, 8), shrink_window=True)


def make(*, in_channels=1, num_outputs=3, **options):
    torch.manual_seed(0)
    plan = NetworkPlan(**{"preset": "tiny", "encoder": TINY} | options)
    return build_network(plan, in_channels=in_channels, num_outputs=num_outputs)


def noise(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [(32, 32, 64), (32, 64, 32), (64, 32, 32)], ids=str)
@pytest.mark.parametrize("decoder", ["full", "light"])
@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_logits_lie_on_the_image_s_grid(size, decoder, norm):
    network = make(in_channels=2, decoder=decoder, norm=norm).eval()
    with torch.no_grad():
        assert network(noise(1, 2, *size)).shape == (1, 3, *size)


def test_deep_supervision_gives_three_resolutions_in_training_and_one_in_prediction():
    network, image = make(deep_supervision=True), noise(2, 1, 32, 64, 32)
    outputs = network.train()(image)
    assert [tuple(o.shape) for o in outputs] == [(2, 3, 32, 64, 32), (2, 3, 16, 32, 16), (2, 3, 8, 16, 8)]
    with torch.no_grad():
        assert network.eval()(image).shape == (2, 3, 32, 64, 32)


def test_deep_supervision_changes_no_weight_name_of_the_plain_network():
    plain, deep = (set(make(deep_supervision=d).state_dict()) for d in (False, True))
    assert plain < deep
    assert all(name.startswith("deep_heads.") for name in deep - plain)


@pytest.mark.parametrize("deep", [False, True], ids=["plain", "deep supervision"])
@pytest.mark.parametrize("decoder", ["full", "light"])
def test_gradients_reach_every_parameter(decoder, deep):
    network = make(decoder=decoder, deep_supervision=deep).train()
    outputs = network(noise(2, 1, 32, 64, 32))
    loss = sum((o * noise(*o.shape, seed=2)).mean() for o in (outputs if deep else [outputs]))
    loss.backward()
    dead = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert dead == []


@pytest.mark.parametrize("preset", ["tiny", "small"])
def test_the_cpu_presets_train_on_their_smallest_patch(preset):
    # One voxel at 1/32: batch norm has two values a channel there.
    plan = NetworkPlan(preset=preset, encoder=encoder_preset(preset), decoder="light")
    network = build_network(plan, in_channels=1, num_outputs=2).train()
    network(noise(2, 1, 32, 32, 32)).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_a_patch_of_32_trains_with_either_norm_and_any_batch(norm, batch):
    network = make(norm=norm).train()
    out = network(noise(batch, 1, 32, 32, 32))
    out.sum().backward()
    assert torch.isfinite(out).all()


def test_in_prediction_a_case_does_not_depend_on_the_batch_it_comes_in():
    network, images = make().eval(), noise(3, 1, 32, 32, 64)
    with torch.no_grad():
        together, alone = network(images), network(images[1:2])
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)


def test_the_image_is_left_as_it_was():
    network, image = make().train(), noise(1, 1, 32, 32, 32)
    before = image.clone()
    network(image).sum().backward()
    assert torch.equal(image, before)


def test_draws_of_stochastic_depth_reach_the_encoder():
    network, image = make(encoder=TINY.model_copy(update={"drop_path": 0.5})).eval(), noise(1, 1, 32, 32, 32)
    with torch.no_grad():
        kept, dropped = (network(image, torch.full((1, 5, 2), draw)) for draw in (0.99, 0.0))
    assert not torch.allclose(kept, dropped)


def test_bfloat16_is_close_to_float32():
    network, image = make().eval(), noise(1, 1, 32, 64, 32)
    with torch.no_grad():
        exact = network(image)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = network(image)
    assert ((rounded.float() - exact).norm() / exact.norm()).item() < 0.02
