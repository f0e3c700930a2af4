"""The disk is full in the middle of a command: one message, exit 2, what was there is whole, and it goes on later."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.full_disk import disk_that_takes
from support.made_models import make_plans, smooth_noise, write_model
from support.raw_folders import GRID, ct, make_raw
from support.toy_dataset import NAME, make_preprocessed

from swinssl.core import files
from swinssl.imageio.reader import read_label
from swinssl.imageio.volume import Geometry
from swinssl.imageio.writer import write_volume
from swinssl.preprocessing.store import PreprocessedDataset
from swinssl.training.engine.checkpoint import load_checkpoint

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no limit on the size of files")

REMEDY = "ree some space"


def unfinished(folder):
    return list(folder.rglob(f"{files.PREFIX}*"))


def noise(shape):
    return np.random.default_rng(0).random(shape, dtype=np.float32)


WRITERS = {
    "weights": (".safetensors", lambda path: save_file({"a": torch.from_numpy(noise((20, 20, 20)))}, path)),
    "state": (".pt", lambda path: torch.save({"a": torch.from_numpy(noise((20, 20, 20)))}, path)),
    "text": (".json", lambda path: path.write_text("x" * 30_000)),
}


@pytest.mark.parametrize("most", [0, 100, 20_000])
@pytest.mark.parametrize("what", WRITERS)
def test_each_library_meets_it_in_the_same_words_and_the_old_file_stays(tmp_path, what, most):
    ending, write = WRITERS[what]
    path = tmp_path / f"file{ending}"
    path.write_text("old")
    with pytest.raises(OSError) as error, disk_that_takes(most), files.atomic_path(path) as temporary:
        write(temporary)
    assert error.value.filename == str(path) and error.value.strerror == "File too large"
    assert path.read_text() == "old" and not unfinished(tmp_path)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_no_label_map_is_written_in_part(tmp_path, ending):
    path = tmp_path / f"map{ending}"
    array = (noise((20, 30, 40)) * 1000).astype(np.int16)
    with pytest.raises(OSError, match="File too large"), disk_that_takes(9000):
        write_volume(path, array, Geometry.from_parts(array.shape, spacing=(1, 1, 1)))
    assert list(tmp_path.iterdir()) == []


# Bytes at which a run of the toy network fails: its log and description, its weights, the state of its optimiser.
@pytest.mark.parametrize("most", [300, 1_000_000, 13_380_000])
@pytest.mark.slow
def test_training(tmp_path, typed, most):
    make_preprocessed(tmp_path, cases=2)

    def train(steps):
        arguments = ("--name", "toy", "--steps", steps, "--device", "cpu", "--readers", 0, "--root", tmp_path)
        return typed("train", NAME, *arguments)

    fold = tmp_path / "results" / NAME / "toy" / "fold_0"
    assert train(10).code == 0
    before, kept = load_checkpoint(fold / "checkpoints"), files.sha256_of(fold / "model.safetensors")
    assert before.step == 10
    with disk_that_takes(most):
        done = train(20)
    assert done.code == 2 and str(fold) in done.error and REMEDY in done.error
    assert not unfinished(fold)
    after = load_checkpoint(fold / "checkpoints")
    assert after.step == 10 and all(torch.equal(after.weights[name], before.weights[name]) for name in before.weights)
    if most < 1_000_000:
        assert files.sha256_of(fold / "model.safetensors") == kept
    assert train(20).code == 0 and load_checkpoint(fold / "checkpoints").step == 20


@pytest.mark.parametrize("most", [300, 900])
def test_preprocessing(tmp_path, typed, most, caplog):
    make_raw(tmp_path / "raw" / "Dataset007_Toy")
    usual = ("7", "--root", tmp_path, "--device", "cpu", "--workers", 0)
    assert typed("plan", *usual).code == 0
    stored = tmp_path / "preprocessed" / "Dataset007_Toy"
    plans = (stored / "swinsslPlans.json").read_text()
    again = ("7", "--root", tmp_path, "--workers", 0)
    with disk_that_takes(most):
        done = typed("preprocess", *again)
    assert done.code == 2 and (REMEDY in done.error or REMEDY in caplog.text), done
    assert (stored / "swinsslPlans.json").read_text() == plans and not unfinished(stored)
    done = typed("preprocess", *again)
    assert done.code == 0 and "3 preprocessed" in done.out
    cases = PreprocessedDataset.open(stored)
    assert all(cases.case(name).is_intact() for name in cases.case_ids)


# Bytes at which one of its files fails: record, description of the data set, label maps.
@pytest.mark.parametrize("most", [50, 600, 2300])
def test_prediction(tmp_path, typed, most, caplog):
    model = write_model(tmp_path / "model", make_plans())
    shape = (30, 34, 38)
    for name in "ab":
        image = smooth_noise(shape, seed=ord(name))
        grid = Geometry.from_parts(shape, spacing=(1, 1, 1))
        write_volume(tmp_path / "images" / f"{name}_0000.nii.gz", image, grid)
    predict = ("-i", tmp_path / "images", "-o", tmp_path / "out", "-m", model, "--device", "cpu")
    with disk_that_takes(most):
        done = typed("predict", *predict)
    assert done.code == 2 and "File too large" in done.error + caplog.text, done
    assert not unfinished(tmp_path)
    assert all(read_label(path).array.shape == shape for path in (tmp_path / "out").glob("*.nii.gz"))
    assert typed("predict", *predict).code == 0
    assert {path.name for path in (tmp_path / "out").glob("*.nii.gz")} == {"a.nii.gz", "b.nii.gz"}
    assert json.loads((tmp_path / "out" / "predict_args.json").read_text())


def test_exporting_a_model(tmp_path, typed):
    model, archive = write_model(tmp_path / "model", make_plans()), tmp_path / "model.zip"
    with disk_that_takes(100_000):
        done = typed("model", "export", model, "--out", archive)
    assert done.code == 2 and REMEDY in done.error and str(archive) in done.error
    assert not archive.exists() and not unfinished(tmp_path)
    assert typed("model", "export", model, "--out", archive).code == 0


def test_the_image_that_is_there_stays(tmp_path):
    path = tmp_path / "image.nii.gz"
    write_volume(path, ct(), GRID)
    before = path.read_bytes()
    with pytest.raises(OSError), disk_that_takes(100):
        write_volume(path, ct(1), GRID)
    assert path.read_bytes() == before
