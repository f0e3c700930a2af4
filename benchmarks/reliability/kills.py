"""`kill -9` at random moments: does every run go on, and does it end where an undisturbed one ends, bit for bit?

    python benchmarks/reliability/kills.py                        # fine-tuning and the nine methods, 50 kills each
    python benchmarks/reliability/kills.py --methods train dino --kills 5

Each is the real command on a made data set of six small volumes. Most kills come at a uniformly random moment of
the command's life, start-up and end included; two of five while a checkpoint is being written. The command is typed
again after each, until it ends; its weights and the losses of its log are then compared with those of the undisturbed
run, and the next run begins. A kill is survived if no later start of its run failed. Finished methods are not done
again: `kills.csv` gets a row as each ends, `kills.md` is the same as a table.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from swinssl.core import files
from swinssl.experiments.benchmark.commands import run_script, run_swinssl
from swinssl.imageio.volume import Geometry
from swinssl.imageio.writer import write_volume
from swinssl.networks.checkpoints.weights_file import read_weights
from swinssl.networks.network_plan import SwinEncoderPlan
from swinssl.preprocessing.plans import PLANS_FILE, Plans
from swinssl.ssl.methods.registry import METHODS, load_method

RESULTS = Path(__file__).resolve().parent / "results"
NAME, SHAPE, CASES = "Dataset001_Balls", (34, 30, 36), 6
TRAIN = "train"
STEPS = 20
# Of the kills, while a checkpoint is being written.
SAVING_SHARE = 0.4
# Smaller than any preset: what counts is how often a run is started, not what it learns.
ENCODER = SwinEncoderPlan(embed_dim=8, depths=(1, 1, 1, 1), heads=(1, 2, 4, 8), shrink_window=True)
# What a line of the log says of time, which no two runs share.
TIMES = {"seconds", "waiting_seconds", "samples_per_second"}
POLL_SECONDS = 0.002
# A start that takes longer than this many undisturbed runs hangs.
PATIENCE = 20


@dataclass
class Row:
    """What became of one method.

    Args:
        kills: sent, and of these: before the network was there, in training, while a checkpoint was being written, and
            after the last step.
        survived: kills after which every start of their run went on.
        runs: that were compared with the undisturbed one at their end.
        identical: of these, to the bit.
        seconds: all of it.
    """

    method: str
    kills: int = 0
    in_start: int = 0
    in_training: int = 0
    in_saving: int = 0
    at_end: int = 0
    survived: int = 0
    runs: int = 0
    identical: int = 0
    seconds: float = 0.0


@dataclass
class Run:
    """A run of a command in a folder of its own, started as often as it takes."""

    command: list[str]
    folder: Path
    starts: int = 0
    saving_seconds: list[float] = field(default_factory=list)
    left_over: int | None = None
    failed: bool = False

    @property
    def output(self) -> Path:
        """What the latest start said."""
        return self.folder.with_name(f"{self.folder.name}.{self.starts}.txt")

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def start(self) -> subprocess.Popen[bytes]:
        self.starts += 1
        self.left_over = self._unfinished()
        self.output.parent.mkdir(parents=True, exist_ok=True)
        with self.output.open("wb") as stream:
            return subprocess.Popen(
                self.command, stdout=stream, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"}
            )

    def being_written(self) -> bool:
        """Whether a checkpoint is being written, or this start left one unfinished."""
        return self._unfinished() not in (None, self.left_over)

    def _unfinished(self) -> int | None:
        for path in self.checkpoints.glob(f"{files.PREFIX}*"):
            with contextlib.suppress(FileNotFoundError):
                return path.stat().st_mtime_ns
        return None

    def phase(self) -> str:
        """Where the process was that was killed, from what it left."""
        if self.being_written():
            return "in_saving"
        if (self.checkpoints / f"step_{STEPS:09d}").exists():
            return "at_end"
        return "in_training" if "M parameters" in self.output.read_text(errors="replace") else "in_start"

    def undisturbed(self) -> float:
        """Run to the end, and measure how long it and each of its checkpoints takes; seconds of the whole."""
        process, began, saving_since = self.start(), time.monotonic(), None
        while process.poll() is None:
            now, saving = time.monotonic(), self.being_written()
            if saving and saving_since is None:
                saving_since = now
            elif not saving and saving_since is not None:
                self.saving_seconds.append(now - saving_since)
                saving_since = None
            time.sleep(POLL_SECONDS)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, self.command, self.output.read_text())
        return time.monotonic() - began

    def finish(self, patience: float) -> int:
        """Start and wait for the end; its exit code."""
        process = self.start()
        try:
            return process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def outcome(self, weights: str) -> tuple[list[dict[str, torch.Tensor]], list[dict[str, Any]]]:
        """Tensors of the result and of the last checkpoint, and the log without its times."""
        last = self.checkpoints / f"step_{STEPS:09d}" / "weights.safetensors"
        lines = [json.loads(line) for line in (self.folder / "log.jsonl").read_text().splitlines()]
        log = [{name: value for name, value in line.items() if name not in TIMES} for line in lines]
        return [read_weights(path)[0] for path in (self.folder / weights, last)], log


def main() -> int:
    """Kill what is asked for; 2 where a kill was not survived or changed a result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = [TRAIN, *METHODS]
    parser.add_argument("--methods", nargs="+", default=every, choices=every, metavar="METHOD", help=", ".join(every))
    parser.add_argument("--kills", type=int, default=50, help="of each; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the moments; default: %(default)s")
    parser.add_argument("--jobs", type=int, default=1, help="methods at a time; default: %(default)s")
    parser.add_argument("--work", type=Path, default=Path("kills"), help="folder of data and runs")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of kills.csv and kills.md")
    given = parser.parse_args()
    work = given.work.resolve()
    table = given.out / "kills.csv"
    made(work / "root")
    rows = read_rows(table)
    left = [name for name in given.methods if name not in {row.method for row in rows}]
    with ThreadPoolExecutor(given.jobs) as pool:
        waiting = [pool.submit(killed, name, work, kills=given.kills, seed=given.seed) for name in left]
        for done in as_completed(waiting):
            rows.append(done.result())
            rows.sort(key=lambda row: every.index(row.method))
            write(rows, table)
            print(rows, flush=True)
    print(markdown(rows))
    asked = [row for row in rows if row.method in given.methods]
    return 0 if all(row.survived == row.kills and row.identical == row.runs for row in asked) else 2


def made(root: Path) -> None:
    """Six noisy volumes of a ball in a ball, preprocessed; nothing is done again."""
    raw = root / "raw" / NAME
    if not (root / "preprocessed" / NAME / "cases").is_dir():
        grid = Geometry.from_parts(SHAPE, spacing=(1, 1, 1))
        for case in range(CASES):
            draws = np.random.default_rng(case)
            centre = np.array(SHAPE) / 2 + draws.uniform(-5, 5, 3)
            places = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1)
            distance = np.linalg.norm(places - centre, axis=-1)
            label = (distance < 10).astype(np.uint8) + (distance < 5)
            image = label * 0.3 + 0.2 + draws.normal(0, 0.05, SHAPE)
            write_volume(raw / "imagesTr" / f"ball_{case}_0000.nii.gz", image.astype(np.float32), grid)
            write_volume(raw / "labelsTr" / f"ball_{case}.nii.gz", label, grid)
        labels = {"background": 0, "shell": 1, "core": 2}
        known = {"channel_names": {"0": "MR"}, "labels": labels, "numTraining": CASES, "file_ending": ".nii.gz"}
        files.write_json(raw / "dataset.json", known)
        form = ("--spacing", 1, 1, 1, "--patch", 32, 32, 32, "--preset", "tiny", "--decoder", "light")
        run_swinssl("plan", raw, "--root", root, "--device", "cpu", "--batch-size", 2, "--workers", 0, *form)
        plans = Plans.read(root / "preprocessed" / NAME)
        network = plans.network.model_copy(update={"encoder": ENCODER})
        plans.model_copy(update={"network": network}).write(root / "preprocessed" / NAME / PLANS_FILE)
        run_swinssl("preprocess", NAME, "--root", root, "--workers", 0)


def killed(method: str, work: Path, *, kills: int, seed: int) -> Row:
    """Kill runs of one method until there were enough kills, and compare each run that ended."""
    began, rng = time.monotonic(), random.Random(f"{seed} {method}")
    shutil.rmtree(work / method, ignore_errors=True)
    whole = new_run(method, work, "whole")
    lifetime, result = whole.undisturbed(), "model.safetensors" if method == TRAIN else "encoder.safetensors"
    expected, row = whole.outcome(result), Row(method)
    saving_seconds = min(whole.saving_seconds, default=0.05)
    print(f"{method}: undisturbed {lifetime:.1f} s, a checkpoint {saving_seconds:.3f} s", flush=True)
    while row.kills < kills:
        run, before = new_run(method, work, f"run_{row.runs}"), row.kills
        for _ in interrupted(run, row, rng, kills=kills, lifetime=lifetime, saving_seconds=saving_seconds):
            print(f"{method}: kill {row.kills} {run.phase()}", flush=True)
        code = run.finish(PATIENCE * lifetime) if row.kills == kills and row.kills > before else 0
        failed = run.failed or code != 0 or not (run.checkpoints / f"step_{STEPS:09d}").exists()
        row.runs += 1
        row.survived += row.kills - before - (1 if failed else 0)
        same = not failed and equal(run.outcome(result), expected)
        row.identical += same
        if failed or not same:
            print(f"{method}: {run.folder}: {'failed' if failed else 'not identical'}; see {run.output}", flush=True)
            if row.runs - row.identical > 2:
                break
        else:
            shutil.rmtree(run.folder)
    row.seconds = round(time.monotonic() - began, 1)
    return row


def interrupted(
    run: Run, row: Row, rng: random.Random, *, kills: int, lifetime: float, saving_seconds: float
) -> Iterator[None]:
    """Start and kill a run until it ends before its kill, or there were enough kills; yields after each kill."""
    while row.kills < kills:
        process, at_saving = run.start(), rng.random() < SAVING_SHARE
        if at_saving:
            ended = wait_for_saving(run, process) or sleep_or_end(process, rng.uniform(0, saving_seconds))
        else:
            ended = sleep_or_end(process, rng.uniform(0, lifetime))
        if ended:
            run.failed = process.returncode != 0
            return
        process.kill()
        process.wait()
        row.kills += 1
        setattr(row, run.phase(), getattr(row, run.phase()) + 1)
        yield


def wait_for_saving(run: Run, process: subprocess.Popen[bytes]) -> bool:
    """Wait until the process begins to write a checkpoint; whether it ended before."""
    while process.poll() is None:
        if run.being_written():
            return False
        time.sleep(POLL_SECONDS)
    return True


def sleep_or_end(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait; whether the process ended before."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def new_run(method: str, work: Path, name: str) -> Run:
    """The real command of a method, into a folder of its own."""
    common = [NAME, "--root", str(work / "root"), "--steps", str(STEPS), "--device", "cpu", "--precision", "fp32"]
    binaries = Path(sys.executable).parent
    if method == TRAIN:
        folder = work / "root" / "results" / NAME / name / "fold_0"
        shutil.rmtree(folder.parent, ignore_errors=True)
        return Run([str(binaries / "swinssl_train"), *common, "--name", name], folder)
    folder = work / method / name
    own = ["--prototypes", "64"] if "prototypes" in load_method(method).Options.model_fields else []
    return Run([str(binaries / f"swinssl_pretrain_{method}"), *common, "--out", str(folder), *own], folder)


def equal(found: Any, expected: Any) -> bool:
    """Whether two outcomes are the same to the bit."""
    (weights, log), (other_weights, other_log) = found, expected
    pairs = zip(weights, other_weights, strict=True)
    return log == other_log and all(bits(mine) == bits(other) for mine, other in pairs)


def bits(tensors: dict[str, torch.Tensor]) -> dict[str, tuple[torch.dtype, torch.Size, bytes]]:
    """By name, what tells two tensors apart to the bit; a NaN is equal to itself."""
    return {
        name: (one.dtype, one.shape, one.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        for name, one in tensors.items()
    }


def read_rows(path: Path) -> list[Row]:
    """The rows of methods that are done."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return [
            Row(line.pop("method"), seconds=float(line.pop("seconds")), **{n: int(v) for n, v in line.items()})
            for line in csv.DictReader(stream)
        ]


def write(rows: Sequence[Row], path: Path) -> None:
    """The table as CSV and, beside it, as Markdown."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    files.write_text(path, text.getvalue())
    files.write_text(path.with_suffix(".md"), markdown(rows))


def markdown(rows: Sequence[Row]) -> str:
    """The table for people, with its sums."""
    total = Row("all", *(sum(getattr(row, f.name) for row in rows) for f in fields(Row)[1:]))
    lines = [
        "| method | kills | in start-up | in training | while saving | after the last step | survived | runs ended "
        "| identical to the bit |",
        "| --- | --: | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for r in (*rows, total):
        cells = (r.method, r.kills, r.in_start, r.in_training, r.in_saving, r.at_end, r.survived, r.runs, r.identical)
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_script(main)
