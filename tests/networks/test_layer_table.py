"""The layer table: every parameter once, every shape as the network really puts it out."""

from __future__ import annotations

import pytest
import torch

from swinssl.networks.architectures import build_network
from swinssl.networks.layer_table import layer_table
from swinssl.networks.network_plan import NetworkPlan, encoder_preset

SMIT96 = NetworkPlan(preset="smit96", encoder=encoder_preset("smit96"))


def test_the_published_network_s_table():
    # The published architecture at 96^3 with 16 outputs.
    rows = layer_table(SMIT96, in_channels=1, num_outputs=16, patch_size=(96, 96, 96))
    found = [(row.name, row.kind, row.output and (row.output[0], row.output[1]), row.parameters) for row in rows]
    assert found == [
        ("encoder.patch_embed", "PatchEmbedding", (48, 48), 528),
        ("encoder.stages.0.blocks", "2 x SwinBlock", (48, 48), 59_000),
        ("encoder.stages.0.merging", "PatchMerging", (96, 24), 37_632),
        ("encoder.stages.1.blocks", "2 x SwinBlock", (96, 24), 225_848),
        ("encoder.stages.1.merging", "PatchMerging", (192, 12), 148_992),
        ("encoder.stages.2.blocks", "8 x SwinBlock", (192, 12), 3_576_256),
        ("encoder.stages.2.merging", "PatchMerging", (384, 6), 592_896),
        ("encoder.stages.3.blocks", "2 x SwinBlock", (384, 6), 3_557_600),
        ("encoder.stages.3.merging", "PatchMerging", (768, 3), 2_365_440),
        ("encoder.norms", "4 x LayerNorm", None, 1_440),
        ("skips.0", "ResidualBlock", (48, 96), 63_840),
        ("skips.1", "ResidualBlock", (48, 48), 124_608),
        ("skips.2", "ResidualBlock", (96, 24), 498_048),
        ("skips.3", "ResidualBlock", (192, 12), 1_991_424),
        ("bridge", "ResidualBlock", (768, 3), 31_853_568),
        ("ups.0", "UpBlock", (384, 6), 14_600_448),
        ("ups.1", "UpBlock", (192, 12), 3_650_688),
        ("ups.2", "UpBlock", (96, 24), 912_960),
        ("ups.3", "UpBlock", (48, 48), 228_384),
        ("ups.4", "UpBlock", (48, 96), 209_952),
        ("head", "Conv3d", (16, 96), 784),
    ]


@pytest.mark.parametrize("architecture", ["swin", "plainconv", "resenc"])
@pytest.mark.parametrize("deep", [False, True], ids=["plain", "deep supervision"])
def test_rows_add_up_to_the_network(architecture, deep):
    plan = SMIT96.model_copy(update={"architecture": architecture, "deep_supervision": deep})
    with torch.device("meta"):
        network = build_network(plan, in_channels=2, num_outputs=5)
    rows = layer_table(plan, in_channels=2, num_outputs=5, patch_size=(64, 64, 64))
    assert sum(row.parameters for row in rows) == sum(p.numel() for p in network.parameters())
    assert len({row.name for row in rows}) == len(rows)


@pytest.mark.parametrize("architecture", ["swin", "plainconv", "resenc"])
def test_shapes_follow_each_axis_of_the_patch(architecture):
    plan = SMIT96.model_copy(update={"architecture": architecture})
    rows = layer_table(plan, in_channels=1, num_outputs=5, patch_size=(32, 64, 96))
    allowed = {(32 >> k, 64 >> k, 96 >> k) for k in range(6)}
    shapes = [row.output for row in rows if row.output is not None]
    assert {shape[1:] for shape in shapes} == allowed
    assert (5, 32, 64, 96) in shapes


def test_tokens_are_told_apart_even_where_grids_share_a_count():
    rows = {r.name: r for r in layer_table(SMIT96, in_channels=1, num_outputs=2, patch_size=(32, 32, 32))}
    assert rows["encoder.stages.3.blocks"].output == (384, 2, 2, 2)
    assert rows["encoder.stages.3.merging"].output == (768, 1, 1, 1)


def test_a_patch_that_cannot_be_halved_five_times_is_refused():
    with pytest.raises(ValueError, match="multiples of 32"):
        layer_table(SMIT96, in_channels=1, num_outputs=2, patch_size=(48, 96, 96))
