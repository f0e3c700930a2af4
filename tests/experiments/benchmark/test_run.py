"""The cells of a benchmark: each once, whoever runs them; what fails or was done otherwise is said."""

from __future__ import annotations

import gzip
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
from swinssl.core.text import csv_text
from swinssl.core.workspace import Workspace
from swinssl.evaluation.comparison.score_files import read_scores
from swinssl.experiments.benchmark import run as benchmark_run
from swinssl.experiments.benchmark.cells import PretrainingCell
from swinssl.experiments.benchmark.config import BenchmarkConfig
from swinssl.experiments.benchmark.result_tables import record_hash
from swinssl.experiments.benchmark.run import run_cells
from swinssl.experiments.benchmark.study import Benchmark, hashes_of

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


def toy(workspace, out, results=None, **changes):
    config = BenchmarkConfig.model_validate({**CONFIG, **changes})
    return Benchmark(config, out, workspace, device="cpu", results=results)


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


KEY = "cells/balls/scratch/2shots/seed0"


def rows_of(cell, dice="0.5"):
    names = ("model", "seed", "task", "shots", "case", "structure", "Dice")
    return [dict(zip(names, (cell.init, str(cell.seed), cell.task, "2", "ball_1", "core", dice), strict=True))]


@pytest.fixture
def ran_with_results(monkeypatch):
    """As `ran`, with encoders and scores."""
    times = Counter()

    def run(benchmark, cell, log):
        times[cell.key] += 1
        place = benchmark.place(cell)
        if isinstance(cell, PretrainingCell):
            files.write_bytes(place / "run" / "encoder.safetensors", b"weights")
            files.write_json(place / "run" / "run.json", {"version": 1})
            benchmark.keep(cell, minutes=1.0, steps=1)
        else:
            files.write_text(place / "evaluation" / "metrics.csv", "case,structure,Dice\nball_1,core,0.5\n")
            benchmark.keep(cell, rows_of(cell), minutes=1.0, steps=1)

    monkeypatch.setattr(benchmark_run, "_run", run)
    return times


def as_of_the_first_version(toys, *, hashes=True):
    """Put the results of all cells into their folders, as 0.1.0 kept them, and remove the tables."""
    for cell in toys.cells:
        record = {name: value for name, value in toys.tables.records()[cell.key].items() if name not in OF_TABLES}
        if not isinstance(cell, PretrainingCell):
            path = toys.place(cell) / "scores.csv"
            files.write_text(path, csv_text(rows_of(cell)))
            record["files"] = {"scores.csv": files.sha256_of(path)}
        if hashes:
            record["sha256"] = record_hash(record)
        else:
            del record["files"]
        files.write_json(toys.place(cell) / "cell.json", record)
    for path in (toys.tables.cells_path, toys.tables.scores_path):
        path.unlink()


OF_TABLES = ("scores", "mean_dice", "sha256")


class TestTables:
    """Results are the two tables; the folders of cells may go."""

    def test_a_benchmark_resumes_from_its_tables_alone(self, workspace, tmp_path, ran_with_results, caplog):
        toys = toy(workspace, tmp_path / "here")
        run_cells(toys, toys.cells, say=silent)
        tables = {path.name: path.read_bytes() for path in (toys.tables.cells_path, toys.tables.scores_path)}
        there = tmp_path / "there"
        for name, content in tables.items():
            files.write_bytes(there / name, content)
        moved = toy(workspace, there)
        assert len(run_cells(moved, moved.cells, say=silent).done) == 9 and set(ran_with_results.values()) == {1}
        assert {path.name: path.read_bytes() for path in (moved.tables.cells_path, moved.tables.scores_path)} == tables
        fewer = toy(workspace, there, seeds=[0], plan_for=None)
        run_cells(fewer, fewer.cells, say=silent)
        files.write_bytes(there / "pretraining" / "smit" / "run" / "encoder.safetensors", b"weights")
        more = toy(workspace, there, seeds=[0, 1, 2])
        run_cells(more, more.cells, say=silent)  # the third seed of each, and one pretraining
        assert sum(ran_with_results.values()) == 9 + 4 and len(more.tables.records()) == 9 + 4
        assert not caplog.text

    def test_tables_may_be_apart_from_the_folders(self, workspace, tmp_path, ran_with_results):
        toys = toy(workspace, tmp_path / "here", results=tmp_path / "study")
        run_cells(toys, toys.cells, say=silent)
        assert (tmp_path / "study" / "cells.csv").is_file() and not (tmp_path / "here" / "cells.csv").exists()
        table = read_scores([str(tmp_path / "study" / "scores.csv.gz")])
        assert set(table.models) == {"scratch", "smit", "own"} and len(table.scores) == 6

    def test_a_kill_between_the_two_tables_costs_one_cell(self, workspace, tmp_path, ran_with_results, monkeypatch):
        toys, write = toy(workspace, tmp_path), files.write_text

        def killed(path, text, **how):
            if path.name == "cells.csv" and KEY in text:
                raise KeyboardInterrupt
            write(path, text, **how)

        monkeypatch.setattr(files, "write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            run_cells(toys, toys.cells, say=silent)
        monkeypatch.setattr(files, "write_text", write)
        again = toy(workspace, tmp_path)
        assert again.tables.scores(KEY) and KEY not in again.tables.records()
        run_cells(again, again.cells, say=silent)
        assert ran_with_results[KEY] == 2 and sum(ran_with_results.values()) == 10
        assert len(again.tables.scores(KEY)) == 1

    @pytest.mark.parametrize("damage", ["gone", "changed"])
    def test_missing_and_changed_scores_are_made_again(self, workspace, tmp_path, ran_with_results, caplog, damage):
        toys = toy(workspace, tmp_path)
        run_cells(toys, toys.cells, say=silent)
        path = toys.tables.scores_path
        lines = gzip.decompress(path.read_bytes()).decode().splitlines()
        index = next(i for i, line in enumerate(lines) if line.startswith("scratch,0"))
        lines[index] = lines[index].replace("0.5", "0.9")
        kept = lines[:index] + lines[index + (damage == "gone") :]
        path.write_bytes(gzip.compress("\n".join([*kept, ""]).encode()))
        again = toy(workspace, tmp_path)
        run_cells(again, again.cells, say=silent)
        assert ran_with_results[KEY] == 2 and sum(ran_with_results.values()) == 10
        assert f"{path}: the scores of {KEY} are missing or were changed" in caplog.text

    def test_a_changed_row_is_refused_and_its_remedy_works(self, workspace, tmp_path, ran_with_results):
        toys = toy(workspace, tmp_path)
        run_cells(toys, toys.cells, say=silent)
        path = toys.tables.cells_path
        lines = path.read_text().splitlines()
        index = next(i for i, line in enumerate(lines) if line.startswith(KEY))
        path.write_text("\n".join([*lines[:index], lines[index].replace(",1.0,", ",9.0,"), *lines[index + 1 :], ""]))
        with pytest.raises(UserError, match=rf"cells\.csv: the row of cell '{KEY}' was changed .* delete this row"):
            run_cells(toys, toys.cells, say=silent)
        path.write_text("\n".join([*lines[:index], *lines[index + 1 :], ""]))
        run_cells(toys, toys.cells, say=silent)
        assert ran_with_results[KEY] == 2 and sum(ran_with_results.values()) == 10

    @pytest.mark.parametrize("name", ["cells.csv", "scores.csv.gz"])
    @pytest.mark.parametrize("content", [b"", b"\x1f\x8b\x08", b"a,b\n1\n", bytes(range(256))])
    def test_a_table_that_cannot_be_read_is_named(self, workspace, tmp_path, ran_with_results, name, content):
        toys = toy(workspace, tmp_path)
        run_cells(toys, toys.cells[:3], say=silent)
        (tmp_path / name).write_bytes(content)
        try:
            run_cells(toy(workspace, tmp_path), toys.cells[:3], say=silent)
        except UserError as error:
            assert name in str(error) and "delete it" in str(error)
            (tmp_path / name).unlink()
            run_cells(toy(workspace, tmp_path), toys.cells[:3], say=silent)
        assert len(toys.tables.records()) == 3

    def test_other_files_in_the_folder_of_a_cell_are_named(self, workspace, tmp_path, ran_with_results, caplog):
        toys = toy(workspace, tmp_path)
        run_cells(toys, toys.cells, say=silent)
        metrics = tmp_path / KEY / "evaluation" / "metrics.csv"
        metrics.write_text("case,structure,Dice\nball_1,core,0.9\n")
        run_cells(again := toy(workspace, tmp_path), again.cells, say=silent)
        assert f"{metrics} was changed after {KEY} was done" in caplog.text and "take precedence" in caplog.text
        assert set(ran_with_results.values()) == {1}

    def test_an_encoder_that_was_changed_is_refused_and_its_remedies_work(self, workspace, tmp_path, ran_with_results):
        toys = toy(workspace, tmp_path)
        run_cells(toys, toys.cells, say=silent)
        place = tmp_path / "pretraining" / "smit"
        (place / "run" / "encoder.safetensors").write_bytes(b"weighty")
        with pytest.raises(UserError, match=r"encoder\.safetensors: not the encoder that pretraining/smit made"):
            run_cells(toys, toys.cells, say=silent)
        (place / "run" / "encoder.safetensors").write_bytes(b"weights")
        assert len(run_cells(toys, toys.cells, say=silent).done) == 9
        shutil.rmtree(place)
        more = toy(workspace, tmp_path, seeds=[0, 1, 2])
        with pytest.raises(UserError, match=r"is missing, and .* delete the row of pretraining/smit"):
            run_cells(more, more.cells, say=silent)
        path = toys.tables.cells_path
        path.write_text("".join(line for line in path.read_text().splitlines(True) if "pretraining/smit" not in line))
        assert len(run_cells(toys, toys.cells, say=silent).done) == 9 and ran_with_results["pretraining/smit"] == 2

    def test_an_encoder_replaced_between_seeds_is_refused(self, workspace, tmp_path, ran_with_results):
        encoder = tmp_path / "mine.safetensors"
        encoder.write_bytes(b"one")
        out, inits = tmp_path / "out", {"given": {"encoder": str(encoder)}}
        first = toy(workspace, out, inits=inits, seeds=[0])
        run_cells(first, first.cells, say=silent)
        encoder.write_bytes(b"two")
        both = toy(workspace, out, inits=inits)
        with pytest.raises(UserError, match=r"cells\.csv: cell .*seed0 was run with another encoder"):
            run_cells(both, both.cells, say=silent)
        encoder.write_bytes(b"one")
        assert len(run_cells(both, both.cells, say=silent).done) == 2


class TestFirstVersion:
    """Folders of 0.1.0 have the result of each cell in files of its own."""

    @pytest.mark.parametrize("hashes", [True, False], ids=["", "without hashes"])
    def test_its_results_move_into_the_tables(self, workspace, tmp_path, ran_with_results, hashes):
        toys = toy(workspace, tmp_path)
        run_cells(toys, toys.cells, say=silent)
        as_of_the_first_version(toys, hashes=hashes)
        again = toy(workspace, tmp_path)
        assert len(run_cells(again, again.cells, say=silent).done) == 9 and set(ran_with_results.values()) == {1}
        assert len(again.tables.records()) == 9 and [row["Dice"] for row in again.tables.scores(KEY)] == ["0.5"]
        for path in tmp_path.rglob("cell.json"):
            path.unlink()
        last = toy(workspace, tmp_path)
        assert len(run_cells(last, last.cells, say=silent).done) == 9 and set(ran_with_results.values()) == {1}

    @pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"")])
    def test_damaged_scores_are_made_again(self, workspace, tmp_path, ran_with_results, caplog, damage):
        toys = toy(workspace, tmp_path)
        run_cells(toys, toys.cells, say=silent)
        as_of_the_first_version(toys)
        damage(tmp_path / KEY / "scores.csv")
        again = toy(workspace, tmp_path)
        run_cells(again, again.cells, say=silent)
        assert ran_with_results[KEY] == 2 and sum(ran_with_results.values()) == 10
        assert f"scores.csv is missing or was changed after {KEY} was done" in caplog.text
        assert not (tmp_path / KEY / "cell.json").exists()

    @pytest.mark.parametrize("text", ["", "[]", '{"settings": {}}', None])
    def test_a_damaged_record_is_refused_and_its_remedy_works(self, workspace, tmp_path, ran_with_results, text):
        toys = toy(workspace, tmp_path)
        run_cells(toys, toys.cells, say=silent)
        as_of_the_first_version(toys)
        record = tmp_path / KEY / "cell.json"
        record.write_text(record.read_text().replace('"minutes": 1.0', '"minutes": 9.0') if text is None else text)
        with pytest.raises(UserError, match=r"cell\.json: .* Delete it"):
            run_cells(toys, toys.cells, say=silent)
        record.unlink()
        run_cells(toys, toys.cells, say=silent)
        assert ran_with_results[KEY] == 2 and sum(ran_with_results.values()) == 10

    def test_a_folder_that_disagrees_with_the_tables_is_named(self, workspace, tmp_path, ran_with_results):
        toys = toy(workspace, tmp_path)
        run_cells(toys, toys.cells, say=silent)
        record = {"settings": toys.tables.records()[KEY]["settings"], "minutes": 7.0, "steps": 1, "ended": "earlier"}
        files.write_json(tmp_path / KEY / "cell.json", record)
        with pytest.raises(UserError, match=rf"cell\.json: says something else about {KEY} than .*cells\.csv"):
            run_cells(toys, toys.cells, say=silent)
        (tmp_path / KEY / "cell.json").unlink()
        assert len(run_cells(toys, toys.cells, say=silent).done) == 9 and set(ran_with_results.values()) == {1}


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
