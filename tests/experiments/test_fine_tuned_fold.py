"""The post-processing of one fold: on the best available cases, measured once, never replaced by a weaker one."""

from __future__ import annotations

import json
import shutil

import pytest
from support.toy_dataset import make_preprocessed

from swinssl.experiments import fine_tuned_fold
from swinssl.experiments.cross_validation import cross_validate
from swinssl.experiments.fine_tuned_fold import train_and_judge
from swinssl.inference.postprocessing import POSTPROCESSING_FILE
from swinssl.inference.trained_model import TrainedModel
from swinssl.training.config import TrainingConfig

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = TrainingConfig(device="cpu", precision="fp32", readers=0, ema=0.9, augmentation="none", steps=2)
BALLS = [f"ball_{i}" for i in range(6)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_preprocessed(tmp_path_factory.mktemp("work"))


@pytest.fixture
def folder(made, tmp_path):
    """Six cases; fold 0 and 1 validate on three each, fold 2 on one of them."""
    folder = tmp_path / "preprocessed" / made.name
    shutil.copytree(made, folder)
    folds = [BALLS[:3], BALLS[3:], BALLS[:1]]
    splits = [{"train": [case for case in BALLS if case not in val], "val": val} for val in folds]
    (folder / "splits_final.json").write_text(json.dumps(splits))
    return folder


@pytest.fixture
def train(folder, tmp_path):
    def train(fold, **choices):
        config = CONFIG.model_copy(update=choices)
        return train_and_judge(folder, tmp_path / "results", fold=fold, config=config, name="model")

    return train


def tried(postprocessing):
    return {trial.structures: trial for trial in (*postprocessing.applied, *postprocessing.rejected)}


def test_a_single_fold_is_measured_on_its_validation_cases(train):
    judged = train("0")
    found = judged.postprocessing
    assert found.measured_on == "validation cases" and found.fold_sha256.keys() == {"0"}
    assert tried(found)["shell", "core"].before == pytest.approx(judged.report.dice.mean)
    model = TrainedModel.open(judged.fold.model)
    assert model.postprocessing == found and model.postprocessing_groups == found.groups
    assert judged.training_dice is None and not (judged.fold.folder / "training_cases").exists()


@pytest.mark.slow
def test_folds_of_single_calls_count_together_where_they_were_trained_alike(train):
    train("0")
    assert train("1").postprocessing.fold_sha256.keys() == {"0", "1"}
    assert train("1", steps=3).postprocessing.fold_sha256.keys() == {"1"}


def test_few_validation_cases_are_joined_by_training_cases(train):
    judged = train("2")
    assert judged.postprocessing.measured_on == "validation and training cases"
    assert {trial.cases for trial in tried(judged.postprocessing).values()} == {6}
    predicted = {path.name.removesuffix(".nii.gz") for path in (judged.fold.folder / "training_cases").iterdir()}
    assert predicted == {*BALLS[1:]}


def test_all_cases_are_measured_on_themselves_once_and_by_the_strict_criterion(train, monkeypatch):
    strict = []
    choose = fine_tuned_fold.choose_postprocessing
    monkeypatch.setattr(
        fine_tuned_fold, "choose_postprocessing", lambda *a, **k: (strict.append(k["strict"]), choose(*a, **k))[1]
    )
    judged = train("all")
    assert judged.postprocessing.measured_on == "training cases" and judged.postprocessing.fold_sha256.keys() == {"all"}
    assert judged.training_dice == pytest.approx(tried(judged.postprocessing)["shell", "core"].before)
    assert strict == [True]
    again = train("all")
    assert again.postprocessing == judged.postprocessing and strict == [True]


@pytest.mark.slow
def test_all_takes_the_cross_validation_of_the_same_choices(folder, train, tmp_path):
    validated = cross_validate(folder, tmp_path / "results", folds=["0", "1"], config=CONFIG, name="model")
    judged = train("all")
    assert judged.postprocessing == validated.postprocessing
    assert not (judged.fold.folder / "training_cases").exists()
    # A cross-validation of other choices says more than the training cases do, too.
    assert train("all", steps=3).postprocessing == validated.postprocessing


@pytest.mark.slow
def test_shots_are_measured_like_any_other_fold(train):
    few = train("all", shots=3)
    assert few.postprocessing.measured_on == "training cases" and tried(few.postprocessing)["shell",].cases == 3
    assert train("0", shots=2).postprocessing.measured_on == "validation cases"


def test_two_cases_measure_nothing_and_leave_no_file(train):
    judged = train("all", shots=2)
    assert judged.postprocessing is None and not (judged.fold.model / POSTPROCESSING_FILE).exists()
