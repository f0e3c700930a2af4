"""Several folds in one call: each as if trained alone, together as if all their cases had been evaluated at once."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path

import pytest
import torch
from support.toy_dataset import make_preprocessed
from torch import multiprocessing

from swinssl.core.errors import Interrupted, UserError
from swinssl.evaluation.aggregate import make_report
from swinssl.evaluation.evaluate import evaluate
from swinssl.evaluation.reference_labels import ReferenceLabels
from swinssl.evaluation.summary import metrics_csv, summary
from swinssl.experiments.cross_validation import cross_validate
from swinssl.experiments.fine_tuned_fold import train_and_judge
from swinssl.inference.postprocessing import POSTPROCESSING_FILE, Postprocessing
from swinssl.inference.trained_model import TrainedModel
from swinssl.networks.checkpoints.weights_file import read_weights
from swinssl.training import fine_tuning
from swinssl.training.config import TrainingConfig
from swinssl.training.engine.run_description import RunDescription
from swinssl.training.segmentation_task import SegmentationTask

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = TrainingConfig(device="cpu", precision="fp32", readers=0, ema=0.9, augmentation="none", steps=12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six cases in five folds."""
    return make_preprocessed(tmp_path_factory.mktemp("work"))


def validate(folder, results, folds=("0", "1"), *, restart=False, **choices):
    config = CONFIG.model_copy(update=choices)
    return cross_validate(folder, results, folds=folds, config=config, name="model", restart=restart)


@pytest.fixture(scope="module")
def validated(folder, tmp_path_factory):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return validate(folder, tmp_path_factory.mktemp("results"))
    finally:
        torch.set_num_threads(threads)


def weights(model, fold):
    return read_weights(model / f"fold_{fold}" / "model.safetensors")[0]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def written(folder):
    """When each file of a folder was written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.suffix == ".gz"}


class TestResult:
    @pytest.mark.slow
    def test_each_fold_is_what_it_would_be_alone(self, validated, folder, tmp_path):
        alone = train_and_judge(folder, tmp_path, fold="1", config=CONFIG, name="model")
        assert same(weights(validated.model, 1), weights(alone.fold.model, 1))
        theirs = RunDescription.read(alone.fold.run_file).final_dice
        assert RunDescription.read(validated.folds[1].fold.run_file).final_dice == theirs

    def test_together_they_are_an_evaluation_of_all_their_cases(self, validated, folder, tmp_path):
        for judged in validated.folds:
            for path in judged.fold.predictions.glob("*.nii.gz"):
                assert not (tmp_path / path.name).exists()
                shutil.copy(path, tmp_path)
        cases = [path.name.removesuffix(".nii.gz") for path in tmp_path.iterdir()]
        splits = json.loads((folder / "splits_final.json").read_text())
        assert sorted(cases) == sorted(splits[0]["val"] + splits[1]["val"])
        labels = ReferenceLabels(folder / "dataset.json", validated.folds[0].fold.plans.labels)
        by_hand = evaluate(tmp_path, folder / "gt_segmentations", labels=labels, cases=cases, workers=0)
        expected = summary(by_hand, make_report(by_hand))
        found = json.loads((validated.folder / "summary.json").read_text())
        assert all(Path(entry.pop("prediction_file")).is_file() for entry in found["metric_per_case"])
        for entry in expected["metric_per_case"]:
            del entry["prediction_file"]
        assert found == json.loads(json.dumps(expected))
        assert (validated.folder / "metrics.csv").read_text() == metrics_csv(by_hand)

    def test_the_postprocessing_is_decided_and_kept_with_the_weights_that_it_is_of(self, validated):
        model = TrainedModel.open(validated.model)
        assert model.postprocessing == validated.postprocessing and not model.postprocessing_is_outdated
        assert validated.postprocessing.fold_sha256 == model.sha256
        tried = [trial.structures for trial in (*model.postprocessing.applied, *model.postprocessing.rejected)]
        assert sorted(tried) == [("core",), ("shell",), ("shell", "core")]
        before = {
            trial.structures: trial.before for trial in (*model.postprocessing.applied, *model.postprocessing.rejected)
        }
        assert before["shell", "core"] == pytest.approx(validated.report.dice.mean)


class TestGoingOn:
    @pytest.mark.slow
    def test_after_a_stop_the_same_call_goes_on_and_does_nothing_twice(self, validated, folder, tmp_path, monkeypatch):
        after_step = SegmentationTask.after_step
        second = tmp_path / "model" / "fold_1"

        def stop_in_the_second(self, step, total):
            after_step(self, step, total)
            if step == 4 and second.exists():
                (second / "STOP").touch()

        monkeypatch.setattr(SegmentationTask, "after_step", stop_in_the_second)
        with pytest.raises(Interrupted, match=r"after 5 of 12 steps in .*fold_1. Rerun the command to resume"):
            validate(folder, tmp_path)
        monkeypatch.undo()
        first = tmp_path / "model" / "fold_0"
        assert RunDescription.read(first / "run.json").status == "done"
        assert not (tmp_path / "model" / "cross_validation").exists()
        run, maps = (first / "run.json").read_text(), written(first / "validation")

        steps = []
        monkeypatch.setattr(SegmentationTask, "after_step", lambda *a: (steps.append(a[1]), after_step(*a)))
        found = validate(folder, tmp_path)
        assert steps == list(range(5, 12))
        assert written(first / "validation") == maps
        assert json.loads((first / "run.json").read_text())["ended"] == json.loads(run)["ended"]
        for fold in (0, 1):
            assert same(weights(found.model, fold), weights(validated.model, fold))
        assert metrics_csv(found.evaluation) == metrics_csv(validated.evaluation)
        assert found.postprocessing == validated.postprocessing

    @pytest.mark.slow
    def test_longer_runs_are_trained_on(self, folder, tmp_path):
        validate(folder, tmp_path, steps=2)
        done = validate(folder, tmp_path, steps=3)
        for judged in done.folds:
            run = RunDescription.read(judged.fold.run_file)
            assert (run.steps, run.status) == (3, "done")
            dice = {one.structure.name: one.averages["Dice"].mean for one in judged.report.structures}
            assert run.final_dice == pytest.approx(dice)

    @pytest.mark.slow
    def test_predictions_that_are_gone_are_made_again(self, folder, tmp_path):
        done = validate(folder, tmp_path, steps=2)
        path = next(done.folds[0].fold.predictions.glob("*.nii.gz"))
        content = path.read_bytes()
        path.unlink()
        assert validate(folder, tmp_path, steps=2).report == done.report and path.read_bytes() == content

    @pytest.mark.slow
    def test_folds_that_begin_anew_are_predicted_and_measured_anew(self, folder, tmp_path):
        model, other = tmp_path / "model", CONFIG.model_copy(update={"steps": 1, "seed": 4})
        validate(folder, tmp_path, steps=1)
        maps = written(model / "fold_0" / "validation")
        alone = train_and_judge(folder, tmp_path, fold="0", config=other, name="model", restart=True)
        # The other fold was trained otherwise, so this one is measured alone.
        assert TrainedModel.open(
            model
        ).postprocessing == alone.postprocessing and alone.postprocessing.fold_sha256.keys() == {"0"}
        assert all(time > maps[name] for name, time in written(model / "fold_0" / "validation").items())
        validate(folder, tmp_path, steps=1, seed=4, restart=True)
        assert not TrainedModel.open(model).postprocessing_is_outdated
        assert {path.name for path in model.glob("old_*")} == {"old_fold_0_1", "old_fold_0_2", "old_fold_1_1"}


class TestFolds:
    @pytest.mark.slow
    def test_those_that_are_done_complete_a_cross_validation(self, folder, tmp_path):
        everything = {f"ball_{number}" for number in range(6)}
        for fold in ("4", "0"):
            train_and_judge(folder, tmp_path, fold=fold, config=CONFIG.model_copy(update={"steps": 1}), name="model")
        some = validate(folder, tmp_path, ("1", "2"), steps=1)
        assert len(some.folds) == 2 and len(some.evaluation.cases) < 6
        all_of_them = validate(folder, tmp_path, ("3", "2"), steps=1)
        assert {case.case_id for case in all_of_them.evaluation.cases} == everything
        assert all_of_them.postprocessing.fold_sha256.keys() == set("01234")
        # Folds of other runs are not mixed in.
        others = validate(folder, tmp_path, ("3", "2"), steps=2)
        assert others.postprocessing.fold_sha256.keys() == {"2", "3"}

    def test_that_are_not_there_are_refused_before_any_is_trained(self, folder, tmp_path):
        with pytest.raises(UserError, match=r"--fold 0,7: .*splits_final\.json has the folds 0 to 4; there is no 7"):
            validate(folder, tmp_path, ("0", "7"))
        assert not (tmp_path / "model").exists()

    def test_that_validate_on_one_case_are_refused_before_any_is_trained(self, tmp_path):
        folder = make_preprocessed(tmp_path, cases=3)
        balls = [f"ball_{number}" for number in range(3)]
        splits = [{"train": balls[:1], "val": balls[1:]}, {"train": balls[1:2], "val": balls[2:]}]
        splits.append({"train": balls[1:], "val": balls[:1]})
        (folder / "splits_final.json").write_text(json.dumps(splits))
        with pytest.raises(UserError, match=r"validates on ball_2 in more than one of these folds"):
            validate(folder, tmp_path / "results", ("0", "1"))
        assert not (tmp_path / "results").exists()
        # Without the case that is there twice they can be counted together; the third of them is no part of it.
        done = validate(folder, tmp_path / "results", ("0", "2"), steps=1)
        assert [case.case_id for case in done.evaluation.cases] == balls

    def test_without_validation_cases_there_is_nothing_to_judge(self, tmp_path):
        folder = make_preprocessed(tmp_path, cases=2)
        splits = [{"train": ["ball_0"], "val": []}, {"train": ["ball_1"], "val": []}]
        (folder / "splits_final.json").write_text(json.dumps(splits))
        done = validate(folder, tmp_path / "results", steps=1)
        assert done.evaluation is None and not (done.model / POSTPROCESSING_FILE).exists()

    def test_of_regions_are_judged_and_not_cleaned(self, tmp_path):
        labels = {"background": 0, "whole": [1, 2], "core": [2]}
        folder = make_preprocessed(tmp_path, cases=2, labels=labels, regions_class_order=[1, 2])
        done = validate(folder, tmp_path / "results", steps=1)
        kept = Postprocessing.read(done.model, done.folds[0].fold.plans.labels)
        assert kept.applied == kept.rejected == () and len(done.evaluation.cases) == 2


class TestRanks:
    @pytest.mark.slow
    def test_the_first_alone_writes(self, folder, tmp_path):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        multiprocessing.spawn(_one_rank, (folder, tmp_path / "ranks", port), nprocs=2)
        whole = validate(folder, tmp_path / "whole", steps=2, lr=1e-5)
        found = weights(tmp_path / "ranks" / "model", 1)
        apart = max(float((found[name] - own).abs().max()) for name, own in weights(whole.model, 1).items())
        assert apart <= 1e-5
        csv_file = tmp_path / "ranks" / "model" / "cross_validation" / "metrics.csv"
        assert len(csv_file.read_text().splitlines()) == len(metrics_csv(whole.evaluation).splitlines())


def _one_rank(rank, folder, results, port):
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    if rank:

        def never(*_, **__):
            raise AssertionError("the second rank predicts")

        fine_tuning._predict_validation = never
    done = validate(folder, results, steps=2, lr=1e-5)
    assert done.first_rank == (rank == 0) and (done.evaluation is None) == (rank > 0)
    torch.distributed.destroy_process_group()
