"""The cells of a benchmark: each once, whoever runs them; what fails or was done otherwise is said."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import threading
from collections import Counter

import pytest
from toy_dataset import NAME, write_raw

from swinssl import files
from swinssl.errors import UserError
from swinssl.experiments import benchmark_run
from swinssl.experiments.benchmark import Benchmark
from swinssl.experiments.benchmark_config import BenchmarkConfig
from swinssl.experiments.benchmark_run import run_cells
from swinssl.experiments.cells import PretrainingCell
from swinssl.experiments.image_hashes import hashes_of
from swinssl.workspace import Workspace

CONFIG = {
    "name": "toy",
    "seeds": [0, 1],
    "cka": False,
    "pretraining": {"datasets": ["Unlabelled"]},
    "inits": {"scratch": {"start": "scratch"}, "smit": {"method": "smit"}, "own": {"method": "dino", "per_seed": True}},
    "tasks": {"balls": {"dataset": NAME, "test": 2, "validation": 1, "shots": [2]}},
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    write_raw(root / "raw" / NAME)
    write_raw(root / "raw" / "Dataset002_Unlabelled", cases=1)
    for image in (root / "raw" / "Dataset002_Unlabelled" / "imagesTr").iterdir():
        shutil.copy(root / "raw" / NAME / "dataset.json", image)  # other content than any image of the task
    return Workspace(root)


def toy(workspace, out, **changes):
    return Benchmark(BenchmarkConfig.model_validate({**CONFIG, **changes}), out, workspace, device="cpu")


@pytest.fixture
def ran(monkeypatch):
    """How often each cell was run; nothing is trained."""
    times = Counter()

    def run(benchmark, cell, log):
        times[cell.key] += 1
        benchmark.keep(cell, minutes=1.0, steps=1)

    monkeypatch.setattr(benchmark_run, "_run", run)
    return times


def silent(_):
    pass


def test_every_cell_runs_once_and_a_second_call_runs_nothing(workspace, tmp_path, ran):
    toys = toy(workspace, tmp_path)
    outcome = run_cells(toys, toys.cells, say=silent)
    assert set(outcome.done) == {cell.key for cell in toys.cells} and len(outcome.done) == 1 + 2 + 6
    run_cells(toy(workspace, tmp_path), toys.cells, say=silent)
    assert set(ran.values()) == {1} and len(ran) == 9


def test_encoders_are_compared_after_they_were_trained_and_for_one_seed(workspace, tmp_path, ran):
    toys = toy(workspace, tmp_path, cka=["--crops", "8"])
    run_cells(toys, toys.cells, say=silent)
    compared = [key for key in ran if key.startswith("cka/")]
    assert compared == ["cka/balls/smit/2shots/seed0", "cka/balls/own/2shots/seed0"]
    assert [*ran].index("cells/balls/own/2shots/seed0") < [*ran].index(compared[1])
    with pytest.raises(UserError, match="another cka"):
        run_cells(other := toy(workspace, tmp_path, cka=["--crops", "9"]), other.cells, say=silent)


def test_two_at_once_share_the_cells(workspace, tmp_path, monkeypatch):
    times, both = Counter(), threading.Barrier(2, timeout=20)

    def run(benchmark, cell, log):
        times[cell.key] += 1
        if isinstance(cell, PretrainingCell) and cell.seed is not None:
            both.wait()  # is passed only if the other one is at a cell too
        benchmark.keep(cell, minutes=1.0, steps=1)

    monkeypatch.setattr(benchmark_run, "_run", run)
    toys = toy(workspace, tmp_path)
    outcomes = []
    threads = [
        threading.Thread(target=lambda: outcomes.append(run_cells(toys, toys.cells, say=silent, pause=0.02)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert set(times.values()) == {1} and len(times) == 9
    assert [len(outcome.done) for outcome in outcomes] == [9, 9]


def test_a_failed_cell_takes_only_those_that_need_it_along_and_is_tried_again(workspace, tmp_path, ran, monkeypatch):
    run, toys = benchmark_run._run, toy(workspace, tmp_path, plan_for="smit")

    def fails(benchmark, cell, log):
        if cell.key == "pretraining/own/seed1":
            raise subprocess.CalledProcessError(1, ["swinssl_pretrain_dino"])
        run(benchmark, cell, log)

    monkeypatch.setattr(benchmark_run, "_run", fails)
    outcome = run_cells(toys, toys.cells, say=silent)
    assert (
        list(outcome.failed) == ["pretraining/own/seed1"] and "exit code 1" in outcome.failed["pretraining/own/seed1"]
    )
    assert outcome.left_out == ("cells/balls/own/2shots/seed1",)
    assert len(outcome.done) == 7
    monkeypatch.setattr(benchmark_run, "_run", run)
    assert len(run_cells(toys, toys.cells, say=silent).done) == 9 and set(ran.values()) == {1}


def test_a_stop_leaves_what_is_done(workspace, tmp_path, ran, monkeypatch):
    run, toys = benchmark_run._run, toy(workspace, tmp_path)

    def stopped(benchmark, cell, log):
        if len(ran) == 4:
            raise KeyboardInterrupt
        run(benchmark, cell, log)

    monkeypatch.setattr(benchmark_run, "_run", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_cells(toys, toys.cells, say=silent)
    monkeypatch.setattr(benchmark_run, "_run", run)
    run_cells(toys, toys.cells, say=silent)
    assert set(ran.values()) == {1} and len(ran) == 9


def test_other_settings_than_those_of_what_is_done_are_refused(workspace, tmp_path, ran):
    toys = toy(workspace, tmp_path)
    run_cells(toys, toys.cells, say=silent)
    task = {**CONFIG["tasks"]["balls"], "train": ["--steps", "9"]}
    other = toy(workspace, tmp_path, tasks={"balls": task})
    with pytest.raises(UserError, match="another task"):
        run_cells(other, other.cells, say=silent)
    more = toy(workspace, tmp_path, seeds=[0, 1, 2], tasks={"balls": {**CONFIG["tasks"]["balls"], "shots": [2, 3]}})
    run_cells(more, more.cells, say=silent)
    assert set(ran.values()) == {1} and len(ran) == 1 + 3 + 3 * 3 * 2


def test_pretraining_on_a_test_case_is_refused_before_anything_runs(workspace, tmp_path, ran):
    toys = toy(workspace, tmp_path, pretraining={"datasets": [NAME]})
    with pytest.raises(UserError, match=r"inits\.smit: .* test case ball_"):
        run_cells(toys, toys.cells, say=silent)
    assert not ran


def test_an_encoder_whose_run_knows_a_test_case_is_refused(workspace, tmp_path, ran):
    encoder = tmp_path / "encoder.safetensors"
    encoder.write_bytes(b"weights")
    image = next((workspace.root / "raw" / NAME / "imagesTr").glob("ball_3*"))
    known = {"elsewhere/scan": {"image_0000": files.sha256_of(image)}}
    (tmp_path / "run.json").write_text(json.dumps({"version": 1, "image_sha256": known}))
    tasks = {"balls": {**CONFIG["tasks"]["balls"], "test": ["ball_3"]}}
    toys = toy(workspace, tmp_path / "out", inits={"given": {"encoder": str(encoder)}}, tasks=tasks)
    with pytest.raises(UserError, match=r"inits\.given: .* elsewhere/scan, which is test case ball_3"):
        run_cells(toys, toys.cells, say=silent)


def test_images_are_hashed_again_only_where_they_changed(tmp_path, monkeypatch):
    image = tmp_path / "scan.nii.gz"
    image.write_bytes(b"one")
    first = hashes_of([image, tmp_path / "missing"], tmp_path)
    assert first == {image: hashlib.sha256(b"one").hexdigest()}
    monkeypatch.setattr(files, "sha256_of", lambda _: pytest.fail("hashed again"))
    assert hashes_of([image], tmp_path) == first
    monkeypatch.undo()
    image.write_bytes(b"another")
    assert hashes_of([image], tmp_path) == {image: hashlib.sha256(b"another").hexdigest()}
