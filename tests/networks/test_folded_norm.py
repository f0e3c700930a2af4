"""Batch norm folded into convolutions: another network with the same logits."""

from __future__ import annotations

import pytest
import torch

from swinssl.networks.architectures import build_network
from swinssl.networks.folded_norm import with_folded_norms
from swinssl.networks.network_plan import NetworkPlan, SwinEncoderPlan
from swinssl.networks.normalisation import BatchNorm

ENCODER = SwinEncoderPlan(embed_dim=8, depths=(1, 2, 1, 1), heads=(1, 2, 4, 8), shrink_window=True)


def trained(**choices):
    """A network whose norms have seen data and whose scales are not one."""
    torch.manual_seed(0)
    network = build_network(NetworkPlan(encoder=ENCODER, **choices), in_channels=1, num_outputs=3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        for _ in range(3):
            network(torch.randn(2, 1, 32, 32, 32) * 2 + 1)
    return network.eval()


@pytest.mark.parametrize("decoder", ["full", "light"])
@torch.no_grad()
def test_the_logits_are_the_same(decoder):
    network, image = trained(decoder=decoder), torch.randn(1, 1, 32, 64, 32)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    folded = with_folded_norms(network)
    expected = network(image)
    torch.testing.assert_close(folded(image), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    assert not any(isinstance(module, BatchNorm) for module in folded.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("choices", [{"norm": "instance"}, {"architecture": "plainconv"}])
def test_what_cannot_be_folded_stays(choices):
    network = trained(**choices)
    assert with_folded_norms(network) is network
