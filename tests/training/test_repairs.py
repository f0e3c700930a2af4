"""What is lost or damaged after training is made again by the same command, or a remedy that works is named."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from support.toy_dataset import NAME, make_preprocessed

from swinssl.core.errors import UserError
from swinssl.core.machine import out_of_memory_in_words
from swinssl.experiments.fine_tuned_fold import train_and_judge
from swinssl.inference.trained_model import TrainedModel
from swinssl.networks.checkpoints.weights_file import read_weights, write_weights
from swinssl.training.config import TrainingConfig
from swinssl.training.engine.run_description import RunDescription
from swinssl.training.fine_tuning import check_start, fine_tune
from swinssl.training.segmentation_task import SegmentationTask

pytestmark = pytest.mark.usefixtures("one_thread")


def config(**choices):
    return TrainingConfig(**{"device": "cpu", "precision": "fp32", "readers": 0, "steps": 2, **choices})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A workspace with a finished fold."""
    root = tmp_path_factory.mktemp("trained")
    make_preprocessed(root, cases=3)
    train_and_judge(root / "preprocessed" / NAME, root / "results", fold="0", config=config(), name="model")
    return root


@pytest.fixture
def root(trained, tmp_path):
    """A copy of it that a test may damage."""
    return shutil.copytree(trained, tmp_path / "work")


def again(root, **choices):
    """The same command, typed again."""
    restart = choices.pop("restart", False)
    folder = root / "preprocessed" / NAME
    return train_and_judge(folder, root / "results", fold="0", config=config(**choices), name="model", restart=restart)


def fold_of(root):
    return root / "results" / "model" / "fold_0"


def is_usable(root):
    """The model predicts, and the run says that it is done and measured."""
    TrainedModel.open(root / "results" / "model").networks(torch.device("cpu"))
    run = RunDescription.read(fold_of(root) / "run.json")
    return run.status == "done" and run.steps == 2 and bool(run.final_dice)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [cut, lambda path: path.unlink()], ids=["cut", "deleted"])
@pytest.mark.parametrize(
    "name", ["fold_0/model.safetensors", "swinsslPlans.json", "dataset.json", "fold_0/run.json", "fold_0/validation"]
)
def test_what_is_derived_is_made_again(root, name, damage):
    path = root / "results" / "model" / name
    damage(next(path.glob("*.nii.gz")) if path.is_dir() else path)
    again(root)
    assert is_usable(root)
    assert len(list((fold_of(root) / "validation").glob("*.nii.gz"))) >= 1


def test_lost_weights_are_those_of_the_last_checkpoint(root, caplog):
    before = read_weights(fold_of(root) / "model.safetensors")[0]
    (fold_of(root) / "model.safetensors").unlink()
    again(root)
    after = read_weights(fold_of(root) / "model.safetensors")[0]
    assert "the weights of the last step are kept" in caplog.text
    assert all(torch.equal(before[name], after[name]) for name in before)  # the last was the best here


def test_another_run_is_refused_though_run_json_is_gone(root):
    (fold_of(root) / "run.json").unlink()
    with pytest.raises(UserError, match=r"started with --seed 0 \(now 7\).*--restart"):
        again(root, seed=7)


def test_weights_of_which_nothing_is_known_are_kept(root):
    """As of an imported model: they are not overwritten, and the remedy works."""
    before = (fold_of(root) / "model.safetensors").read_bytes()
    (fold_of(root) / "run.json").unlink()
    shutil.rmtree(fold_of(root) / "checkpoints")
    with pytest.raises(UserError, match=r"--restart .* or choose another --name"):
        again(root)
    again(root, restart=True)
    assert (root / "results" / "model" / "old_fold_0_1" / "model.safetensors").read_bytes() == before
    assert is_usable(root)


def test_a_finished_fold_without_checkpoints_stays_and_is_not_extended(root):
    before = (fold_of(root) / "model.safetensors").read_bytes()
    shutil.rmtree(fold_of(root) / "checkpoints")
    assert again(root).fold.done_before
    with pytest.raises(UserError, match="cannot be extended"):
        again(root, steps=4)
    assert (fold_of(root) / "model.safetensors").read_bytes() == before


def test_a_label_that_changed_is_said_before_anything_is_trained(root):
    case = RunDescription.read(fold_of(root) / "run.json").validation_cases[0]
    cut(root / "preprocessed" / NAME / "gt_segmentations" / f"{case}.nii.gz")
    with pytest.raises(UserError, match=rf"{case}.nii.gz: not the label .* Run swinssl_preprocess {NAME}"):
        again(root)
    from swinssl.dataset.raw_dataset import RawDataset
    from swinssl.preprocessing.plans import Plans
    from swinssl.preprocessing.preprocess import preprocess_dataset

    folder = root / "preprocessed" / NAME
    preprocess_dataset(RawDataset.load(root / "raw" / NAME), Plans.read(folder), folder, workers=0)
    again(root)
    assert is_usable(root)


def test_length_patience_and_machine_may_change_and_are_no_other_plan(root):
    longer = again(root, epochs=1, steps=3, patience=7, precision="auto", recompute=True)
    assert longer.fold.run.steps == 3


def test_an_option_that_is_given_as_it_was_planned_is_no_change(root):
    with pytest.raises(UserError, match=r"no --lr \(now --lr 0.5\)"):
        again(root, lr=0.5)
    assert again(root, lr=0.02, batch_size=2).fold.done_before


def test_a_run_without_a_checkpoint_may_begin_with_other_options(root, monkeypatch):
    """So that what a message says of --lr works when it is typed."""
    fold = fold_of(root)
    with monkeypatch.context() as patch:
        patch.setattr(SegmentationTask, "after_step", lambda self, step, total: spoil(self.network))
        with pytest.raises(UserError, match="Lower --lr"):
            again(root, restart=True)
    run = RunDescription.read(fold / "run.json")
    assert run.status == "failed" and "Lower --lr" in run.failure and not list(fold.glob("checkpoints/*"))
    again(root, lr=0.001)
    assert is_usable(root)


def spoil(network):
    with torch.no_grad():
        next(network.parameters()).fill_(float("nan"))


def test_an_encoder_that_is_not_finite_is_named_and_leaves_no_folder(root, tmp_path):
    weights, _ = read_weights(fold_of(root) / "model.safetensors")
    weights = {
        name: torch.full_like(tensor, torch.nan) for name, tensor in weights.items() if name.startswith("encoder")
    }
    write_weights(tmp_path / "encoder.safetensors", weights, metadata={})
    results = tmp_path / "results"
    with pytest.raises(UserError) as error:
        fine_tune(
            root / "preprocessed" / NAME,
            results,
            fold="0",
            config=config(init=str(tmp_path / "encoder.safetensors")),
            name="new",
        )
    assert "encoder.safetensors" in str(error.value) and "--lr" not in str(error.value) and not results.exists()


@pytest.mark.parametrize("choices", [{"seed": 7}, {"shots": 100}, {"init": "nowhere.safetensors"}])
def test_a_dry_run_refuses_what_the_run_refuses_and_writes_nothing(root, choices):
    def files():
        return {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}

    before = files()
    said = []
    for start in (check_start, fine_tune):
        with pytest.raises(UserError) as error:
            start(root / "preprocessed" / NAME, root / "results", fold="0", config=config(**choices), name="model")
        said.append(str(error.value))
    assert said[0] == said[1]
    assert {path for path in files() if not path.name.startswith(".lock")} <= before.keys()


def test_out_of_memory_names_options_that_need_less(root, monkeypatch):
    def too_much(self, inputs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nMuch advice.")

    monkeypatch.setattr(SegmentationTask, "step", too_much)
    with pytest.raises(UserError) as error:
        again(root, steps=4)
    said = str(error.value)
    assert "Tried to allocate 20.00 GiB" in said and "Much advice" not in said
    assert "--recompute" in said and "--batch-size 1" in said and "with --restart" in said
    assert RunDescription.read(fold_of(root) / "run.json").status == "failed"
    with pytest.raises(KeyError), out_of_memory_in_words("here", "Buy some."):
        raise KeyError("a bug stays one")


def test_a_run_far_short_of_its_plan_says_so():
    run = RunDescription.model_construct(steps=49, planned_steps=100, config=config(max_minutes=5))
    assert run.shortfall.startswith("warning: ") and "49 of 100" in run.shortfall and "--max-minutes" in run.shortfall
    assert run.model_copy(update={"steps": 50}).shortfall is None


@pytest.mark.parametrize("rate", [float("inf"), float("nan"), 1e38])
def test_rates_beyond_all_numbers_are_refused(rate):
    with pytest.raises(ValueError, match="lr"):
        config(lr=rate)


def test_checkpoints_say_whose_they_are(root):
    manifest = json.loads(next(fold_of(root).glob("checkpoints/*/manifest.json")).read_text())
    assert RunDescription.model_validate(manifest["run"]).fold == "0"
