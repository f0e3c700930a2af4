"""Encoders that come with the package: found by name, unless a file is called so."""

from __future__ import annotations

import json

import pytest
import torch

from swinssl.core.errors import UserError
from swinssl.networks.checkpoints import shipped_encoders
from swinssl.networks.checkpoints.encoder_file import EncoderRecord, read_encoder_header, write_encoder
from swinssl.networks.checkpoints.encoder_transfer import load_encoder
from swinssl.networks.checkpoints.shipped_encoders import SHIPPED, encoder_path, shipped_names
from swinssl.networks.network_plan import NetworkPlan, SwinEncoderPlan
from swinssl.networks.segmentor import SwinSegmentor
from swinssl.planning.encoder_facts import read_encoder_facts
from swinssl.ssl.pretraining import PretrainingRun

PLAN = SwinEncoderPlan(embed_dim=16, depths=(1, 1, 1, 1), heads=(1, 1, 1, 1))


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped_encoders, "FOLDER", tmp_path / "shipped")
    (tmp_path / "shipped").mkdir()
    encoder = SwinSegmentor(NetworkPlan(encoder=PLAN, decoder="light"), in_channels=1, num_outputs=2).encoder
    path = tmp_path / "shipped" / "little.safetensors"
    write_encoder(path, encoder.state_dict(), EncoderRecord(encoder=PLAN))
    monkeypatch.chdir(tmp_path)
    return path


def test_a_name_is_the_package_s_file(shipped):
    assert shipped_names() == ("little",) and encoder_path("little") == shipped
    facts = read_encoder_facts(encoder_path("little"))
    assert facts.encoder == PLAN and facts.reference.name == "little"


def test_a_file_stands_above_a_name(shipped, tmp_path):
    (tmp_path / "little").write_bytes(b"")
    assert encoder_path("little").resolve() == tmp_path / "little"


def test_another_name_is_refused_with_those_there_are(shipped):
    with pytest.raises(UserError, match=r"nowhere: no such file, .* Those that come with it: little\. Give the path"):
        encoder_path("nowhere")


def test_a_typo_gets_the_nearest_names(shipped, tmp_path):
    with pytest.raises(UserError, match=r"Did you mean little\?"):
        encoder_path("litle")
    (tmp_path / "encoder_smit.safetensors").touch()
    with pytest.raises(UserError, match=r"Did you mean .*encoder_smit\.safetensors\?"):
        encoder_path(tmp_path / "encoder_smti.safetensors")


def test_of_a_folder_the_encoder_in_it_is_named(shipped, tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(UserError, match=r"a folder; expected an encoder file\. Give the path"):
        encoder_path(tmp_path / "run")
    (tmp_path / "run" / "encoder.safetensors").touch()
    with pytest.raises(UserError, match=r"Give .*run/encoder\.safetensors\."):
        encoder_path(tmp_path / "run")


@pytest.mark.parametrize("name", shipped_names())
def test_what_is_shipped_is_an_encoder_that_describes_itself(name):
    path = encoder_path(name)
    record, shapes = read_encoder_header(path)
    assert record.encoder is not None and record.in_channels is not None
    assert json.loads(path.with_suffix(".json").read_text()) == record.model_dump(mode="json", exclude_none=True)
    assert f"# {name}\n" in path.with_suffix(".md").read_text()
    run = PretrainingRun.read(path.with_suffix(".run.json"))
    assert run.status == "done" and run.image_sha256
    assert SHIPPED[name].modality and SHIPPED[name].licence in path.with_suffix(".md").read_text()
    plan = NetworkPlan(encoder=record.encoder, decoder="light")
    network = SwinSegmentor(plan, in_channels=record.in_channels, num_outputs=2)
    report = load_encoder(network, path)
    weights = network.encoder.state_dict()
    assert set(report.matched) == set(shapes) == set(weights)
    assert all(torch.isfinite(weight).all() for weight in weights.values())
