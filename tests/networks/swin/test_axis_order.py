"""An encoder trained on (x, y, z) arrays sees the axes as it was trained, while arrays outside it stay (z, y, x)."""

from __future__ import annotations

import pytest
import torch

from swinssl.networks.architectures import build_network
from swinssl.networks.network_plan import NetworkPlan, SwinEncoderPlan
from swinssl.networks.swin.encoder import SwinEncoder

PLAN = SwinEncoderPlan(embed_dim=4, depths=(2, 2, 2, 2), heads=(1, 2, 2, 4))
SMIT = {}
MONAI = {
    "window": 7,
    "qkv_bias": True,
    "patch_norm": False,
    "skip_norm": "plain",
    "skip_taps": "merge",
    "merge_order": "monai_legacy",
    "legacy_bias_index": True,
    "shrink_window": True,
}


def pair(options):
    """Two encoders of the same weights, every one of which matters: for (z, y, x) and for (x, y, z) arrays."""
    zyx, xyz = (SwinEncoder(PLAN.model_copy(update=options | {"axis_order": a}), in_channels=2) for a in ("zyx", "xyz"))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in zyx.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    xyz.load_state_dict(zyx.state_dict())
    return zyx, xyz


@pytest.mark.parametrize("options", [SMIT, MONAI], ids=["stage taps, padded", "merge taps, shrunken, legacy index"])
@pytest.mark.parametrize("grad", [False, True], ids=["prediction", "training"])
def test_is_the_same_encoder_on_the_transposed_image_to_the_bit(options, grad):
    zyx, xyz = pair(options)
    image = torch.randn(1, 2, 32, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.set_grad_enabled(grad):
        turned, straight = zyx(image.transpose(2, 4)), xyz(image)
    for there, here in zip(turned, straight, strict=True):
        assert torch.equal(here, there.transpose(2, 4))


def test_an_encoder_is_not_symmetric_under_exchange_of_axes():
    zyx, xyz = pair(SMIT)
    image = torch.randn(1, 2, 32, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for there, here in zip(zyx(image), xyz(image), strict=True):
            assert not torch.allclose(here, there, atol=0.1)


def test_maps_fit_the_decoder_on_a_patch_with_three_different_edges():
    plan = NetworkPlan(decoder="light", encoder=PLAN.model_copy(update={"axis_order": "xyz"}))
    network = build_network(plan, in_channels=1, num_outputs=3)
    logits = network(torch.randn(1, 1, 32, 64, 96))
    assert logits.shape == (1, 3, 32, 64, 96)
    logits.sum().backward()
    assert all(p.grad is not None for p in network.parameters())
