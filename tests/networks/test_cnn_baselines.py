"""The CNN baselines behind the segmentor's interface, with the sizes of nnU-Net's networks."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn.modules.batchnorm import _NormBase

from swinssl.networks.architectures import build_network
from swinssl.networks.checkpoints.weights_file import read_weights, write_weights
from swinssl.networks.network_plan import NetworkPlan
from swinssl.networks.normalisation import BatchNorm, InstanceNorm
from swinssl.planning.cost_model import network_work


def make(architecture, *, in_channels=1, num_outputs=3, **options):
    torch.manual_seed(0)
    plan = NetworkPlan(**{"architecture": architecture, "preset": "tiny"} | options)
    return build_network(plan, in_channels=in_channels, num_outputs=num_outputs)


@pytest.mark.parametrize("size", [(32, 32, 32), (32, 64, 96)], ids=str)
@pytest.mark.parametrize("architecture", ["plainconv", "resenc"])
def test_logits_lie_on_the_image_s_grid(architecture, size):
    network = make(architecture, in_channels=2).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 2, *size)).shape == (1, 3, *size)


@pytest.mark.parametrize("architecture", ["plainconv", "resenc"])
def test_deep_supervision_gives_the_segmentor_s_three_resolutions(architecture):
    network = make(architecture, deep_supervision=True)
    image = torch.zeros(2, 1, 32, 64, 32)
    shapes = [tuple(o.shape[2:]) for o in network.train()(image)]
    assert shapes == [(32, 64, 32), (16, 32, 16), (8, 16, 8)]
    with torch.no_grad():
        assert network.eval()(image).shape[2:] == (32, 64, 32)


@pytest.mark.parametrize("architecture", ["plainconv", "resenc"])
def test_its_weights_are_written_once_and_read_back(architecture, tmp_path):
    network, image = make(architecture), torch.randn(2, 1, 32, 32, 32)
    network.train()(image)  # running statistics that a fresh network does not have
    weights = network.state_dict()
    parameters = [name for name, _ in network.named_parameters()]
    assert [name for name in weights if name in set(parameters)] == parameters
    write_weights(tmp_path / "w.safetensors", weights, metadata={})
    again = copy.deepcopy(make(architecture)).to(memory_format=torch.channels_last_3d)
    for one in again.parameters():
        one.data.zero_()
    again.load_state_dict(read_weights(tmp_path / "w.safetensors")[0])
    with torch.no_grad():
        assert torch.allclose(again.eval()(image), network.eval()(image), atol=1e-5)


@pytest.mark.parametrize(("norm", "layer"), [("batch", BatchNorm), ("instance", InstanceNorm)])
@pytest.mark.parametrize("architecture", ["plainconv", "resenc"])
def test_its_norm_layers_are_ours(architecture, norm, layer):
    found = {type(m) for m in make(architecture, norm=norm).modules() if isinstance(m, _NormBase)}
    assert found == {layer}


@pytest.mark.parametrize("architecture", ["plainconv", "resenc"])
def test_gradients_reach_all_but_the_unused_heads(architecture):
    network = make(architecture).train()
    network(torch.randn(2, 1, 32, 64, 32)).square().mean().backward()
    dead = {n for n, p in network.named_parameters() if p.grad is None}
    assert all("seg_layers" in name for name in dead)
    assert "unet.decoder.seg_layers.4.weight" not in dead


@pytest.mark.parametrize("preset", ["tiny", "small"])
@pytest.mark.parametrize("architecture", ["plainconv", "resenc"])
def test_the_cost_model_counts_its_parameters(architecture, preset):
    plan = NetworkPlan(architecture=architecture, preset=preset)
    with torch.device("meta"):
        network = build_network(plan, in_channels=2, num_outputs=4)
    work = network_work(plan, patch_size=(64, 64, 64), in_channels=2, num_outputs=4)
    assert work.parameters == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("architecture", ["plainconv", "resenc"])
def test_the_cost_model_counts_its_arithmetic(architecture):
    from torch.utils.flop_counter import FlopCounterMode

    plan, size = NetworkPlan(architecture=architecture), (32, 64, 32)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        build_network(plan, in_channels=1, num_outputs=3)(torch.empty(1, 1, *size))
    work = network_work(plan, patch_size=size, in_channels=1, num_outputs=3)
    assert 2 * work.conv == pytest.approx(counter.get_total_flops(), rel=0.01)


@pytest.mark.parametrize("architecture", ["plainconv", "resenc"])
def test_plans_larger_than_tiny_start_from_nnunet_s_32_channels(architecture):
    encoder = make(architecture, preset="small").unet.encoder
    assert list(encoder.output_channels) == [32, 64, 128, 256, 320, 320]
    assert list(make(architecture, preset="tiny").unet.encoder.output_channels) == [16, 32, 64, 128, 256, 320]
