"""swinssl_benchmark as it is typed, on a toy: two inits judged on cases that no plan has seen."""

from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.toy_dataset import NAME, write_raw

from swinssl.core import files

CONFIG = f"""
seeds = [0]
named = ["shipped:scratch"]
expected = "shipped > scratch"
cka = "--crops 8 --batch-size 4"

[inits.scratch]
[inits.shipped]
encoder = "tiny_smit_headneck_ct"

[tasks.balls]
dataset = "{NAME}"
test = 2
validation = 1
shots = [2]
plan = "--spacing 1 1 1 --preset tiny --decoder light --patch 32 32 32 --batch-size 2"
train = "--steps 2 --readers 0"
"""


def typed(folder, *arguments, check=True):
    command = Path(sys.executable).parent / "swinssl_benchmark"
    done = subprocess.run(
        [command, "toy.toml", "--root", "root", "--device", "cpu", *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def scores_of(out):
    with gzip.open(out / "scores.csv.gz", "rt", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    write_raw(folder / "root" / "raw" / NAME)
    (folder / "toy.toml").write_text(CONFIG)
    return folder


@pytest.fixture(scope="module")
def ran(folder):
    return typed(folder)


def test_a_dry_run_lists_the_cells_and_writes_nothing(folder):
    before = sorted(folder.rglob("*"))
    said = json.loads(typed(folder, "--dry-run", "--json").stdout)
    keys = [f"{place}/2shots/seed0" for place in ("cells/balls/scratch", "cells/balls/shipped", "cka/balls/shipped")]
    assert [cell["cell"] for cell in said["cells"]] == keys
    if not (folder / "root" / "results").exists():  # the other tests of this file may have run before
        assert sorted(folder.rglob("*")) == before


@pytest.mark.slow
def test_every_test_case_and_structure_of_every_cell_has_a_row(folder, ran):
    out = folder / "root" / "results" / "benchmarks" / "toy"
    rows = scores_of(out)
    assert len(rows) == 2 * 2 * 2
    assert {(row["model"], row["shots"], row["seed"], row["task"]) for row in rows} == {
        (name, "2", "0", "balls") for name in ("scratch", "shipped")
    }
    assert all(0 <= float(row["Dice"]) <= 1 for row in rows)
    tested = {row["case"] for row in rows}
    planned = json.loads((out / "workspaces" / "balls" / "preprocessed" / NAME / "dataset.json").read_text())
    stored = {path.name for path in (out / "workspaces" / "balls" / "preprocessed" / NAME / "cases").iterdir()}
    assert planned["numTraining"] == 4 and not stored & tested  # no plan and no training has seen them


@pytest.mark.slow
def test_encoders_are_compared_on_the_test_cases_and_shown(folder, ran):
    out = folder / "root" / "results" / "benchmarks" / "toy"
    found = json.loads((out / "cka" / "balls" / "shipped" / "2shots" / "seed0" / "cka.json").read_text())
    assert set(found["cases"]) == {row["case"] for row in scores_of(out)}
    assert found["curve"][0]["block_A"] == "1.1" and found["encoders"]["A"]["name"] == "tiny_smit_headneck_ct"
    page = (out / "report" / "report.html").read_text()
    for said in (
        "Encoders of balls",
        "SD before",
        "stage 4",
        "shipped &gt; scratch",
        "Outlines of shipped",
    ):
        assert said in page
    assert all((out / "report" / "balls" / f"{name}.svg").is_file() for name in ("cka_curves", "overlays"))


@pytest.mark.slow
def test_a_second_call_trains_nothing(folder, ran):
    assert "begins" in ran.stderr
    again = typed(folder)
    assert "begins" not in again.stderr and "report" in again.stdout


@pytest.mark.slow
def test_of_what_is_done_models_are_kept_and_not_what_going_on_would_need(folder, ran):
    kept = {path.name for path in (folder / "root" / "results" / "benchmarks").rglob("*")}
    assert {"model.safetensors", "log.jsonl"} <= kept and "checkpoints" not in kept


@pytest.mark.slow
def test_the_tables_are_enough_to_resume_and_to_report_elsewhere(folder, ran, tmp_path):
    out, elsewhere = folder / "root" / "results" / "benchmarks" / "toy", tmp_path / "study"
    names = ("cells.csv", "scores.csv.gz", "balls_plans.json")
    for name in names:
        files.write_bytes(elsewhere / name, (out / name).read_bytes())
    (tmp_path / "root").mkdir()
    shutil.copyfile(folder / "toy.toml", tmp_path / "toy.toml")
    report = typed(tmp_path, "--results", "study", "--report-only")  # without the raw data
    assert "the report shows no cases" in report.stderr
    made = tmp_path / "root" / "results" / "benchmarks" / "toy" / "report"
    assert (made / "comparison.csv").read_text() == (out / "report" / "comparison.csv").read_text()
    assert (elsewhere / "results.md").read_bytes() == (made / "comparison.md").read_bytes()
    assert "Encoders of balls" in (made / "report.html").read_text()
    (tmp_path / "root" / "raw").symlink_to(folder / "root" / "raw")
    assert "begins" not in typed(tmp_path, "--results", "study").stderr
    assert {name: (elsewhere / name).read_bytes() for name in names} == {n: (out / n).read_bytes() for n in names}
    assert str(folder) not in (elsewhere / "cells.csv").read_text()
    more = (folder / "toy.toml").read_text().replace("seeds = [0]", "seeds = [0, 1]")
    (tmp_path / "toy.toml").write_text(more)
    done = typed(tmp_path, "--results", "study", "--only", "cells/balls/scratch/2shots/seed1")
    assert done.stderr.count("begins") == 1 and "cells/balls/scratch/2shots/seed1: done, 2 steps" in done.stderr
    assert len(scores_of(elsewhere)) == len(scores_of(out)) + 4


@pytest.mark.slow
def test_options_that_no_plan_could_be_made_with_may_be_mended(folder, tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "raw").symlink_to(folder / "root" / "raw")
    (tmp_path / "toy.toml").write_text(CONFIG.replace("--patch 32 32 32", "--patch 33 33 33"))
    failed = typed(tmp_path, "--only", "cells/balls/scratch/*", check=False)
    assert failed.returncode != 0 and "33" in failed.stderr
    (tmp_path / "toy.toml").write_text(CONFIG)
    assert "done, 2 steps" in typed(tmp_path, "--only", "cells/balls/scratch/*").stderr


def test_a_script_for_slurm_is_one_that_bash_can_read(folder, tmp_path):
    script = typed(folder, "--slurm", "3", "--only", "scratch").stdout
    assert "--array=1-3" in script and "--only scratch" in script and "--slurm" not in script
    (tmp_path / "job.sh").write_text(script)
    subprocess.run(["bash", "-n", tmp_path / "job.sh"], check=True)


def test_a_wrong_file_is_an_error_with_its_name(folder):
    (folder / "wrong.toml").write_text(CONFIG.replace("test = 2", "test = 200"))
    command = [Path(sys.executable).parent / "swinssl_benchmark", "wrong.toml", "--root", "root"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "task balls" in done.stderr and "Traceback" not in done.stderr
