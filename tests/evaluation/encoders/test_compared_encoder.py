"""Encoders out of files, the package and trained models; which images their weights know."""

from __future__ import annotations

import pytest
import torch
from support.compared_encoders import write_run, write_toy_encoder
from support.made_models import make_network, make_plans, write_model

from swinssl.core.errors import UserError
from swinssl.evaluation.encoders.compared_encoder import ComparedEncoder
from swinssl.inference.trained_model import write_fold
from swinssl.networks.architectures import build_network
from swinssl.networks.checkpoints.shipped_encoders import shipped_names
from swinssl.networks.checkpoints.weights_file import read_weights
from swinssl.networks.network_plan import NetworkPlan


class TestOpen:
    def test_an_encoder_file(self, tmp_path):
        path = write_toy_encoder(tmp_path / "smit", spacing=(3, 2, 2))
        opened = ComparedEncoder.open(str(path))
        assert opened.name == "smit" and opened.in_channels == 1 and opened.spacing == (3, 2, 2)
        for name, tensor in read_weights(path)[0].items():
            assert torch.equal(opened.network.state_dict()[name], tensor), name
        assert not opened.network.training

    @pytest.mark.parametrize("name", shipped_names())
    def test_the_name_of_one_that_is_shipped(self, name):
        opened = ComparedEncoder.open(name)
        assert opened.name == name and opened.intensity is not None
        assert opened.trained_on.hashes and opened.trained_on.unknown is None

    @pytest.mark.parametrize("part", ["", "fold_0", "fold_0/model.safetensors"])
    def test_the_encoder_inside_a_trained_model(self, tmp_path, part):
        plans = make_plans(spacing=(2.0, 1.0, 1.0))
        model = write_model(tmp_path / "model", plans)
        opened = ComparedEncoder.open(str(model / part))
        assert opened.name == "model, fold 0" and opened.spacing == (2.0, 1.0, 1.0)
        expected = make_network(plans, seed=0).encoder.state_dict()
        assert all(torch.equal(opened.network.state_dict()[name], tensor) for name, tensor in expected.items())

    def test_of_several_folds_one_must_be_named(self, tmp_path):
        model = write_model(tmp_path / "model", folds=(0, 1))
        with pytest.raises(UserError, match=r"folds 0, 1, each with an encoder .*fold_0$"):
            ComparedEncoder.open(str(model))
        first, second = (ComparedEncoder.open(str(model / f"fold_{k}")).network.state_dict() for k in (0, 1))
        assert any(not torch.equal(first[name], second[name]) for name in first)

    def test_what_has_no_swin_encoder_is_refused(self, tmp_path):
        plans = make_plans(network=NetworkPlan(architecture="plainconv", preset="tiny"))
        write_fold(
            tmp_path / "cnn", 0, build_network(plans.network, in_channels=1, num_outputs=3), plans, description={}
        )
        with pytest.raises(UserError, match="a plainconv network; it has no Swin encoder"):
            ComparedEncoder.open(str(tmp_path / "cnn"))
        with pytest.raises(UserError, match="no such file, and no encoder of this name"):
            ComparedEncoder.open(str(tmp_path / "none"))


class TestTrainedOn:
    def test_the_images_of_its_own_run(self, tmp_path):
        path = write_toy_encoder(tmp_path / "a", run={"knows": ["x", "y"]})
        known = ComparedEncoder.open(str(path)).trained_on
        assert known.hashes == {"x", "y"} and known.unknown is None and known.runs == (tmp_path / "a" / "run.json",)

    def test_those_of_what_it_started_from_too(self, tmp_path):
        first = write_toy_encoder(tmp_path / "a", run={"knows": ["x"]})
        second = write_toy_encoder(tmp_path / "b", run={"knows": ["y"], "init": first})
        model = write_model(tmp_path / "model")
        write_run(model / "fold_0", knows=["z"], init=second)
        known = ComparedEncoder.open(str(model)).trained_on
        assert known.hashes == {"x", "y", "z"} and known.unknown is None and len(known.runs) == 3

    def test_what_no_description_tells_is_said(self, tmp_path):
        bare = write_toy_encoder(tmp_path / "bare")
        known = ComparedEncoder.open(str(bare)).trained_on
        assert known.hashes == frozenset() and known.unknown == f"no run description beside {bare}"
        started = write_toy_encoder(tmp_path / "a", run={"knows": ["x"], "init": bare})
        known = ComparedEncoder.open(str(started)).trained_on
        assert known.hashes == {"x"} and known.unknown == f"no run description beside {bare}"
        gone = write_toy_encoder(tmp_path / "b", run={"knows": ["x"], "init": tmp_path / "gone.safetensors"})
        assert (
            "gone.safetensors, which it started from, is not there"
            in ComparedEncoder.open(str(gone)).trained_on.unknown
        )

    def test_runs_that_name_each_other_come_to_an_end(self, tmp_path):
        path = write_toy_encoder(tmp_path / "a")
        write_run(tmp_path / "a", knows=["x"], init=path)
        assert ComparedEncoder.open(str(path)).trained_on.hashes == {"x"}

    def test_a_broken_description_is_refused(self, tmp_path):
        path = write_toy_encoder(tmp_path / "a")
        (tmp_path / "a" / "run.json").write_text("{")
        with pytest.raises(UserError, match=r"run.json: the run description cannot be read"):
            ComparedEncoder.open(str(path))
