"""The cells of a benchmark: each once, whoever runs them; what fails or was done otherwise is said."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
from support.toy_dataset import NAME, write_raw

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.core.locks import FileLock
from swinssl.core.workspace import Workspace
from swinssl.experiments.benchmark import run as benchmark_run
from swinssl.experiments.benchmark.cells import PretrainingCell
from swinssl.experiments.benchmark.config import BenchmarkConfig
from swinssl.experiments.benchmark.image_hashes import hashes_of
from swinssl.experiments.benchmark.run import run_cells
from swinssl.experiments.benchmark.study import Benchmark

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


class TestDamage:
    """A result that is not as it was when its cell was done is named, and made again or refused."""

    KEY = "cells/balls/scratch/2shots/seed0"

    @pytest.fixture
    def ran(self, monkeypatch):
        """As above, with a table of scores."""
        times = Counter()

        def run(benchmark, cell, log):
            times[cell.key] += 1
            place = benchmark.place(cell)
            if isinstance(cell, PretrainingCell):
                files.write_bytes(place / "run" / "encoder.safetensors", b"weights")
                files.write_json(place / "run" / "run.json", {"version": 1})
            else:
                files.write_text(place / "scores.csv", "model,case,structure,Dice\nscratch,ball_1,core,0.5\n")
            benchmark.keep(cell, minutes=1.0, steps=1)

        monkeypatch.setattr(benchmark_run, "_run", run)
        return times

    @pytest.mark.parametrize(
        "damage",
        [
            lambda path: path.unlink(),
            lambda path: path.write_bytes(b""),
            lambda path: path.write_bytes(path.read_bytes().replace(b"scratch,", b"scrauch,")),
        ],
        ids=["deleted", "empty", "flipped"],
    )
    @pytest.mark.parametrize("hashes", [True, False], ids=["", "of the first version"])
    def test_scores_are_made_again(self, workspace, tmp_path, ran, caplog, damage, hashes):
        toys = toy(workspace, tmp_path)
        run_cells(toys, toys.cells, say=silent)
        record = tmp_path / self.KEY / "cell.json"
        if not hashes:
            known = json.loads(record.read_text())
            del known["files"], known["sha256"]
            record.write_text(json.dumps(known))
        scores = tmp_path / self.KEY / "scores.csv"
        damage(scores)
        if not hashes and scores.exists() and scores.read_bytes():
            return  # a table like any other, for who has no hash
        again = toy(workspace, tmp_path)
        run_cells(again, again.cells, say=silent)
        assert ran[self.KEY] == 2 and sum(ran.values()) == 10
        assert f"{scores} is missing or was changed after {self.KEY} was done" in caplog.text

    @pytest.mark.parametrize("text", ["", "[]", '{"settings": {}}', None])
    def test_a_damaged_record_is_refused_and_its_remedy_works(self, workspace, tmp_path, ran, text):
        toys = toy(workspace, tmp_path)
        run_cells(toys, toys.cells, say=silent)
        record = tmp_path / self.KEY / "cell.json"
        record.write_text(record.read_text().replace('"minutes": 1.0', '"minutes": 9.0') if text is None else text)
        with pytest.raises(UserError, match=r"cell\.json: .* Delete it"):
            run_cells(toys, toys.cells, say=silent)
        record.unlink()
        run_cells(toys, toys.cells, say=silent)
        assert ran[self.KEY] == 2 and sum(ran.values()) == 10

    def test_an_encoder_that_was_changed_is_refused_and_its_remedies_work(self, workspace, tmp_path, ran):
        toys = toy(workspace, tmp_path)
        run_cells(toys, toys.cells, say=silent)
        place = tmp_path / "pretraining" / "smit"
        (place / "run" / "encoder.safetensors").write_bytes(b"weighty")
        with pytest.raises(UserError, match=r"encoder\.safetensors: not the encoder that pretraining/smit made"):
            run_cells(toys, toys.cells, say=silent)
        (place / "run" / "encoder.safetensors").write_bytes(b"weights")
        assert len(run_cells(toys, toys.cells, say=silent).done) == 9
        shutil.rmtree(place)
        assert len(run_cells(toys, toys.cells, say=silent).done) == 9 and ran["pretraining/smit"] == 2

    def test_an_encoder_replaced_between_seeds_is_refused(self, workspace, tmp_path, ran):
        encoder = tmp_path / "mine.safetensors"
        encoder.write_bytes(b"one")
        out, inits = tmp_path / "out", {"given": {"encoder": str(encoder)}}
        first = toy(workspace, out, inits=inits, seeds=[0])
        run_cells(first, first.cells, say=silent)
        encoder.write_bytes(b"two")
        both = toy(workspace, out, inits=inits)
        with pytest.raises(UserError, match=r"seed0/cell\.json: this cell was done with another encoder"):
            run_cells(both, both.cells, say=silent)
        encoder.write_bytes(b"one")
        assert len(run_cells(both, both.cells, say=silent).done) == 2


@pytest.mark.skipif(os.name == "nt", reason="POSIX")
def test_an_encoder_that_is_no_file_is_refused_before_anything_runs(workspace, tmp_path, ran):
    os.mkfifo(tmp_path / "pipe.safetensors")
    for encoder in (tmp_path / "pipe.safetensors", tmp_path):
        toys = toy(workspace, tmp_path / "out", inits={"given": {"encoder": str(encoder)}})
        with pytest.raises(UserError, match="encoder file"):
            toys.refuse_leaks()  # what --dry-run calls
    assert not ran


@pytest.mark.skipif(os.name == "nt", reason="POSIX locks")
def test_a_command_that_outlives_its_killed_parent_is_waited_for(tmp_path):
    """A second process takes the lock of a cell only when the command of the first one has ended too."""
    works, ended = tmp_path / "works", tmp_path / "ended"
    child = (
        "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); time.sleep(1.5); "
        "pathlib.Path(sys.argv[2]).touch()"
    )
    parent = (
        "import sys\nfrom pathlib import Path\nfrom swinssl.core.locks import FileLock\n"
        "from swinssl.experiments.benchmark.commands import run\n"
        f"lock = FileLock(Path({str(tmp_path / '.lock')!r}), for_children=True)\nlock.take()\n"
        f"run([sys.executable, '-c', {child!r}, {str(works)!r}, {str(ended)!r}])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", parent])
    patience = time.monotonic() + 60
    while not works.exists():
        assert process.poll() is None and time.monotonic() < patience
        time.sleep(0.02)
    process.kill()
    process.wait()
    lock = FileLock(tmp_path / ".lock")
    assert not lock.take()
    assert lock.take(wait=30.0) and ended.exists()
    lock.release()
