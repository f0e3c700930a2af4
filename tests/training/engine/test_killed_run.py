"""The command, killed without warning and typed again, ends with the weights of a run that nobody disturbed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from support.toy_dataset import NAME, make_preprocessed

from swinssl.networks.checkpoints.weights_file import read_weights

COMMAND = [sys.executable, "-c", "from swinssl.cli.train import main; main()"]
STEPS, EPOCHS_BEFORE_THE_KILL = 20, (2, 5)


def start(root: Path, name: str) -> subprocess.Popen:
    arguments = [NAME, "--root", str(root), "--name", name, "--steps", str(STEPS), "--device", "cpu", "--readers", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*COMMAND, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(root: Path, name: str) -> None:
    process = start(root, name)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "next: swinssl_predict" in output


def results(root: Path, name: str) -> list[dict[str, torch.Tensor]]:
    fold = root / "results" / NAME / name / "fold_0"
    newest = sorted((fold / "checkpoints").iterdir())[-1]
    assert newest.name == f"step_{STEPS:09d}"
    return [read_weights(path)[0] for path in (newest / "weights.safetensors", fold / "model.safetensors")]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
@pytest.mark.slow
def test_killed_and_resumed_is_the_same_to_the_bit(tmp_path):
    make_preprocessed(tmp_path)
    finish(tmp_path, "whole")
    for epochs in EPOCHS_BEFORE_THE_KILL:
        process = start(tmp_path, "killed")
        log = tmp_path / "results" / NAME / "killed" / "fold_0" / "log.jsonl"
        patience = time.monotonic() + 120
        while not (log.exists() and len(log.read_text().splitlines()) >= epochs):
            assert process.poll() is None and time.monotonic() < patience
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    finish(tmp_path, "killed")
    for whole, killed in zip(results(tmp_path, "whole"), results(tmp_path, "killed"), strict=True):
        assert whole.keys() == killed.keys()
        assert [name for name in whole if not torch.equal(whole[name], killed[name])] == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM")
@pytest.mark.slow
def test_a_request_to_end_saves_and_says_how_to_go_on(tmp_path):
    make_preprocessed(tmp_path, cases=2)
    process = start(tmp_path, "asked")
    run = tmp_path / "results" / NAME / "asked" / "fold_0" / "log.jsonl"
    while not run.exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "Rerun the command to resume" in output and "Traceback" not in output
    finish(tmp_path, "asked")
