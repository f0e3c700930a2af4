"""Our encoder under MONAI's names, and what is said of what MONAI computes otherwise."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from support import foreign_files

from swinssl.networks.checkpoints.encoder_export import export_to_monai, write_for_monai
from swinssl.networks.checkpoints.encoder_import import import_encoder
from swinssl.networks.checkpoints.foreign_checkpoint import open_checkpoint
from swinssl.networks.network_plan import SwinEncoderPlan
from swinssl.networks.swin.encoder import SwinEncoder
from swinssl.networks.swin.windows import MERGE_ORDERS

EXACT = SwinEncoderPlan(
    embed_dim=4,
    depths=(1, 1, 1, 1),
    heads=(1, 2, 2, 4),
    merge_order="monai",
    skip_taps="merge",
    skip_norm="plain",
    shrink_window=True,
    legacy_bias_index=True,
)


def exported(**options):
    plan = EXACT.model_copy(update=options)
    torch.manual_seed(0)
    tensors = SwinEncoder(plan, in_channels=1).state_dict()
    return tensors, export_to_monai(tensors, plan)


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_importing_what_was_exported_gives_every_tensor_back(tmp_path, ending):
    tensors, encoder = exported()
    path = tmp_path / f"encoder{ending}"
    write_for_monai(path, encoder)
    loaded = load_file(path) if ending == ".safetensors" else torch.load(path, weights_only=True)["state_dict"]
    assert set(loaded) == set(encoder.tensors) and all(name.startswith("swinViT.") for name in loaded)
    back = import_encoder(open_checkpoint(path), "monai", merge_order="monai")
    assert all(torch.equal(back.tensors[name], tensor) for name, tensor in tensors.items())
    assert back.plan == EXACT.model_copy(update={"axis_order": "xyz"})


def test_a_published_file_comes_back_as_it_was(tmp_path):
    state = foreign_files.monai()
    torch.save(state, tmp_path / "file.pt")
    there = import_encoder(open_checkpoint(tmp_path / "file.pt"), "monai", merge_order="monai")
    back = export_to_monai(there.tensors, there.plan)
    assert back.differences == ()
    assert all(torch.equal(back.tensors[name], tensor) for name, tensor in state.items())
    assert all("relative_position_index" in name for name in set(back.tensors) - set(state))


def test_smit_s_merge_order_becomes_monai_s_group_by_group():
    tensors, encoder = exported(merge_order="smit")
    for part in ("norm.weight", "norm.bias", "reduction.weight"):
        old, new = tensors[f"stages.0.merging.{part}"], encoder.tensors[f"swinViT.layers1.0.downsample.{part}"]
        groups = dict(zip(MERGE_ORDERS["smit"], old.chunk(8, dim=-1), strict=True))
        for parity, group in zip(MERGE_ORDERS["monai"], new.chunk(8, dim=-1), strict=True):
            assert torch.equal(group, groups[parity])
    assert encoder.arguments["downsample"] == "merging"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"merge_order": "monai_legacy"}, "load the file with MONAI 1.4"),
        ({"skip_taps": "stage"}, "ours are the stages' outputs"),
        ({"skip_norm": "affine"}, "normalises them without weights"),
        ({"shrink_window": False}, "here the map is padded"),
        ({"legacy_bias_index": False}, "reads the biases of other offsets"),
        ({"mask_padding": True}, "lets padded tokens take part"),
    ],
)
def test_what_monai_does_otherwise_is_said(options, words):
    assert exported()[1].differences == ()
    (difference,) = exported(**options)[1].differences
    assert words in difference


def test_learned_norms_of_skips_have_no_place_there_and_are_named():
    assert exported(skip_norm="affine")[1].left_out == tuple(
        f"norms.{i}.{part}" for i in range(5) for part in ("weight", "bias")
    )
