"""What a plan takes from a pretrained encoder's file, and which files it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file
from support.raw_folders import make_raw

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.dataset.raw_dataset import RawDataset
from swinssl.networks.architectures import build_network
from swinssl.networks.checkpoints.weights_file import write_weights
from swinssl.networks.network_plan import PRESETS, NetworkPlan, SwinEncoderPlan, encoder_preset
from swinssl.planning.encoder_facts import read_encoder_facts
from swinssl.planning.options import PlanOptions
from swinssl.planning.plan_dataset import plan_dataset
from swinssl.preprocessing.plans import Intensity


def write_encoder_file(path, preset="tiny", *, prefix="", **metadata):
    """A file with an encoder's names and, where a size is told from it, its shapes; values that are no text as JSON."""
    encoder = PRESETS[preset]
    tensors = {"patch_embed.proj.weight": np.zeros((encoder.embed_dim, 1, 2, 2, 2), np.float32)}
    for stage, depth in enumerate(encoder.depths):
        for block in range(depth):
            tensors[f"stages.{stage}.blocks.{block}.norm1.weight"] = np.zeros(encoder.embed_dim * 2**stage, np.float32)
    text = {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({prefix + name: tensor for name, tensor in tensors.items()}, path, metadata=text)
    return path


class TestFacts:
    def test_are_what_the_metadata_says(self, tmp_path):
        path = write_encoder_file(
            tmp_path / "smit_10k.safetensors",
            preset="small",
            spacing=[2.0, 1.5, 1.5],
            patch_size=[64, 96, 96],
            axis_order="xyz",
            intensity={"scheme": "window", "low": -500, "high": 500},
            licence="of no interest to a plan",
            another_programs_key="likewise",
        )
        facts = read_encoder_facts(path)
        assert facts.preset == "small" and facts.patch_size == (64, 96, 96)
        assert facts.encoder == encoder_preset("small").model_copy(update={"axis_order": "xyz"})
        assert facts.intensity == Intensity(scheme="window", low=-500, high=500)
        assert facts.reference.model_dump() == {
            "sha256": files.sha256_of(path),
            "name": "smit_10k",
            "spacing": (2.0, 1.5, 1.5),
            "axis_order": "xyz",
            "place": str(path),
        }

    def test_an_exact_form_stands_above_the_preset(self, tmp_path):
        form = SwinEncoderPlan(embed_dim=16, depths=(2, 2, 2, 2), heads=(1, 2, 4, 8), window=7, axis_order="xyz")
        path = write_encoder_file(tmp_path / "a.safetensors", preset="tiny", encoder=form.model_dump(mode="json"))
        facts = read_encoder_facts(path)
        assert facts.encoder == form and facts.reference.axis_order == "xyz"

    def test_without_metadata_only_the_size_is_known(self, tmp_path):
        facts = read_encoder_facts(write_encoder_file(tmp_path / "a.safetensors"))
        assert facts.preset == "tiny" and facts.encoder == encoder_preset("tiny")
        assert (facts.patch_size, facts.intensity, facts.reference.spacing) == (None, None, None)
        assert facts.reference.axis_order == "zyx"

    @pytest.mark.parametrize("prefix", ["", "encoder."])
    @pytest.mark.parametrize("preset", ["tiny", "small", "smit96", "smits", "smitp"])
    def test_the_size_is_told_from_the_shapes(self, tmp_path, preset, prefix):
        assert (
            read_encoder_facts(write_encoder_file(tmp_path / "a.safetensors", preset, prefix=prefix)).preset == preset
        )

    def test_a_size_of_its_own_is_no_preset(self, tmp_path):
        kernel = np.zeros((24, 1, 2, 2, 2), np.float32)
        save_file({"patch_embed.proj.weight": kernel}, tmp_path / "a.safetensors")
        facts = read_encoder_facts(tmp_path / "a.safetensors")
        assert facts.preset is None and facts.encoder is None

    def test_a_trained_segmentor_tells_its_encoder(self, tmp_path):
        network = build_network(
            NetworkPlan(preset="tiny", encoder=encoder_preset("tiny")), in_channels=1, num_outputs=3
        )
        write_weights(tmp_path / "weights.safetensors", network.state_dict(), metadata={})
        assert read_encoder_facts(tmp_path / "weights.safetensors").preset == "tiny"

    def test_a_file_called_encoder_is_named_for_its_folder(self, tmp_path):
        path = write_encoder_file(tmp_path / "dino_chest" / "encoder.safetensors")
        assert read_encoder_facts(path).reference.name == "dino_chest"


class TestRefusals:
    @pytest.mark.parametrize(
        ("content", "found", "remedy"),
        [
            (None, "no such file", "Give the path"),
            (b"", "not a readable safetensors file", "swinssl_weights import"),
            (
                b"PK\x03\x04 a checkpoint that torch pickled",
                "not a readable safetensors file",
                "swinssl_weights import",
            ),
        ],
    )
    def test_what_is_no_safetensors_file(self, tmp_path, content, found, remedy):
        path = tmp_path / "model.pt"
        if content is not None:
            path.write_bytes(content)
        self.refused(path, found, remedy)

    def test_a_file_that_was_cut_off(self, tmp_path):
        path = write_encoder_file(tmp_path / "a.safetensors")
        path.write_bytes(path.read_bytes()[:-10])
        self.refused(path, "not a readable safetensors file", "again")

    def test_a_folder(self, tmp_path):
        self.refused(tmp_path, "a folder", "Give the path")

    def test_a_network_that_is_no_swin_encoder(self, tmp_path):
        path = tmp_path / "a.safetensors"
        save_file({"conv1.weight": np.zeros((3, 3), np.float32)}, path)
        self.refused(path, "holds no Swin encoder of ours (no patch_embed.proj.weight)", "swinssl_weights import")

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("spacing", [2.0, 1.5]),
            ("spacing", [2.0, 0.0, 1.5]),
            ("spacing", "2 mm"),
            ("patch_size", [96, 96, -96]),
            ("patch_size", [96.5, 96, 96]),
            ("axis_order", "yxz"),
            ("encoder", {"embed_dim": "wide"}),
        ],
    )
    def test_metadata_that_mean_nothing(self, tmp_path, key, value):
        path = write_encoder_file(tmp_path / "a.safetensors", **{key: value})
        self.refused(path, f"its metadata {key} = ", "Export the encoder again")

    def test_an_intensity_that_is_none(self, tmp_path):
        path = write_encoder_file(tmp_path / "a.safetensors", intensity={"scheme": "histogram"})
        self.refused(path, "its intensity: ", "Export the encoder again")

    def test_a_preset_that_is_none_names_the_nearest(self, tmp_path):
        path = tmp_path / "a.safetensors"
        kernel = np.zeros((48, 1, 2, 2, 2), np.float32)
        save_file({"patch_embed.proj.weight": kernel}, path, metadata={"preset": "smit69"})
        with pytest.raises(UserError, match="smit96"):
            read_encoder_facts(path)

    @staticmethod
    def refused(path, found, remedy):
        with pytest.raises(UserError) as error:
            read_encoder_facts(path)
        message = str(error.value)
        assert str(path) in message and found in message and remedy in message, message


class TestPlanFor:
    """swinssl_plan --init: the plan takes grid, patch and network from the encoder's file."""

    @pytest.fixture
    def raw(self, tmp_path):
        return RawDataset.load(make_raw(tmp_path / "Dataset007_Toy"))

    def planned(self, raw, tmp_path, init, **options):
        return plan_dataset(
            raw, tmp_path / "preprocessed", PlanOptions(**options), device="cpu", init=init, workers=0
        ).plans

    def test_takes_grid_patch_and_network(self, raw, tmp_path):
        path = write_encoder_file(
            tmp_path / "mine.safetensors",
            preset="small",
            spacing=[2.0, 0.5, 0.125],
            patch_size=[32, 32, 64],
            intensity={"scheme": "window", "low": -500, "high": 500},
        )
        plans = self.planned(raw, tmp_path, path)
        assert plans.spacing == (2.0, 0.5, 0.125)
        assert plans.patch_size == (32, 32, 64)
        assert plans.network.preset == "small" and plans.network.encoder == encoder_preset("small")
        assert plans.encoder == read_encoder_facts(path).reference
        for decision in ("spacing", "patch", "network"):
            assert "pretrain" in plans.reasons[decision] or "encoder" in plans.reasons[decision], plans.reasons
        # The window follows the task, unless it is asked otherwise.
        assert (plans.intensity[0].low, plans.intensity[0].high) != (-500, 500)
        same = self.planned(raw, tmp_path, path, intensity="encoder")
        assert (same.intensity[0].low, same.intensity[0].high) == (-500, 500)

    def test_an_encoder_that_says_nothing_leaves_the_grid_to_the_data(self, raw, tmp_path):
        alone = self.planned(raw, tmp_path, None)
        plans = self.planned(raw, tmp_path, write_encoder_file(tmp_path / "mine.safetensors", preset="small"))
        assert plans.spacing == alone.spacing and plans.patch_size == alone.patch_size
        assert plans.network.preset == "small" and plans.encoder.name == "mine"

    def test_is_refused_before_anything_is_measured(self, raw, tmp_path):
        with pytest.raises(UserError, match="no such file"):
            self.planned(raw, tmp_path, tmp_path / "nowhere.safetensors")
        assert not (tmp_path / "preprocessed").exists()
