"""Parameter counts of the published networks, counted in the public code.

Networks are built on the meta device: no weight is held.
"""

from __future__ import annotations

import pytest
import torch

from swinssl.networks.architectures import build_network
from swinssl.networks.network_plan import PRESETS, NetworkPlan, encoder_preset


def built(preset, outputs, **options):
    plan = NetworkPlan(preset=preset, encoder=encoder_preset(preset), **options)
    with torch.device("meta"):
        return build_network(plan, in_channels=1, num_outputs=outputs)


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("preset", "outputs", "parameters"),
    [
        ("smit96", 2, 64_699_650),
        ("smit96", 14, 64_700_238),
        ("smit96", 16, 64_700_336),
        ("smit128", 16, 64_700_336),
        ("smits", 16, 276_344_944),
    ],
)
def test_the_paper_s_networks(preset, outputs, parameters):
    assert count(built(preset, outputs)) == parameters


def test_instance_norm_and_qkv_bias_are_the_counted_variants():
    # Rows of table 1.1. Its instance norm has no scale and offset; ours has, as many as batch norm.
    with_bias = encoder_preset("smit96").model_copy(update={"qkv_bias": True})
    plan = NetworkPlan(preset="smit96", encoder=with_bias)
    with torch.device("meta"):
        assert count(build_network(plan, in_channels=1, num_outputs=16)) == 64_708_112
    assert count(built("smit96", 16, norm="instance")) == 64_700_336


def test_smitp_is_the_plain_block_variant_that_rounds_to_the_paper_s_586_1_million():
    # Not a reproduction: the paper names neither heads nor window. The published head rule (4, 4, 8, 16) would give
    # 585,742,720; only the bias tables' 343 x heads a block differ.
    assert count(built("smitp", 16)) == 586_148_832
    published_rule = encoder_preset("smitp").model_copy(update={"heads": (4, 4, 8, 16)})
    with torch.device("meta"):
        other = build_network(NetworkPlan(encoder=published_rule), in_channels=1, num_outputs=16)
    assert count(other) == 585_742_720


def test_every_part_of_the_encoder():
    encoder = built("smit96", 16).encoder
    assert count(encoder) == 10_565_632
    assert count(encoder.patch_embed) == 432 + 96
    assert [count(stage.blocks) for stage in encoder.stages] == [59_000, 225_848, 3_576_256, 3_557_600]
    assert [count(stage.merging) for stage in encoder.stages] == [37_632, 148_992, 592_896, 2_365_440]
    assert count(encoder.norms) == 1_440


def test_every_part_of_the_decoder():
    network = built("smit96", 16)
    assert [count(skip) for skip in network.skips] == [63_840, 124_608, 498_048, 1_991_424, 0]
    assert count(network.bridge) == 31_853_568
    assert [count(up) for up in network.ups] == [14_600_448, 3_650_688, 912_960, 228_384, 209_952]
    assert count(network.head) == 49 * 16


def test_the_light_decoder_has_sixteen_channels_at_full_resolution():
    full, light = built("smit96", 16), built("smit96", 16, decoder="light")

    # The first skip, the last up block and the head: residual blocks of 48 channels, single convolutions of 16.
    residual = (27 * (48 + 48 * 48) + 4 * 48 + 3 * 48) + (27 * 3 * 48 * 48 + 4 * 48 + 2 * 48 * 48 + 2 * 48)
    single = (27 * 16 + 2 * 16) + (27 * 2 * 16 * 16 + 2 * 16)
    transposed, head = 8 * 48 * (48 - 16), 16 * (48 - 16)
    assert count(full) - count(light) == residual - single + transposed + head


@pytest.mark.parametrize("name", PRESETS)
def test_widths_fill_vector_units_and_heads_divide_them(name):
    plan = encoder_preset(name)
    widths = [plan.embed_dim * 2**stage for stage in range(4)]
    assert all(width % 16 == 0 for width in widths)
    assert all(width % heads == 0 for width, heads in zip(widths, plan.heads, strict=True))
