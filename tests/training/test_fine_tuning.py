"""A fold from a preprocessed data set to a trained model: it learns, stops, goes on, and refuses what does not fit."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from support.toy_dataset import NAME, SHAPE, TINY, ball, make_preprocessed, plans_for, write_raw

from swinssl.core.errors import Interrupted, UserError
from swinssl.experiments.fine_tuned_fold import train_and_judge
from swinssl.imageio.reader import read_label
from swinssl.imageio.volume import Geometry, Volume
from swinssl.inference.predictor import Predictor
from swinssl.inference.trained_model import TrainedModel
from swinssl.networks.checkpoints.weights_file import read_weights, write_weights
from swinssl.preprocessing.preprocess import preprocess_dataset
from swinssl.training.config import TrainingConfig
from swinssl.training.engine.run_description import RunDescription
from swinssl.training.fine_tuning import default_name, fine_tune

CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_preprocessed(tmp_path_factory.mktemp("work"))


def config(**choices):
    return TrainingConfig(**{"device": "cpu", "precision": "fp32", "readers": 0, "ema": 0.9, **choices})


# On plain patches every seed learns the task in so many steps, with a wide margin (tried: four).
LEARNS = config(steps=80, augmentation="none")


def train(folder, results, *, fold="0", name="model", restart=False, **choices):
    return fine_tune(folder, results, fold=fold, config=config(**choices), name=name, restart=restart)


def kept_weights(results, fold="0", name="model"):
    return read_weights(results / name / f"fold_{fold}" / "model.safetensors")[0]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def judged(folder, tmp_path_factory):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return train_and_judge(folder, tmp_path_factory.mktemp("results"), fold="1", config=LEARNS, name="model")
    finally:
        torch.set_num_threads(threads)


class TestResult:
    def test_learns_the_task(self, judged):
        run = RunDescription.read(judged.fold.run_file)
        assert run.status == "done" and run.steps == 80
        assert min(run.final_dice.values()) > 0.6 and run.final_dice.keys() == {"shell", "core"}
        log = [json.loads(line) for line in (judged.fold.folder / "log.jsonl").read_text().splitlines()]
        assert log[-1]["loss"] < 0.5 * log[0]["loss"]
        assert log[-1]["validation_score"] > 0.6

    def test_says_what_the_run_was(self, judged, folder):
        run = RunDescription.read(judged.fold.run_file)
        assert set(run.train_cases) | set(run.validation_cases) == {f"ball_{i}" for i in range(6)}
        assert not set(run.train_cases) & set(run.validation_cases)
        assert run.image_sha256.keys() == set(run.train_cases)
        assert run.config.augmentation == "none" and run.parameters > 1e5 and run.precision == "fp32"
        assert run.versions["torch"] == torch.__version__.split("+")[0] or run.versions["torch"] == torch.__version__

    def test_the_final_dice_is_that_of_the_written_predictions(self, judged, folder):
        summary = json.loads((judged.fold.predictions / "summary.json").read_text())
        assert {case["case"] for case in summary["metric_per_case"]} == set(judged.fold.run.validation_cases)
        dice = []
        for case_id in judged.fold.run.validation_cases:
            found = read_label(judged.fold.predictions / f"{case_id}.nii.gz").array[0]
            truth = read_label(folder / "gt_segmentations" / f"{case_id}.nii.gz").array[0]
            dice.append(2 * np.sum((found == 2) & (truth == 2)) / (np.sum(found == 2) + np.sum(truth == 2)))
        assert summary["mean"]["2"]["Dice"] == pytest.approx(np.mean(dice))
        assert RunDescription.read(judged.fold.run_file).final_dice["core"] == pytest.approx(np.mean(dice))

    def test_the_model_predicts_new_images(self, judged):
        model = TrainedModel.open(judged.fold.model)
        image, label = ball(99)
        predictor = Predictor.of(model.networks(CPU), model.plans, device=CPU, bf16=False)
        found = predictor.predict(Volume(image[None], Geometry.from_parts(SHAPE, spacing=(1, 1, 1)))).label_map
        assert 2 * np.sum((found == 2) & (label == 2)) / (np.sum(found == 2) + np.sum(label == 2)) > 0.6

    def test_draws_its_progress(self, judged):
        content = (judged.fold.folder / "progress.png").read_bytes()
        assert content.startswith(b"\x89PNG") and len(content) > 10_000


class TestGoingOn:
    @pytest.mark.slow
    def test_a_stop_file_saves_and_the_same_call_ends_with_the_same_weights(self, folder, tmp_path, monkeypatch):
        from swinssl.training.segmentation_task import SegmentationTask

        train(folder, tmp_path / "whole", steps=12)
        after_step = SegmentationTask.after_step

        def stop_at_7(self, step, total):
            after_step(self, step, total)
            if step == 6:
                (tmp_path / "parts" / "model" / "fold_0" / "STOP").touch()

        monkeypatch.setattr(SegmentationTask, "after_step", stop_at_7)
        with pytest.raises(Interrupted, match="after 7 of 12 steps"):
            train(folder, tmp_path / "parts", steps=12)
        assert RunDescription.read(tmp_path / "parts" / "model" / "fold_0" / "run.json").status == "stopped"
        monkeypatch.undo()
        train(folder, tmp_path / "parts", steps=12)
        assert same(kept_weights(tmp_path / "whole"), kept_weights(tmp_path / "parts"))

    @pytest.mark.parametrize("choice", [{"lr": 0.5}, {"seed": 3}, {"shots": 2}, {"augmentation": "none"}])
    def test_another_run_does_not_go_on_here(self, folder, tmp_path, choice):
        train(folder, tmp_path, steps=2)
        with pytest.raises(UserError, match=r"--restart"):
            train(folder, tmp_path, steps=2, **choice)

    def test_a_restart_puts_the_earlier_run_aside(self, folder, tmp_path):
        train(folder, tmp_path, steps=2)
        before = kept_weights(tmp_path)
        train(folder, tmp_path, steps=2, seed=5, restart=True)
        aside = tmp_path / "model" / "old_fold_0_1"
        assert same(before, read_weights(aside / "model.safetensors")[0])
        assert not same(before, kept_weights(tmp_path))
        assert TrainedModel.open(tmp_path / "model").folds == ("0",)

    def test_more_steps_are_a_longer_run(self, folder, tmp_path):
        train(folder, tmp_path, steps=3)
        assert train(folder, tmp_path, steps=5).run.steps == 5

    @pytest.mark.slow
    def test_a_cnn_baseline_trains_goes_on_and_predicts(self, folder, tmp_path):
        train(folder, tmp_path, steps=1, network="plainconv")
        fold = train(folder, tmp_path, steps=2, network="plainconv")
        assert fold.run.steps == 2 and len(list(fold.predictions.glob("*.nii.gz"))) == len(fold.run.validation_cases)

    def test_folds_of_one_model_share_its_plans(self, folder, tmp_path):
        train(folder, tmp_path, steps=1)
        with pytest.raises(UserError, match="another network"):
            train(folder, tmp_path, fold="1", steps=1, norm="instance")


class TestCases:
    def test_all_trains_on_everything_and_keeps_the_last_weights(self, folder, tmp_path):
        judged = train_and_judge(folder, tmp_path, fold="all", config=config(steps=3), name="model")
        assert judged.fold.run.train_cases == tuple(f"ball_{i}" for i in range(6)) and judged.evaluation is None
        assert RunDescription.read(judged.fold.run_file).status == "done"
        assert TrainedModel.open(tmp_path / "model").folds == ("all",)

    def test_few_shots_are_nested(self, folder, tmp_path):
        two, three = (train(folder, tmp_path, steps=1, shots=n, name=f"shots{n}").run.train_cases for n in (2, 3))
        assert len(two) == 2 and set(two) < set(three)

    def test_one_case_trains_with_a_warning(self, tmp_path, caplog):
        folder = make_preprocessed(tmp_path, cases=1)
        judged = train_and_judge(folder, tmp_path / "results", fold="0", config=config(steps=2), name="model")
        assert "its Dice says nothing about other cases" in caplog.text
        assert judged.evaluation is not None

    @pytest.mark.slow
    def test_regions_are_learnt_and_written_in_their_order(self, tmp_path):
        labels = {"background": 0, "whole": [1, 2], "core": [2]}
        folder = make_preprocessed(tmp_path, labels=labels, regions_class_order=[1, 2])
        judged = train_and_judge(folder, tmp_path / "results", fold="0", config=LEARNS, name="model")
        assert min(RunDescription.read(judged.fold.run_file).final_dice.values()) > 0.6
        found = read_label(judged.fold.predictions / f"{judged.fold.run.validation_cases[0]}.nii.gz").array
        assert set(np.unique(found)) == {0, 1, 2}

    @pytest.mark.slow
    def test_unannotated_structures_enter_neither_loss_nor_dice(self, tmp_path):
        # The core is annotated in half of the cases; elsewhere its voxels say background.
        present = {f"ball_{i}": ["shell"] if i % 2 else ["shell", "core"] for i in range(6)}
        folder = make_preprocessed(tmp_path, labels_present=present)
        judged = train_and_judge(folder, tmp_path / "results", fold="0", config=LEARNS, name="model")
        validated = judged.fold.run.validation_cases
        with_core = [case for case in judged.evaluation.cases if "core" in case.metrics]
        assert len(with_core) == sum("core" in present[case_id] for case_id in validated)


class TestPretrainedEncoder:
    @pytest.fixture(scope="class")
    def encoder(self, folder, tmp_path_factory):
        """The encoder of another run, and its tensors."""
        results = tmp_path_factory.mktemp("pretrained")
        train(folder, results, steps=2, seed=7)
        tensors = kept_weights(results)
        return results / "model" / "fold_0" / "model.safetensors", of_the_encoder(tensors)

    @pytest.mark.slow
    def test_it_is_frozen_for_so_many_epochs_and_then_learns(self, folder, tmp_path, encoder):
        path, pretrained = encoder
        choices = {"init": str(path), "freeze_epochs": 2, "ema": 0.0}
        train(folder, tmp_path, steps=10, name="frozen", **choices)  # ten epochs of one step
        assert not same(pretrained, of_the_encoder(kept_weights(tmp_path, name="frozen")))
        train(folder, tmp_path, steps=10, name="waiting", **{**choices, "freeze_epochs": 10})
        waiting = kept_weights(tmp_path, name="waiting")
        assert same(pretrained, of_the_encoder(waiting))
        assert not torch.equal(waiting["head.weight"], kept_weights(tmp_path, name="frozen")["head.weight"])

    def test_the_same_encoder_may_lie_elsewhere_and_another_at_its_place_is_refused(self, folder, tmp_path, encoder):
        first, moved = tmp_path / "encoder.safetensors", tmp_path / "moved" / "encoder.safetensors"
        shutil.copyfile(encoder[0], first)
        train(folder, tmp_path, steps=1, init=str(first))
        moved.parent.mkdir()
        shutil.copyfile(first, moved)
        assert train(folder, tmp_path, steps=2, init=str(moved)).run.steps == 2
        tensors, metadata = read_weights(moved)
        write_weights(moved, {name: tensor + 1 for name, tensor in tensors.items()}, metadata=metadata)
        with pytest.raises(UserError, match=r"encoder\.safetensors has changed since the run"):
            train(folder, tmp_path, steps=3, init=str(moved))
        with pytest.raises(UserError, match="--init"):
            train(folder, tmp_path, steps=3)

    def test_low_rank_adaptation_changes_its_linear_layers_alone(self, folder, tmp_path, encoder):
        path, pretrained = encoder
        train(folder, tmp_path, steps=3, init=str(path), peft="lora", lora_rank=2, ema=0.0)
        found = of_the_encoder(kept_weights(tmp_path))
        assert found.keys() == pretrained.keys()
        changed = {name for name, tensor in found.items() if not torch.equal(tensor, pretrained[name])}
        linear = {n for n in found if n.endswith((".qkv.weight", ".proj.weight", ".fc1.weight", ".fc2.weight"))}
        assert changed == {name for name in linear if ".blocks." in name}
        assert all(torch.linalg.matrix_rank(found[n] - pretrained[n], rtol=1e-3) <= 2 for n in changed)

    @pytest.mark.parametrize("choice", [{"freeze_epochs": 1}, {"peft": "lora"}])
    def test_nothing_is_held_still_that_is_not_pretrained(self, folder, tmp_path, choice):
        with pytest.raises(UserError, match="Add --init ENCODER"):
            train(folder, tmp_path, steps=1, **choice)


def of_the_encoder(tensors):
    return {name: tensor for name, tensor in tensors.items() if name.startswith("encoder.")}


class TestRefusals:
    def test_a_fold_that_is_not_there(self, folder, tmp_path):
        with pytest.raises(UserError, match="has the folds 0 to 4"):
            train(folder, tmp_path, fold="9", steps=1)

    def test_too_many_shots(self, folder, tmp_path):
        with pytest.raises(UserError, match="Give 1 to"):
            train(folder, tmp_path, shots=50, steps=1)

    def test_an_encoder_that_does_not_exist(self, folder, tmp_path):
        with pytest.raises(UserError, match="no such file"):
            train(folder, tmp_path, steps=1, init=str(tmp_path / "nothing.safetensors"))

    def test_cases_made_with_other_plans(self, tmp_path):
        raw = write_raw(tmp_path / "raw" / NAME, cases=2)
        preprocess_dataset(raw, plans_for(raw), tmp_path / "out", workers=0)
        plans_for(raw, spacing=(2.0, 2.0, 2.0)).write(tmp_path / "out" / "swinsslPlans.json")
        with pytest.raises(UserError, match="made with other plans"):
            train(tmp_path / "out", tmp_path / "results", steps=1)

    def test_an_unknown_preset(self, folder, tmp_path):
        with pytest.raises(UserError, match="Did you mean small"):
            train(folder, tmp_path, steps=1, preset="smal")


def test_names_tell_runs_apart(folder):
    from swinssl.preprocessing.plans import Plans

    plans = Plans.read(folder)
    assert plans.network == TINY
    assert default_name(plans, config()) == "tiny__scratch"
    assert default_name(plans, config(seed=2, shots=5)) == "tiny__scratch__5shots__seed2"
    lora = config(init="encoders/simmim.safetensors", peft="lora")
    assert default_name(plans, lora) == "tiny__simmim__lora"
    assert default_name(plans, config(init="results/smit__100/encoder.safetensors")) == "tiny__smit__100"
