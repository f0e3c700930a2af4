"""Who learns how fast, and from when: groups of AdamW over a segmentor with a Swin encoder."""

from __future__ import annotations

import pytest
import torch

from swinssl.networks.architectures import build_network
from swinssl.networks.network_plan import NetworkPlan, SwinEncoderPlan
from swinssl.training.engine.optimiser import EncoderLrSchedule, make_optimiser, set_lr

DEPTHS = (1, 2, 1, 1)


@pytest.fixture
def network():
    encoder = SwinEncoderPlan(embed_dim=8, depths=DEPTHS, heads=(1, 2, 4, 8), shrink_window=True)
    return build_network(NetworkPlan(decoder="light", encoder=encoder), in_channels=1, num_outputs=3)


def scale_of(optimiser, network):
    """Name of each parameter -> factor of its learning rate."""
    by_id = {id(p): group["lr_scale"] for group in optimiser.param_groups for p in group["params"]}
    return {name: by_id[id(p)] for name, p in network.named_parameters()}


def test_the_rate_falls_from_each_layer_to_the_one_before_it(network):
    scale = scale_of(
        make_optimiser(network, learning_rate=1.0, weight_decay=0.0, encoder_lr=EncoderLrSchedule(layer_decay=0.5)),
        network,
    )
    expected = {
        "head.weight": 1,
        "bridge.conv1.weight": 1,
        "encoder.stages.3.blocks.0.mlp.fc1.weight": 0.5,
        "encoder.stages.3.merging.reduction.weight": 0.5,
        "encoder.norms.3.weight": 0.5,
        "encoder.stages.2.blocks.0.attn.qkv.weight": 0.25,
        "encoder.stages.1.blocks.1.norm1.bias": 0.125,
        "encoder.stages.1.merging.norm.weight": 0.125,
        "encoder.stages.1.blocks.0.attn.relative_position_bias_table": 1 / 16,
        "encoder.stages.0.blocks.0.attn.proj.weight": 1 / 32,
        "encoder.norms.0.bias": 1 / 32,
        "encoder.patch_embed.proj.weight": 1 / 64,
    }
    assert {name: scale[name] for name in expected} == expected


def test_the_encoder_scale_is_the_encoders_alone(network):
    scale = scale_of(
        make_optimiser(network, learning_rate=1.0, weight_decay=0.0, encoder_lr=EncoderLrSchedule(scale=0.1)), network
    )
    assert {value for name, value in scale.items() if name.startswith("encoder.")} == {0.1}
    assert {value for name, value in scale.items() if not name.startswith("encoder.")} == {1.0}


def test_every_parameter_is_in_one_group_whatever_the_pace(network):
    optimiser = make_optimiser(
        network, learning_rate=1.0, weight_decay=0.1, encoder_lr=EncoderLrSchedule(layer_decay=0.7, first_step=3)
    )
    members = [id(p) for group in optimiser.param_groups for p in group["params"]]
    assert sorted(members) == sorted(id(p) for p in network.parameters())
    table = dict(network.named_parameters())["encoder.stages.0.blocks.0.attn.relative_position_bias_table"]
    (group,) = [g for g in optimiser.param_groups if any(p is table for p in g["params"])]
    assert group["weight_decay"] == 0


def test_an_encoder_that_waits_keeps_its_weights_and_its_state_empty(network):
    optimiser = make_optimiser(
        network, learning_rate=0.01, weight_decay=0.1, encoder_lr=EncoderLrSchedule(first_step=2)
    )
    image = torch.randn(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    for step in range(3):
        set_lr(optimiser, learning_rate=0.01, step=step)
        network(image).square().mean().backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        moved = {name for name, p in network.named_parameters() if not torch.equal(p, before[name])}
        assert any(name.startswith("encoder.") for name in moved) == (step == 2)
        assert "head.weight" in moved
        assert any(p in optimiser.state for p in network.encoder.parameters()) == (step == 2)
    assert all(group["lr"] == 0.01 for group in optimiser.param_groups)
