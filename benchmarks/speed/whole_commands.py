"""Whole commands beside nnU-Net's, as a user types them: wall time, two workers each, in turns.

    peers/bin/python benchmarks/speed/whole_commands.py --raw RAW/Dataset004_Hippocampus RAW/Dataset201_SarcomaTumourCT
    peers/bin/python benchmarks/speed/whole_commands.py --raw RAW/Dataset004_Hippocampus --predict 60

Preprocessing: swinssl_plan_and_preprocess against nnUNetv2_plan_and_preprocess -c 3d_fullres -np 2. Prediction: of the
first cases of the data set, with networks that nobody trained (their time does not depend on it): ours as planned, and
the plain UNet in our engine, against nnUNetv2_predict --disable_tta. Both sides in the environment of this Python; on a
machine that does nothing else.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from swinssl.core import files
from swinssl.dataset.raw_dataset import RawDataset
from swinssl.experiments.benchmark.commands import run_script
from swinssl.experiments.peers.nnunet_side import PEER

BIN = Path(sys.executable).parent
WORKERS = 2
GOAL = 8.0


def main() -> int:
    """Time what is asked for, print, and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw", type=Path, nargs="+", required=True, help="raw data sets")
    parser.add_argument("--repeat", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--predict", type=int, metavar="N", help="predict N cases, instead of preprocessing")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON; those of others stay")
    given = parser.parse_args()
    for raw in given.raw:
        with tempfile.TemporaryDirectory(prefix="whole-commands-") as temporary:
            side = Side(raw.resolve(), Path(temporary))
            ways = prediction(side, given.predict) if given.predict else preprocessing(side)
            name = f"predict {given.predict} cases" if given.predict else "plan and preprocess"
            keep(given.out, f"{name}, {raw.name}", in_turns(ways, given.repeat))
    return 0


class Side:
    """Folders of both sides for one data set."""

    def __init__(self, raw: Path, work: Path) -> None:
        self.raw, self.work, self.root = raw, work, work / "swinssl"
        self.number = int(raw.name.removeprefix("Dataset").partition("_")[0])
        folders = {f"nnUNet_{name}": work / "nnunet" / name for name in ("raw", "preprocessed", "results")}
        for folder in folders.values():
            folder.mkdir(parents=True)
        (folders["nnUNet_raw"] / raw.name).symlink_to(raw)
        self.nnunet = {name: str(folder) for name, folder in folders.items()}

    def run(self, name: str, *arguments: object) -> None:
        """A command of this environment; its output is shown only where it fails."""
        command = [str(BIN / name), *map(str, arguments)]
        done = subprocess.run(
            command,
            env={**os.environ, **self.nnunet, "nnUNet_compile": "f"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if done.returncode:
            sys.stderr.write(done.stdout.decode(errors="replace")[-3000:])
            raise subprocess.CalledProcessError(done.returncode, command)


def preprocessing(side: Side) -> dict[str, Callable[[], None]]:
    """Both commands; each begins without anything."""

    def ours() -> None:
        shutil.rmtree(side.root, ignore_errors=True)
        side.run("swinssl_plan_and_preprocess", side.raw, "--root", side.root, "--workers", WORKERS)

    def theirs() -> None:
        shutil.rmtree(side.nnunet["nnUNet_preprocessed"])
        Path(side.nnunet["nnUNet_preprocessed"]).mkdir()
        side.run("nnUNetv2_plan_and_preprocess", "-d", side.number, "-c", "3d_fullres", "-np", WORKERS)

    return {"swinssl": ours, "nnU-Net": theirs}


def prediction(side: Side, cases: int) -> dict[str, Callable[[], None]]:
    """Both commands, over the same images."""
    images = side.work / "images"
    images.mkdir()
    for case in RawDataset.load(side.raw).cases[:cases]:
        for path in case.images:
            (images / path.name).symlink_to(path)
    for way in preprocessing(side).values():
        way()
    side.run("python", PEER, side.raw.name, side.work / "peer.json", "--minutes", 0)
    networks = {"swinssl": (), "swinssl, plain UNet": ("--network", "plainconv")}
    ways: dict[str, Callable[[], None]] = {}
    for name, network in networks.items():
        run = f"untrained_{len(ways)}"
        where = ["--root", side.root, "--device", "cpu"]
        side.run("swinssl_train", side.raw, *where, "--name", run, "--steps", 1, "--fold", 0, *network)
        model, out = side.root / "results" / side.raw.name / run / "fold_0", side.work / run
        what = ["-i", images, "-o", out, "-m", model, "--device", "cpu", "--overwrite"]
        ways[name] = lambda what=what: side.run("swinssl_predict", *what)
    options = ["-i", images, "-d", side.number, "-c", "3d_fullres", "-f", 0, "--disable_tta", "-device", "cpu"]
    options += ["-npp", WORKERS, "-nps", WORKERS]

    def theirs() -> None:
        side.run("nnUNetv2_predict", *options, "-o", side.work / "theirs")

    return {**ways, "nnU-Net": theirs}


def in_turns(ways: dict[str, Callable[[], None]], repetitions: int) -> dict[str, Any]:
    """Seconds of each, and how much longer than ours each takes, as medians."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repetitions):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - started)
    ours = next(iter(seconds.values()))
    return {
        name: {"seconds": statistics.median(own), "all": own, "ratio": _ratio(ours, own)}
        for name, own in seconds.items()
    }


def _ratio(ours: Sequence[float], own: Sequence[float]) -> float:
    return statistics.median(b / a for a, b in zip(ours, own, strict=True))


def keep(path: Path | None, name: str, found: dict[str, Any]) -> None:
    """Print, and add to the file."""
    print(f"\n{name}")
    for way, own in found.items():
        print(f"  {way:22}{own['seconds']:8.1f} s{own['ratio']:8.2f}x", flush=True)
    if path:
        before = files.read_json(path, what="figures", remedy="Delete it.") if path.is_file() else {}
        files.write_json(path, {**before, name: found})


if __name__ == "__main__":
    run_script(main)
