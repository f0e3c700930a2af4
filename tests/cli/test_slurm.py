"""`swinssl_train --slurm`: a script that bash reads, that Slurm starts once a fold, and that passes a request on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from support.toy_dataset import NAME, make_preprocessed

from swinssl.cli import slurm as module

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash to read the script with")

# Stands in for the command: says what it was given, then works until it is asked to stop, and takes a while for that.
COMMAND = """#!/usr/bin/env bash
printf '%s\\n' "$@" > "$SAID.$SLURM_ARRAY_TASK_ID"
[ "$WORKS" = no ] && exit "$CODE"
trap 'sleep 0.5; exit 130' TERM
: > "$SAID.ready"
while :; do sleep 0.05; done
"""
SCONTROL = """#!/usr/bin/env bash
echo "$@" > "$SAID.scontrol"
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """The command of the script, and scontrol beside it."""
    folder = tmp_path / "bin of a user"
    folder.mkdir()
    for name, text in (("swinssl_train", COMMAND), ("scontrol", SCONTROL)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setattr(module.sys, "executable", str(folder / "python"))
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SAID", str(tmp_path / "said"))
    monkeypatch.chdir(tmp_path)
    return folder / "swinssl_train"


@pytest.fixture
def script(typed, tmp_path):
    def script(*arguments):
        done = typed("train", *arguments, "--slurm")
        assert done.code == 0 and not done.err
        path = tmp_path / "job.sh"
        path.write_text(done.out)
        assert subprocess.run(["bash", "-n", path], capture_output=True, check=True).stderr == b""
        return path

    return script


def directives(path):
    lines = [line.removeprefix("#SBATCH --") for line in path.read_text().splitlines() if line.startswith("#SBATCH")]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def start(script, fold, **environment):
    own = {"SLURM_ARRAY_TASK_ID": fold, "SLURM_JOB_ID": "4711", "WORKS": "yes", "CODE": "0", **environment}
    return subprocess.Popen(["bash", script], env={**os.environ, **own})


def test_asks_for_a_job_a_fold_with_what_it_needs(program, script):
    path = script("Dataset101 of mine", "--fold", "0-2,4", "--gpus", "2", "--max-minutes", "100", "--name", "b")
    found = directives(path)
    assert found["array"] == "0,1,2,4" and found["gpus-per-node"] == "2" and found["cpus-per-task"] == "8"
    assert found["signal"] == "B:TERM@120" and "requeue" in found and found["open-mode"] == "append"
    assert found["time"] == "120" and found["output"] == "swinssl_Dataset101_of_mine_fold_%a.log"
    assert found["job-name"] == "swinssl_Dataset101_of_mine"
    assert "gpus-per-node" not in directives(script("101", "--device", "cpu", "--fold", "0-1"))
    whole = script("101", "--fold", "all")
    assert "array" not in directives(whole) and whole.read_text().count("--fold all") == 2


def test_does_not_begin_anew_each_time(program, typed):
    done = typed("train", "101", "--slurm", "--restart")
    assert done.code == 2 and not done.out and "would begin anew each time" in done.error


def test_gives_the_command_all_options_and_its_own_fold(program, script, tmp_path):
    options = ["--gpus", "2", "--init", "it's $HOME", "--steps", "7", "--root", "my data", "--no-shard"]
    path = script("101", "--fold=0-4", *options)
    for fold in ("0", "3"):
        assert start(path, fold, WORKS="no").wait(timeout=30) == 0
        assert (tmp_path / f"said.{fold}").read_text().splitlines() == ["101", *options, "--fold", fold]
    assert start(path, "1", WORKS="no", CODE="2").wait(timeout=30) == 2


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("requests", [1, 3])
def test_a_request_is_passed_on_waited_for_and_queued_again(program, script, tmp_path, requests):
    process = start(script("101", "--fold", "0-1"), "1")
    patience = time.monotonic() + 30
    while not (tmp_path / "said.ready").exists():
        assert process.poll() is None and time.monotonic() < patience
        time.sleep(0.02)
    for _ in range(requests):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
    assert process.wait(timeout=30) == 0
    assert (tmp_path / "said.scontrol").read_text() == "requeue 4711\n"


@pytest.mark.slow
def test_trains_the_fold_that_slurm_names(typed, tmp_path, monkeypatch):
    if not module.Path(sys.executable).with_name("swinssl_train").exists():
        pytest.skip("swinssl is not installed beside this Python")
    make_preprocessed(tmp_path, cases=2)
    monkeypatch.chdir(tmp_path)
    options = ("--root", tmp_path, "--name", "m", "--steps", "2", "--device", "cpu", "--readers", "0")
    (tmp_path / "job.sh").write_text(typed("train", NAME, "--fold", "0-1", *options, "--slurm").out)
    assert start(tmp_path / "job.sh", "1").wait(timeout=200) == 0
    assert [path.name for path in (tmp_path / "results" / NAME / "m").glob("fold_*")] == ["fold_1"]
