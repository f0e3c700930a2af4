"""The cells of transfer.py: which are run, which are not again, and what is refused as not comparable."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import torch
import transfer
from commands import leave_after
from few_labels import divide
from support import toy_dataset
from transfer_cells import zeroed_encoder
from transfer_rows import Row, add_rows, read_rows
from transfer_study import Init, Study, prepare

from swinssl.core.errors import UserError
from swinssl.networks.architectures import build_network
from swinssl.networks.checkpoints.encoder_transfer import load_encoder
from swinssl.networks.checkpoints.weights_file import read_weights, write_weights
from swinssl.preprocessing.plans import Plans

CASES = 13  # 5 train, 5 validate, 3 test


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """With the toy data set, raw and preprocessed; nobody writes there."""
    root = tmp_path_factory.mktemp("toy")
    toy_dataset.make_preprocessed(root, cases=CASES)
    return root


@pytest.fixture
def raw(workspace):
    return workspace / "raw" / toy_dataset.NAME


def rows_of(study, init, seed, *, steps=4):
    scores = {"shell": 0.5, "core": None}
    return tuple(Row(init, seed, steps, 1.25, case, scores, 0.5) for case in study.cases.test)


@pytest.fixture
def started(tmp_path, raw, monkeypatch):
    """`started("scratch", ...)`: the exit code of transfer.py whose cells only write down that they ran."""
    ran = []

    def cell(study, init, seed):
        ran.append((init.name, seed))
        if init.name == "broken":
            raise subprocess.CalledProcessError(2, ["swinssl_train"])
        return rows_of(study, init.name, seed)

    monkeypatch.setattr(transfer, "run_cell", cell)
    monkeypatch.setattr(transfer, "prepare", lambda *_, **__: None)

    def start(*arguments, steps=4, test=3):
        ran.clear()
        where = ["--raw", raw, "--work", tmp_path / "work", "--results", tmp_path / "results"]
        size = ["--seeds", 0, 1, "--steps", steps, "--test", test]
        monkeypatch.setattr(sys, "argv", ["transfer.py", *arguments, *map(str, size + where)])
        with pytest.raises(SystemExit) as end:
            leave_after(transfer.main)
        return end.value.code, list(ran)

    return start


def test_cells_run_once(started):
    assert started("scratch") == (0, [("scratch", 0), ("scratch", 1)])
    assert started("scratch", "zeroed") == (0, [("zeroed", 0), ("zeroed", 1)])
    assert started("scratch", "zeroed") == (0, [])


def test_peers_come_after_what_gives_them_their_minutes(started):
    _, ran = started("nnunet", "scratch", "zeroed")
    assert ran == [(name, seed) for seed in (0, 1) for name in ("scratch", "zeroed", "nnunet")]


def test_a_cell_that_fails_does_not_keep_the_others_from_running(started, tmp_path, capsys):
    broken = f"broken={tmp_path / 'encoder.safetensors'}"
    (tmp_path / "encoder.safetensors").touch()
    code, ran = started(broken, "scratch")
    assert code == 2
    assert len(ran) == 4
    assert "failed: broken seed 0, broken seed 1" in capsys.readouterr().err
    assert started("scratch", broken) == (2, [("broken", 0), ("broken", 1)])


def test_only_and_dry_run(started, tmp_path, capsys):
    assert started("scratch", "zeroed", "--only", "zeroed") == (0, [("zeroed", 0), ("zeroed", 1)])
    assert started("scratch", "zeroed", "nnunet", "--dry-run") == (0, [])
    shown = capsys.readouterr().out
    assert "would run 4 cells" in shown and "after scratch" in shown
    assert {row.init for row in read_rows(tmp_path / "results" / "transfer_001.csv")} == {"zeroed"}


def test_the_table_is_written_beside_the_rows(started, tmp_path):
    started("scratch", "zeroed")
    table = tmp_path / "results" / "transfer_001.md"
    assert "| zeroed | 2 | 4 |" in table.read_text()
    table.unlink()
    assert started("--report-only") == (0, [])
    assert "| zeroed | 2 | 4 |" in table.read_text()


def test_results_of_another_length_are_not_added_to(started, capsys):
    started("scratch")
    assert started("scratch", steps=9) == (2, [])
    assert "the results have it with 4 steps" in capsys.readouterr().err


def test_results_of_other_test_cases_are_not_added_to(started, capsys):
    started("scratch")
    assert started("scratch", test=2) == (2, [])
    assert "the results have it with other test cases" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["smit"], "smit: expected scratch, zeroed, resenc, nnunet, nnunet_resencm, nnunet_small, or NAME=ENCODER"),
        (["scratch=x.safetensors"], "or NAME=ENCODER with another name"),
        (["smit=missing.safetensors", "--dry-run"], "missing.safetensors: no such file"),
        (["scratch", "scratch"], "scratch: given twice"),
        (["scratch", "--only", "zeroed"], "--only: none of the inits"),
        (["scratch", "--options", "lr"], 'expected NAME:OPTIONS, such as "scratch:--lr 1e-3"'),
    ],
)
def test_what_cannot_be_meant_is_refused(started, capsys, arguments, message):
    assert started(*arguments) == (2, [])
    assert message in capsys.readouterr().err


class TestRows:
    def test_they_come_back_as_they_were(self, tmp_path):
        path = tmp_path / "rows.csv"
        first = (Row("scratch", 0, 4, 1.25, "a", {"shell": 0.5, "core": None}, 0.5),)
        second = (Row("scratch", 1, 4, 2.0, "a", {"shell": 0.125, "core": 1.0}, 0.5625),)
        add_rows(path, first)
        add_rows(path, second)
        assert read_rows(path) == (*first, *second)
        assert path.read_text().splitlines()[0] == "init,seed,steps,minutes,case,shell,core,mean"

    def test_rows_of_other_structures_are_refused_and_nothing_is_lost(self, tmp_path):
        path = tmp_path / "rows.csv"
        add_rows(path, [Row("scratch", 0, 4, 1.0, "a", {"shell": 0.5}, 0.5)])
        with pytest.raises(UserError, match="has the structures shell, not core"):
            add_rows(path, [Row("scratch", 1, 4, 1.0, "a", {"core": 0.5}, 0.5)])
        assert len(read_rows(path)) == 1

    def test_another_table_is_refused(self, tmp_path):
        path = tmp_path / "rows.csv"
        path.write_text("name,value\na,1\n")
        with pytest.raises(UserError, match="not a table of this benchmark"):
            read_rows(path)


class TestPreparation:
    @pytest.fixture
    def study(self, workspace, tmp_path, raw, monkeypatch):
        """Already planned and preprocessed, and not done so again."""
        monkeypatch.setattr("transfer_study.run_swinssl", lambda *_: None)
        shutil.copytree(workspace / "preprocessed", tmp_path / "work" / "swinssl" / "preprocessed")
        cases = divide([f"ball_{number}" for number in range(CASES)], test=3)
        return Study(raw, tmp_path / "work", tmp_path / "results", "transfer_001", cases, steps=4)

    def test_test_images_and_labels_are_links_to_the_raw_ones(self, study):
        prepare(study, [Init("scratch")], plan_for=None)
        assert sorted(path.name for path in study.images.iterdir()) == [f"{c}_0000.nii.gz" for c in study.cases.test]
        assert sorted(path.name for path in study.references.iterdir()) == [f"{c}.nii.gz" for c in study.cases.test]
        assert all(path.resolve().parent.parent == study.raw for path in study.images.iterdir())

    def test_the_folds_are_what_training_reads(self, study):
        prepare(study, [Init("scratch")], plan_for=None)
        folds = json.loads((study.preprocessed / "splits_final.json").read_text())
        assert [fold["train"] for fold in folds] == [list(fold.train) for fold in study.cases.all_folds]

    def test_the_plan_of_the_results_stands_above_the_one_in_the_work_folder(self, study):
        prepare(study, [Init("scratch")], plan_for=None)
        kept = study.results / "transfer_001_plans.json"
        plans = json.loads(kept.read_text())
        plans["training"]["learning_rate"] = 0.123
        kept.write_text(json.dumps(plans))
        prepare(study, [Init("scratch")], plan_for=None)
        assert json.loads((study.preprocessed / "swinsslPlans.json").read_text())["training"]["learning_rate"] == 0.123

    def test_an_encoder_that_saw_a_test_image_is_refused(self, study):
        path = zeroed_encoder(study)
        case = study.cases.test[1]
        known = json.loads((study.preprocessed / "cases" / case / "properties.json").read_text())["input_sha256"]
        run = path.parent / "run.json"
        run.write_text(json.dumps({"image_sha256": {"another/name": {"image_0000": known["image_0000"]}}}))
        with pytest.raises(UserError, match=f"was pretrained on the test case {case}"):
            prepare(study, [Init("smit", path)], plan_for=path)
        run.write_text(json.dumps({"image_sha256": {"another/name": {"image_0000": "0" * 64}}}))
        prepare(study, [Init("smit", path)], plan_for=path)

    def test_an_encoder_of_another_grid_is_refused(self, study, tmp_path):
        weights, metadata = read_weights(zeroed_encoder(study))
        other = tmp_path / "other.safetensors"
        write_weights(other, weights, metadata={**metadata, "spacing": "[3, 2, 1]"})
        with pytest.raises(UserError, match=r"pretrained on a grid of \(3.0, 2.0, 1.0\) mm"):
            prepare(study, [Init("smit", other)], plan_for=other)

    def test_another_encoder_under_the_same_name_is_refused(self, study, tmp_path):
        path = zeroed_encoder(study)
        prepare(study, [Init("smit", path)], plan_for=path)
        prepare(study, [Init("scratch")], plan_for=path)  # not asked for, and still remembered
        weights, metadata = read_weights(path)
        other = tmp_path / "other.safetensors"
        write_weights(other, {name: weight + 1 for name, weight in weights.items()}, metadata=metadata)
        with pytest.raises(UserError, match=r"have other encoders \(smit\)"):
            prepare(study, [Init("smit", other)], plan_for=path)

    def test_the_zeroed_encoder_gives_nothing_but_zeros(self, study):
        plans = Plans.read(study.preprocessed)
        network = build_network(plans.network, in_channels=1, num_outputs=3)
        assert not load_encoder(network, zeroed_encoder(study)).missing
        for found in network.encoder(torch.randn(1, 1, 32, 32, 32)):
            assert not found.any()
