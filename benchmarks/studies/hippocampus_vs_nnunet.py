"""Hippocampus, fold 0, the same minutes on the same CPU cores: swinssl from scratch against nnU-Net.

    python benchmarks/studies/hippocampus_vs_nnunet.py --raw RAW/Dataset004_Hippocampus --peer-python peers/bin/python

Both train on the same cases, for the same wall time, with schedules that end in that time. Both are judged on the
same validation cases by the same code, on the images' own grids, without test-time augmentation. nnU-Net's number of
iterations is fitted by timing some first, which do not count. Planning and preprocessing count on neither side, nor
does nnU-Net's validation; ours is inside the minutes. Finished parts are kept in --work and not done again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from swinssl.experiments.benchmark.commands import run_swinssl
from swinssl.experiments.peers.nnunet_side import NnunetSide

NAME = "Dataset004_Hippocampus"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw", type=Path, required=True, help="the raw data set")
    parser.add_argument("--work", type=Path, default=Path("hippocampus_vs_nnunet"))
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--peer-python", type=Path, help="Python of an environment with nnunetv2 (requirements.txt)")
    parser.add_argument("--only", choices=("swinssl", "nnunet"))
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    raw = arguments.raw.resolve()
    figures = {}
    if arguments.only != "nnunet":
        figures["swinssl"] = ours(raw, work, arguments.minutes)
    if arguments.only != "swinssl":
        if arguments.peer_python is None:
            parser.error("--peer-python: nnU-Net needs an environment of its own; see benchmarks/requirements.txt")
        # Not resolved: a virtual environment's Python is a link to the one it was made with.
        figures["nnunet"] = peer(raw, work, arguments.minutes, arguments.peer_python.absolute())
    print(f"\n{'':10}{'anterior':>10}{'posterior':>11}{'minutes':>9}{'steps':>7}{'patches':>9}")
    for who, found in figures.items():
        anterior, posterior = (found["dice"][name] for name in ("anterior", "posterior"))
        patches = found["steps"] * found["batch"]
        print(f"{who:10}{anterior:10.3f}{posterior:11.3f}{found['minutes']:9.1f}{found['steps']:7d}{patches:9d}")
    if arguments.out:
        arguments.out.write_text(json.dumps(figures, indent=2) + "\n")


def ours(raw: Path, work: Path, minutes: float) -> dict:
    root = work / "swinssl"
    limit = ["--max-minutes", f"{minutes:g}", "--device", "cpu", "--root", str(root)]
    run_swinssl("plan_and_preprocess", raw, *limit)
    run_swinssl("train", raw, "--fold", "0", "--name", f"minutes{minutes:g}", *limit)
    fold = root / "results" / NAME / f"minutes{minutes:g}" / "fold_0"
    run = json.loads((fold / "run.json").read_text())
    plans = json.loads((fold.parent / "swinsslPlans.json").read_text())
    return {
        "dice": run["final_dice"],
        "minutes": run["seconds"] / 60,
        "steps": run["steps"],
        "batch": plans["training"]["batch_size"],
        "patch": plans["patch_size"],
        "network": plans["network"]["preset"],
        "parameters": run["parameters"],
    }


def peer(raw: Path, work: Path, minutes: float, python: Path) -> dict:
    side = NnunetSide(python, work / "nnunet", raw)
    # The folds of ours, so that both see the same cases.
    side.prepare(work / "swinssl" / "preprocessed" / NAME / "splits_final.json")
    found = side.train(minutes=minutes)
    references = work / "swinssl" / "preprocessed" / NAME / "gt_segmentations"
    run_swinssl("evaluate", "-p", found["predictions"], "-r", references, "--allow-missing", "--out", side.root)
    summary = json.loads((side.root / "summary.json").read_text())
    dice = {name: summary["mean"][key]["Dice"] for key, name in (("1", "anterior"), ("2", "posterior"))}
    return {**found, "dice": dice}


if __name__ == "__main__":
    main()
