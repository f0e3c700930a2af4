"""`--gpus N`: N processes that are one command, however they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.toy_dataset import NAME, make_preprocessed

from swinssl.networks.checkpoints.weights_file import read_weights

HERE = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")


@pytest.fixture
def start(monkeypatch):
    """Start a sample command with two ranks; each of its lines is as it was typed."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]))

    def start(*arguments):
        words = [sys.executable, "-m", "support.rank_behaviours", *map(str, arguments), "--gpus", "2"]
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start


def ended(process):
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def wait_for(*paths, process):
    patience = time.monotonic() + 60
    while not all(path.exists() for path in paths):
        assert process.poll() is None and time.monotonic() < patience
        time.sleep(0.02)


class TestEnds:
    def test_the_first_speaks_for_all(self, start):
        code, out, err = ended(start("nothing"))
        assert code == 0 and out == "rank 0 of 2: ['nothing', '--gpus', '2']\n" and err == ""

    @pytest.mark.parametrize(
        ("what", "code", "said"),
        [
            (
                "crash",
                1,
                ["Traceback", "ZeroDivisionError: of rank 1", "process 1 of 0 to 1 ended with exit code 1"],
            ),
            ("die", 1, ["error: process 1 of 0 to 1 was killed by signal 9, and the others were ended."]),
            ("mend", 2, ["error: rank 1 alone: found. Fix it."]),
        ],
    )
    def test_one_that_dies_ends_the_others_and_is_heard(self, start, monkeypatch, what, code, said):
        found, _, err = ended(start(what))
        assert found == code and all(words in err for words in said)

    def test_nobody_outside_this_machine_can_connect(self, start, tmp_path):
        assert ended(start("listen", tmp_path))[0] == 0
        heard_on = {ip for rank in range(2) for ip in (tmp_path / f"heard_on{rank}").read_text().split()}
        assert heard_on == {"127.0.0.1"}

    def test_what_both_find_is_said_once(self, start):
        code, _, err = ended(start("mend both"))
        assert code == 2 and err == "error: both found it. Fix it.\n"

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_request_reaches_all_and_the_slowest_is_waited_for(self, start, tmp_path, number):
        process = start("wait", tmp_path)
        wait_for(tmp_path / "ready0", tmp_path / "ready1", process=process)
        process.send_signal(number)
        code, _, err = ended(process)
        assert code == 130 and err == "\nstopped: saved; the same command goes on.\n"
        assert all((tmp_path / f"stopped{rank}").read_text() == f"[{int(number)}]" for rank in range(2))

    def test_a_request_before_any_listens(self, start, tmp_path):
        process = start("start", tmp_path)
        wait_for(tmp_path / "ready0", tmp_path / "ready1", process=process)
        process.send_signal(signal.SIGTERM)
        code, _, err = ended(process)
        assert code == 130 and "Rerun the command to resume" in err and "Traceback" not in err

    def test_ranks_do_not_outlive_who_started_them(self, start, tmp_path):
        process = start("wait", tmp_path)
        wait_for(tmp_path / "ready0", tmp_path / "ready1", process=process)
        process.kill()
        patience = time.monotonic() + 60
        while not all((tmp_path / f"stopped{rank}").exists() for rank in range(2)):
            assert time.monotonic() < patience
            time.sleep(0.05)


OPTIONS = ("--fold", "all", "--steps", "20", "--lr", "1e-3", "--device", "cpu", "--readers", "0", "--precision", "fp32")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    make_preprocessed(root, cases=3)
    return root


def train(root, name, *options, program=("-m", "support.in_doubles")):
    """The command in float64: in float32 a step of Adam makes what it likes of gradients that are rounding alone."""
    words = [sys.executable, *program, NAME, "--root", str(root), "--name", name, *OPTIONS, *options]
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=280, check=False)


def weights(root, name):
    """Of network and average."""
    newest = sorted((root / "results" / NAME / name / "fold_all" / "checkpoints").iterdir())[-1]
    assert newest.name == "step_000000020"
    return read_weights(newest / "weights.safetensors")[0]


def apart(found, wanted):
    assert found.keys() == wanted.keys() and any(name.endswith("running_var") for name in found)
    return max(float((found[name].double() - wanted[name].double()).abs().max()) for name in wanted)


RESTARTED = """
import os, signal
from support.in_doubles import main
from swinssl.training.engine.loop import Engine
from swinssl.training.segmentation_task import SegmentationTask

after_step = SegmentationTask.after_step

def die_once(self, step, total):
    after_step(self, step, total)
    if step == 14 and os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)

SegmentationTask.after_step = die_once
Engine._save_is_due = lambda self, seconds: seconds == 0  # at every epoch's end, however long it took
main()
"""


class TestFineTuning:
    @pytest.fixture(scope="class")
    def whole(self, root):
        done = train(root, "whole")
        assert done.returncode == 0, done.stderr
        return weights(root, "whole")

    @pytest.mark.slow
    def test_two_are_one_with_batch_norm_over_both(self, root, whole):
        done = train(root, "ranks", "--gpus", "2")
        assert done.returncode == 0 and done.stdout.count("next: swinssl_predict") == 1, done.stderr
        assert apart(weights(root, "ranks"), whole) <= 1e-7

    @pytest.mark.slow
    def test_torchrun_restarts_from_the_last_checkpoint(self, root, whole, tmp_path):
        script = tmp_path / "restarted.py"
        script.write_text(RESTARTED)
        torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1")
        done = train(root, "restarted", "--restart", program=(*torchrun, str(script)))
        assert done.returncode == 0 and "resuming after step 14 of 20" in done.stderr, done.stderr
        assert apart(weights(root, "restarted"), whole) <= 1e-7


ENDS = """
import atexit, os
import torch.distributed as dist
from swinssl.cli.command import command
from swinssl.core.errors import UserError

class Teardown:
    abort = os.abort

    def __del__(self):
        self.abort()

def work(grouped: bool = False, mend: bool = False) -> None:
    'Work.'
    if grouped:
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    atexit.register(print, "closed")
    if mend:
        raise UserError("found. Fix it.")

kept = Teardown()
command(work)()
"""


@pytest.mark.parametrize(
    ("options", "code"), [([], -signal.SIGABRT), (["--grouped"], 0), (["--grouped", "--mend"], 2)], ids=str
)
def test_a_rank_that_is_done_is_spared_the_interpreter_s_teardown(options, code):
    """In which gloo's threads may abort what ended well; what was to be closed at the end is closed all the same."""
    done = subprocess.run([sys.executable, "-c", ENDS, *options], capture_output=True, text=True, check=False)
    assert done.returncode == code and done.stdout == "closed\n", done.stderr


@pytest.mark.slow
def test_a_batch_smaller_than_the_ranks_is_refused(root):
    done = train(root, "m", "--gpus", "3")
    assert done.returncode == 2 and "error: --batch-size 2: each of 3 processes needs a sample" in done.stderr
