"""Blocks spread over two ranks: the run, its checkpoints and its results are those of ranks that have everything."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from support.toy_dataset import NAME, make_preprocessed

from swinssl.inference.trained_model import TrainedModel
from swinssl.networks.checkpoints.weights_file import read_weights
from swinssl.networks.network_plan import PRESETS, NetworkPlan

HERE = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
# smitp, which is sharded unless one asks for the opposite, less deep and less wide.
SMITP = PRESETS["smitp"].model_copy(update={"embed_dim": 16, "depths": (1, 1, 2, 1), "heads": (1, 2, 4, 8)})
COMMON = ("--device", "cpu", "--readers", 0, "--precision", "fp32")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    network = NetworkPlan(preset="smitp", decoder="light", encoder=SMITP)
    make_preprocessed(root, cases=4, plans_changes={"network": network})
    return root


def start(root, *arguments, program=("-c", "from swinssl.cli.train import main; main()")):
    words = [sys.executable, *program, NAME, "--root", root, *COMMON, *arguments]
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    return subprocess.Popen(
        list(map(str, words)), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(*arguments, **options):
    process = start(*arguments, **options)
    out, _ = process.communicate(timeout=280)
    assert process.returncode == 0, out


def checkpoint(run):
    newest = sorted((run / "checkpoints").iterdir())[-1]
    return read_weights(newest / "weights.safetensors")[0], torch.load(newest / "state.pt", weights_only=True)


def apart(found, wanted):
    assert {name: tensor.shape for name, tensor in found.items()} == {n: t.shape for n, t in wanted.items()}
    return max(float((found[name].double() - wanted[name].double()).abs().max()) for name in wanted)


def states(state):
    """The optimiser's tensors by parameter and name."""
    return {
        f"{n}.{name}": tensor for n, of_one in state["optimiser"]["state"].items() for name, tensor in of_one.items()
    }


@pytest.mark.slow
def test_fine_tuning_is_that_of_ranks_with_everything(root):
    model = root / "results" / NAME
    for name, options in (("sharded", ()), ("replicated", ("--no-shard",))):
        finish(root, "--name", name, "--gpus", 2, "--steps", 5, *options)
    (found, state), (wanted, its) = (checkpoint(model / name / "fold_0") for name in ("sharded", "replicated"))
    assert apart(found, wanted) <= 1e-5 and apart(states(state), states(its)) <= 1e-5
    assert state["optimiser"]["param_groups"] == its["optimiser"]["param_groups"]
    # The exported model is an ordinary one, and so is what was measured with it.
    opened = [
        TrainedModel.open(model / name, ["0"]).networks(torch.device("cpu"))[0] for name in ("sharded", "replicated")
    ]
    assert apart(opened[0].state_dict(), opened[1].state_dict()) <= 1e-5
    runs = [json.loads((model / name / "fold_0" / "run.json").read_text()) for name in ("sharded", "replicated")]
    assert runs[0]["final_dice"] == pytest.approx(runs[1]["final_dice"], abs=1e-3)
    assert runs[0]["parameters"] == runs[1]["parameters"]


@pytest.mark.slow
def test_stopped_killed_and_gone_on_with_other_ranks_is_the_same_run(root):
    """In float64, since ranks and one process round differently."""
    doubled = {"program": ("-m", "support.in_doubles")}
    options = ("--fold", "all", "--lr", "1e-3", "--steps", 12)
    runs = {name: root / "results" / NAME / name / "fold_all" for name in ("undisturbed", "disturbed")}
    finish(root, *options, "--name", "undisturbed", **doubled)

    process = start(root, *options, "--name", "disturbed", "--gpus", 2, **doubled)
    wait_for_epochs(runs["disturbed"], 2, process)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 130 and "saved after" in out, out

    process = start(root, *options, "--name", "disturbed", "--gpus", 2, **doubled)
    wait_for_epochs(runs["disturbed"], 4, process)
    ranks = [one for one in psutil.Process(process.pid).children() if one.environ().get("RANK") == "1"]
    ranks[0].kill()
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 1 and "process 1 of 0 to 1 was killed by signal 9" in out, out

    finish(root, *options, "--name", "disturbed", **doubled)
    (found, state), (wanted, its) = checkpoint(runs["disturbed"]), checkpoint(runs["undisturbed"])
    assert state["progress"]["step"] == its["progress"]["step"] == 12
    assert apart(found, wanted) <= 1e-7 and apart(states(state), states(its)) <= 1e-7


def wait_for_epochs(run, epochs, process):
    log, patience = run / "log.jsonl", time.monotonic() + 200
    while not (log.exists() and len(log.read_text().splitlines()) >= epochs):
        assert process.poll() is None and time.monotonic() < patience
        time.sleep(0.02)


@pytest.mark.slow
def test_pretraining_with_a_teacher_and_a_probe(root, tmp_path):
    program = ("-c", "from swinssl.cli.pretrain import smit; smit()")
    options = ("--gpus", 2, "--probe", NAME, "--probe-cases", 1, "--prototypes", 64, "--steps", 4)
    for name, shard in (("sharded", "--shard"), ("replicated", "--no-shard")):
        finish(root, "--out", tmp_path / name, *options, shard, program=program)
        assert (tmp_path / name / "learnt.png").exists() and (tmp_path / name / "encoder_best.safetensors").exists()
    (found, state), (wanted, its) = (checkpoint(tmp_path / name) for name in ("sharded", "replicated"))
    assert any(name.startswith("extra.teacher.encoder.stages") for name in found)
    assert apart(found, wanted) <= 1e-5 and apart(states(state), states(its)) <= 1e-5
    encoders = [read_weights(tmp_path / name / "encoder.safetensors")[0] for name in ("sharded", "replicated")]
    assert apart(*encoders) <= 1e-5


def test_does_not_go_with_frozen_blocks(root):
    from swinssl.core.errors import UserError
    from swinssl.training.config import TrainingConfig

    with pytest.raises(UserError, match="--shard cannot be combined with --freeze-epochs"):
        TrainingConfig(shard=True, freeze_epochs=1).shards("smitp")
    assert not TrainingConfig(peft="lora").shards("smitp") and not TrainingConfig().shards("small")
    assert TrainingConfig().shards("smitp") and not TrainingConfig(shard=False).shards("smitp")
