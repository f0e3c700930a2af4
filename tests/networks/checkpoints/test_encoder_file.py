"""What an encoder file says of itself survives the disk, and is refused in words where it cannot be."""

from __future__ import annotations

import json

import pytest
import torch

from swinssl.core.errors import UserError
from swinssl.networks.checkpoints.encoder_file import EncoderRecord, read_encoder_header, write_encoder
from swinssl.networks.checkpoints.weights_file import write_weights
from swinssl.networks.network_plan import PRESETS, SwinEncoderPlan

FIRST = "patch_embed.proj.weight"
TENSORS = {FIRST: torch.zeros(4, 1, 2, 2, 2), "norms.0.bias": torch.zeros(4)}
RECORD = EncoderRecord(
    encoder=SwinEncoderPlan(axis_order="xyz", merge_order="monai_legacy"),
    in_channels=1,
    source="swinunetr",
    licence='Two lines,\n"quoted".',
    spacing=(2.0, 1.5, 1.5),
    patch_size=(96, 96, 96),
    intensity={"scheme": "window", "low": -500.0, "high": 500.0},
)


def test_the_record_stands_in_the_file_and_beside_it(tmp_path):
    path = tmp_path / "encoder.safetensors"
    beside = write_encoder(path, TENSORS, RECORD)
    record, shapes = read_encoder_header(path)
    assert record == RECORD and shapes == {FIRST: (4, 1, 2, 2, 2), "norms.0.bias": (4,)}
    assert beside == tmp_path / "encoder.json"
    assert EncoderRecord.model_validate(json.loads(beside.read_text())) == RECORD


def test_of_a_segmentor_s_file_the_encoder_is_seen(tmp_path):
    path = tmp_path / "model.safetensors"
    write_weights(path, {f"encoder.{FIRST}": TENSORS[FIRST], "head.bias": torch.zeros(2)}, metadata={"epoch": "3"})
    assert read_encoder_header(path) == (EncoderRecord(), {FIRST: (4, 1, 2, 2, 2)})


def test_an_encoder_is_described_by_itself_or_by_its_preset():
    assert EncoderRecord().described is None
    assert RECORD.described == RECORD.encoder
    assert EncoderRecord(preset="tiny").described == PRESETS["tiny"]
    turned = EncoderRecord(preset="tiny", axis_order="xyz").described
    assert turned == PRESETS["tiny"].model_copy(update={"axis_order": "xyz"})


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("spacing", "[1, 2]"),
        ("spacing", "[1, 0, 1]"),
        ("patch_size", "[96, 96, 0]"),
        ("axis_order", "yxz"),
        ("encoder", '{"merge_order": "none"}'),
        ("intensity", "CT"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, key, text):
    path = tmp_path / "encoder.safetensors"
    write_weights(path, TENSORS, metadata={key: text})
    with pytest.raises(UserError, match=rf"encoder\.safetensors: its metadata {key} = .*Export the encoder again"):
        read_encoder_header(path)
