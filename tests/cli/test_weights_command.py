"""swinssl_weights, typed as a user would: import, show, export, and every refusal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from support import foreign_files
from support.made_models import make_network, make_plans, write_model

from swinssl.core import files
from swinssl.networks.architectures import build_network
from swinssl.networks.checkpoints.encoder_transfer import load_encoder
from swinssl.networks.checkpoints.weights_file import read_weights, write_weights
from swinssl.networks.network_plan import NetworkPlan, SwinEncoderPlan
from swinssl.planning.encoder_facts import read_encoder_facts

PATCH = (1, 1, 32, 64, 32)


@pytest.fixture
def weights(typed):
    return lambda *arguments: typed("weights", *arguments)


@pytest.fixture
def file(tmp_path):
    """A published file with MONAI's names."""
    path = tmp_path / "model_swinvit.pt"
    torch.save(foreign_files.model_swinvit(), path)
    return path


@pytest.fixture
def encoder(weights, file, tmp_path):
    """It, imported."""
    done = weights(
        *("import", file, "--source", "swinunetr", "--merge-order", "monai_legacy", "--out", tmp_path / "vit"),
        *("--spacing", 2, 1.5, 1.5, "--patch", 96, 96, 96, "--intensity", "window:-1000:1000"),
    )
    assert done.code == 0, done.err
    return tmp_path / "vit" / "encoder.safetensors"


class TestImport:
    def test_says_what_it_found_what_was_taken_and_what_to_type_next(self, weights, file, tmp_path):
        out = tmp_path / "vit.safetensors"
        done = weights("import", file, "--source", "swinunetr", "--merge-order", "monai_legacy", "--out", out)
        assert done.code == 0 and done.err == ""
        lines = done.out.splitlines()
        assert lines[0].startswith("model_swinvit.pt: Swin encoder at 'state_dict', ")
        assert lines[1] == "  width 12, depths 2 1 3 2, heads 1 2 3 4, window 4, 1 image channel"
        assert "arrays (x, y, z); merge order monai_legacy" in lines[2]
        assert lines[3].endswith("0 adapted, 0 missing, 0 unexpected; 4 of other parts left out")
        assert lines[-1] == f"next: swinssl_plan DATASET --init {out}"

    def test_the_file_and_its_json_say_the_same(self, weights, file, encoder):
        _, metadata = read_weights(encoder)
        beside = json.loads(encoder.with_suffix(".json").read_text())
        of_the_file = {"format", "version", "sha256", "metadata_sha256"}
        assert of_the_file <= metadata.keys()
        assert {key: json.loads(text) for key, text in metadata.items() if key not in of_the_file} == beside
        assert beside["source"] == "swinunetr" and beside["original"] == "model_swinvit.pt"
        assert beside["original_sha256"] == files.sha256_of(file)
        assert beside["encoder"]["merge_order"] == "monai_legacy" and beside["encoder"]["axis_order"] == "xyz"
        assert beside["spacing"] == [2, 1.5, 1.5] and beside["patch_size"] == [96, 96, 96]
        assert beside["intensity"] == {"scheme": "window", "low": -1000, "high": 1000, "inside_mask": False}

    def test_a_plan_made_for_it_and_training_take_it_as_it_was_trained(self, encoder):
        facts = read_encoder_facts(encoder)
        assert facts.reference.axis_order == "xyz" and facts.reference.spacing == (2.0, 1.5, 1.5)
        assert facts.patch_size == (96, 96, 96) and facts.intensity.low == -1000
        plan = NetworkPlan(decoder="light", encoder=facts.encoder)
        network = build_network(plan, in_channels=2, num_outputs=3)
        report = load_encoder(network, encoder)
        assert report.adapted == ("patch_embed.proj.weight",) and report.missing == report.unexpected == ()
        assert network(torch.zeros(1, 2, *PATCH[2:])).shape == (1, 3, *PATCH[2:])

    def test_json_lists_every_tensor_with_its_name_there(self, weights, file, tmp_path):
        done = weights(
            *("import", file, "--source", "monai", "--merge-order", "monai", "--out", tmp_path),
            *("--channels", 4, "--json"),
        )
        report = json.loads(done.out)
        rows = {row["name"]: row for row in report["tensors"]}
        assert rows["stages.0.blocks.0.mlp.fc1.weight"] == {
            "name": "stages.0.blocks.0.mlp.fc1.weight",
            "original": "layers1.0.blocks.0.mlp.fc1.weight",
            "shape": [48, 12],
            "verdict": "matched",
        }
        assert rows["patch_embed.proj.weight"]["verdict"] == "adapted"
        assert report["record"]["in_channels"] == 4 and report["missing"] == report["unexpected"] == []

    def test_tensors_lists_them_on_screen(self, weights, file, tmp_path):
        out = weights(
            *("import", file, "--source", "monai", "--merge-order", "monai", "--out", tmp_path, "--tensors"),
        ).out
        (line,) = [line for line in out.splitlines() if "stages.3.merging.reduction.weight" in line]
        assert line.split() == [
            *("matched", "stages.3.merging.reduction.weight", "layers4.0.downsample.reduction.weight", "192", "768")
        ]
        assert any(line.split() == ["left", "out", "rotation_head.weight"] for line in out.splitlines())

    def test_the_licence_is_kept(self, weights, file, tmp_path):
        licence = tmp_path / "LICENCE"
        licence.write_text("Free to use.\nAt your own risk.\n")
        flags = ("--source", "monai", "--merge-order", "monai", "--out", tmp_path, "--licence", licence)
        assert weights("import", file, *flags).code == 0
        assert json.loads((tmp_path / "encoder.json").read_text())["licence"] == licence.read_text()
        assert "licence: Free to use." in weights("show", tmp_path / "encoder.safetensors").out

    def test_smit_needs_no_merge_order(self, weights, tmp_path):
        torch.save({"student": foreign_files.smit()}, tmp_path / "smit.pt")
        done = weights("import", tmp_path / "smit.pt", "--source", "smit", "--out", tmp_path)
        assert done.code == 0 and "merge order smit" in done.out and "left out" in done.out


class TestRefusals:
    """Exit 2, one message with the file and the remedy, and nothing written."""

    @pytest.fixture
    def refused(self, weights, tmp_path):
        def run(path, *flags, source="monai", order="monai"):
            out = tmp_path / "out"
            ordered = ("--merge-order", order) if order else ()
            done = weights("import", path, "--source", source, *ordered, "--out", out, *flags)
            assert done.code == 2 and done.out == "" and not out.exists()
            return done.error

        return run

    def test_a_missing_merge_order(self, refused, file):
        error = refused(file, order=None)
        assert error.startswith(f"{file}: nothing in the file says") and "monai_legacy for everything" in error

    def test_code_in_a_pickle(self, refused, tmp_path):
        sprung, path = tmp_path / "sprung", tmp_path / "evil.pt"
        torch.save({"state_dict": {}, "args": Trap(sprung)}, path)
        assert "could run code; nothing was executed" in refused(path)
        assert not sprung.exists()

    def test_a_truncated_file(self, refused, file):
        file.write_bytes(file.read_bytes()[:5000])
        assert "truncated" in refused(file)

    def test_no_matching_name(self, refused, file):
        assert "These are names of --source monai" in refused(file, source="smit", order=None)

    def test_an_unknown_container(self, refused, tmp_path):
        torch.save([torch.zeros(3)], tmp_path / "list.pt")
        assert "holds a list. Expected a state dict" in refused(tmp_path / "list.pt")

    def test_channels_that_cannot_be_adapted(self, refused, tmp_path):
        content = foreign_files.monai() | {"swinViT.patch_embed.proj.weight": torch.zeros(12, 0, 2, 2, 2)}
        torch.save(content, tmp_path / "none.pt")
        assert "expected (width, channels, 2, 2, 2)" in refused(tmp_path / "none.pt", "--channels", 2)

    def test_a_window_that_cannot_be_changed(self, refused, file):
        assert "keep window 4" in refused(file, "--window", 7)

    @pytest.mark.parametrize(
        ("flags", "words"),
        [
            (("--spacing", 1, 0, 1), "--spacing 1.0 0.0 1.0: must be three positive numbers"),
            (("--patch", 96, -1, 96), "--patch 96 -1 96"),
            (("--intensity", "window:5:1"), "the lower first"),
            (("--licence", "none.txt"), "--licence none.txt: cannot be read"),
            (("--branch", "teacher"), "keeps no teacher"),
            (("--whole",), "holds an encoder and no decoder"),
            (("--whole", "--window", 7), "--whole: goes with a published source"),
        ],
    )
    def test_flags_that_cannot_be_met(self, refused, file, flags, words):
        assert words in refused(file, *flags)

    def test_a_file_that_is_there_stays(self, weights, file, encoder):
        before = encoder.read_bytes()
        flags = ("--source", "monai", "--merge-order", "monai", "--out", encoder.parent)
        assert "is there already" in weights("import", file, *flags).error and encoder.read_bytes() == before
        assert weights("import", file, *flags, "--overwrite").code == 0 and encoder.read_bytes() != before

    def test_a_json_of_something_else_stays_too(self, weights, file, tmp_path):
        (tmp_path / "dataset.json").write_text("{}")
        flags = ("--source", "monai", "--merge-order", "monai", "--out", tmp_path / "dataset.safetensors")
        assert "dataset.json: is there already" in weights("import", file, *flags).error
        assert (tmp_path / "dataset.json").read_text() == "{}" and not (tmp_path / "dataset.safetensors").exists()

    def test_an_ending_that_means_something_else(self, weights, file, tmp_path):
        flags = ("--source", "monai", "--merge-order", "monai", "--out", tmp_path / "x.pt")
        assert "files of ours end in .safetensors" in weights("import", file, *flags).error


class Trap:
    """Unpickling it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


class TestShow:
    def test_a_published_file(self, weights, file):
        done = weights("show", file)
        assert done.code == 0 and "merge order unknown" in done.out
        assert "the merge order is not in the file: monai_legacy for everything published before 2025" in done.out
        assert f"next: swinssl_weights import {file} --source monai --merge-order ... --out FOLDER" in done.out

    def test_an_encoder_of_ours(self, weights, encoder):
        done = weights("show", encoder)
        assert done.code == 0 and "merge order monai_legacy" in done.out and "next:" not in done.out
        assert "  source: swinunetr\n" in done.out and "  spacing: [2.0, 1.5, 1.5]\n" in done.out

    def test_json(self, weights, file, encoder):
        there, ours = (json.loads(weights("show", path, "--json").out) for path in (file, encoder))
        assert (there["source"], there["merge_order_known"]) == ("monai", False)
        assert (ours["source"], ours["merge_order_known"]) == ("swinssl", True)
        assert there["encoder"]["depths"] == ours["encoder"]["depths"] == list(foreign_files.DEPTHS)
        assert ours["record"]["original_sha256"] == there["sha256"]

    def test_a_file_without_encoder_is_refused(self, weights, tmp_path):
        torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "other.pt")
        assert "none with the name of a Swin encoder's block" in weights("show", tmp_path / "other.pt").error


class TestExport:
    def test_to_monai_and_back_is_the_same_encoder(self, weights, encoder, tmp_path):
        out = tmp_path / "monai.pt"
        done = weights("export", encoder, "--to", "monai", "--out", out)
        assert done.code == 0 and "SwinUNETR(out_channels=..., in_channels=1, feature_size=12" in done.out
        assert "differs: merging: MONAI 1.5 and later have lost the legacy order" in done.out
        flags = ("--source", "monai", "--merge-order", "monai_legacy", "--out", tmp_path / "back")
        assert weights("import", out, *flags).code == 0
        first, again = (read_weights(path)[0] for path in (encoder, tmp_path / "back" / "encoder.safetensors"))
        assert all(torch.equal(again[name], tensor) for name, tensor in first.items()) and set(first) == set(again)

    def test_json_names_the_arguments_of_the_network_there(self, weights, encoder, tmp_path):
        done = weights("export", encoder, "--to", "monai", "--out", tmp_path / "m.safetensors", "--json")
        report = json.loads(done.out)
        assert report["arguments"]["window_size"] == 4 and report["axis_order"] == "xyz"
        assert len(report["differences"]) == 1 and report["left_out"] == []

    def test_a_trained_model_s_encoder_is_taken_out_of_it(self, weights, tmp_path):
        plans = make_plans(spacing=(2.0, 1.5, 1.5))
        network = make_network(plans)
        path = write_model(tmp_path / "model", plans) / "fold_0" / "model.safetensors"
        assert weights("export", path, "--to", "swinssl", "--out", tmp_path / "own").code == 0
        tensors, _ = read_weights(tmp_path / "own" / "encoder.safetensors")
        assert all(torch.equal(tensors[name], tensor) for name, tensor in network.encoder.state_dict().items())
        facts = read_encoder_facts(tmp_path / "own" / "encoder.safetensors")
        assert facts.encoder == plans.network.encoder and facts.reference.spacing == plans.spacing

    def test_weights_that_do_not_say_what_they_are_are_refused(self, weights, tmp_path):
        plan = SwinEncoderPlan(embed_dim=4, depths=(1, 1, 1, 1), heads=(1, 1, 1, 1))
        network = build_network(NetworkPlan(encoder=plan), in_channels=1, num_outputs=2)
        write_weights(tmp_path / "bare.safetensors", network.state_dict(), metadata={})
        done = weights("export", tmp_path / "bare.safetensors", "--to", "swinssl", "--out", tmp_path / "own")
        assert "does not say how its encoder computes" in done.error
        assert not (tmp_path / "own").exists()


class TestShipped:
    def test_are_listed_with_what_they_learnt(self, typed):
        import json

        from swinssl.networks.checkpoints.shipped_encoders import shipped_names

        rows = json.loads(typed("weights", "list", "--json").out)
        assert [row["name"] for row in rows] == list(shipped_names())
        (smit,) = (row for row in rows if row["name"] == "tiny_smit_headneck_ct")
        assert (smit["modality"], smit["body_part"], smit["licence"]) == ("CT", "head-and-neck", "MIT")
        shown = typed("weights", "show", "tiny_smit_headneck_ct").out
        assert smit["spacing"] == [3.0, 3.0, 3.0] and f"{smit['parameters']:,} parameters" in shown
        said = typed("weights", "list").out
        assert "170 planning CTs of OpenKBP (MIT licence)" in said and "window [-500, 500]" in said

    def test_are_exported_and_imported_by_name(self, typed, tmp_path):
        assert typed("weights", "export", "tiny_smit_headneck_ct", "--to", "monai", "-o", tmp_path / "a.pt").code == 0
        assert (tmp_path / "a.pt").stat().st_size > 3_000_000
        done = typed("weights", "export", "tiny_smit_headneck", "--to", "monai", "-o", tmp_path / "b.pt")
        assert done.code == 2 and "Did you mean tiny_smit_headneck_ct?" in done.error
