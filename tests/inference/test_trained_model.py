"""The folder of a trained model: what is written comes back; what is incomplete or foreign is refused in words."""

from __future__ import annotations

import hashlib
import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.made_models import make_network, make_plans, write_model

from swinssl.core.errors import UserError
from swinssl.dataset.labels import LabelSet
from swinssl.inference.trained_model import TrainedModel, refuse_other_plans, write_fold
from swinssl.networks.network_plan import NetworkPlan
from swinssl.preprocessing.plans import TrainingPlan

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    return write_model(tmp_path / "model", folds=(0, 1))


def rewrite(path, *, tensors=None, **metadata):
    """A weights file with other tensors or metadata, whose metadata have the hash that they need."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as stream:
        kept = stream.metadata()
    changed = {**kept, **metadata}
    del changed["metadata_sha256"]
    changed["metadata_sha256"] = hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()
    save_file(load_file(path) if tensors is None else tensors, path, metadata=changed)


class TestOpen:
    def test_gives_what_was_written(self, folder):
        plans = make_plans()
        model = TrainedModel.open(folder)
        assert model.folds == ("0", "1") and model.plans == plans
        assert model.description["labels"] == {"background": 0, "liver": 1, "spleen": 2}
        image = torch.rand(1, 1, 32, 32, 32)
        with torch.no_grad():
            for seed, network in enumerate(model.networks(CPU)):
                assert not network.training
                torch.testing.assert_close(network(image), make_network(plans, seed)(image))

    def test_reading_leaves_torchs_random_numbers_alone(self, folder):
        before = torch.get_rng_state()
        TrainedModel.open(folder).networks(CPU)
        assert torch.equal(torch.get_rng_state(), before)

    def test_takes_the_folds_that_are_asked_for(self, folder):
        assert TrainedModel.open(folder, [1]).folds == ("1",)
        assert TrainedModel.open(folder, ["1", "0", "1"]).folds == ("1", "0")

    def test_takes_the_folder_of_one_fold(self, folder):
        model = TrainedModel.open(folder / "fold_1")
        assert model.folder == folder and model.folds == ("1",)
        with pytest.raises(UserError, match="is fold 1, but --folds asks for others"):
            TrainedModel.open(folder / "fold_1", [0])

    def test_leaves_unfinished_folds_out_and_names_them(self, folder):
        (folder / "fold_2").mkdir()
        (folder / "old_fold_3_1").mkdir()
        model = TrainedModel.open(folder)
        assert model.folds == ("0", "1") and model.unfinished == ("2",)

    def test_orders_folds_by_number(self, tmp_path):
        assert TrainedModel.open(write_model(tmp_path, folds=("all", 10, 9))).folds == ("9", "10", "all")

    def test_tells_models_apart_by_their_weights(self, folder, tmp_path):
        hashes = TrainedModel.open(folder).sha256
        assert hashes["0"] != hashes["1"]
        again = write_model(tmp_path / "again", folds=(5,))  # its only fold has the weights of the first
        assert TrainedModel.open(again).sha256 == {"5": hashes["0"]}


class TestRefusals:
    def test_no_folder(self, tmp_path):
        with pytest.raises(UserError, match=r"nowhere: no such folder.*swinsslPlans\.json"):
            TrainedModel.open(tmp_path / "nowhere")

    @pytest.mark.parametrize("name", ["swinsslPlans.json", "dataset.json"])
    def test_missing_plans_or_description(self, folder, name):
        (folder / name).unlink()
        with pytest.raises(UserError, match=rf"{name}: no (plans|description of the data set) here"):
            TrainedModel.open(folder)

    def test_no_fold_is_complete(self, folder):
        for fold in (0, 1):
            (folder / f"fold_{fold}" / "model.safetensors").unlink()
        with pytest.raises(UserError, match=r"no trained fold here; unfinished: 0, 1.*swinssl_train"):
            TrainedModel.open(folder)

    def test_fold_that_is_not_there_or_unfinished(self, folder):
        with pytest.raises(UserError, match=r"fold_4: this fold does not exist. Complete folds: 0, 1"):
            TrainedModel.open(folder, [4])
        (folder / "fold_2").mkdir()
        with pytest.raises(UserError, match=r"fold_2: this fold has no model\.safetensors yet"):
            TrainedModel.open(folder, [0, 2])

    def test_truncated_weights(self, folder):
        path = folder / "fold_0" / "model.safetensors"
        os.truncate(path, path.stat().st_size // 2)
        with pytest.raises(UserError, match=r"fold_0/model\.safetensors: not a readable safetensors file"):
            TrainedModel.open(folder)

    def test_one_flipped_bit(self, folder):
        path = folder / "fold_0" / "model.safetensors"
        content = bytearray(path.read_bytes())
        content[-100] ^= 1
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"fold_0/model\.safetensors: the weights are not those that were written"):
            TrainedModel.open(folder).networks(CPU)

    def test_weights_of_another_network(self, folder):
        path = folder / "fold_0" / "model.safetensors"
        tensors = load_file(path)
        first = sorted(tensors)[0]
        rewrite(path, tensors={**tensors, first: torch.zeros(3, 5)})
        with pytest.raises(UserError, match=rf"does not fit the network.*{first} is \(3, 5\), expected"):
            TrainedModel.open(folder)
        del tensors[first]
        rewrite(path, tensors=tensors)
        with pytest.raises(UserError, match=rf"{first} is missing, expected"):
            TrainedModel.open(folder)

    def test_weights_that_are_not_finite(self, tmp_path):
        plans = make_plans()
        network = make_network(plans)
        torch.nn.init.constant_(network.head.bias, float("nan"))
        write_fold(tmp_path, 0, network, plans, description={})
        with pytest.raises(UserError, match=r"head\.bias has numbers that are NaN or infinite"):
            TrainedModel.open(tmp_path).networks(CPU)

    def test_another_format_or_version(self, folder):
        path = folder / "fold_0" / "model.safetensors"
        rewrite(path, version="9")
        with pytest.raises(UserError, match="model version 9; this swinssl reads versions 1 and 2"):
            TrainedModel.open(folder)
        rewrite(path, format="an encoder")
        with pytest.raises(UserError, match="format 'an encoder'; expected 'swinssl-model'"):
            TrainedModel.open(folder)

    def test_a_pickle_in_the_weights_place_is_never_run(self, folder):
        (folder / "fold_0" / "model.safetensors").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
        with pytest.raises(UserError, match="not a readable safetensors file"):
            TrainedModel.open(folder)


class TestWriteFold:
    def test_other_folds_must_have_been_trained_alike(self, folder):
        other = make_plans(patch_size=(64, 32, 32), labels=LabelSet(names=("liver",), values=((1,),)))
        with pytest.raises(UserError, match=r"fold 0, 1 was trained with another labels, patch_size"):
            refuse_other_plans(folder, 2, other)
        before = (folder / "swinsslPlans.json").read_bytes()
        with pytest.raises(UserError, match="Choose another name"):
            write_fold(folder, 2, make_network(other), other, description={})
        assert (folder / "swinsslPlans.json").read_bytes() == before and not (folder / "fold_2").exists()

    def test_what_prediction_does_not_see_may_differ(self, folder):
        write_model(folder, make_plans(training=TrainingPlan(epochs=7, learning_rate=1.0)), folds=(2,))
        assert TrainedModel.open(folder).folds == ("0", "1", "2")

    def test_the_only_fold_may_be_replaced_by_one_with_other_plans(self, tmp_path):
        write_model(tmp_path, folds=(0,))
        plans = make_plans(network=NetworkPlan(preset="tiny", decoder="full", encoder=make_plans().network.encoder))
        write_model(tmp_path, plans, folds=(0,))
        assert TrainedModel.open(tmp_path).plans == plans

    def test_says_more_in_the_metadata_if_asked(self, tmp_path):
        plans = make_plans()
        write_fold(tmp_path, "all", make_network(plans), plans, description={}, facts={"score": "0.8"})
        header = (tmp_path / "fold_all" / "model.safetensors").read_bytes()
        size = int.from_bytes(header[:8], "little")
        metadata = json.loads(header[8 : 8 + size])["__metadata__"]
        assert metadata["score"] == "0.8" and metadata["format"] == "swinssl-model" and metadata["version"] == "2"
