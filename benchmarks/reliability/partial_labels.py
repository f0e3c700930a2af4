"""Do structures that only some cases have annotated spoil the others? One data set whole, and with labels taken away.

    python benchmarks/reliability/partial_labels.py --raw RAW/Dataset101_HeadNeckOrgansCT --work partial --steps 1500 \\
        --drop parotid_left parotid_right mandible

Every second training case loses the structures of --drop: their voxels become background, and labels_present.csv says
that nobody looked for them there. A third run has the same labels without labels_present.csv, as a tool sees them that
knows nothing of partial labels. All three train on the same cases with the same plan, seed and steps, and are measured
on the same validation cases with their whole labels. Goes on where it was.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from swinssl.core import files
from swinssl.dataset.case import Case
from swinssl.dataset.raw_dataset import RawDataset
from swinssl.dataset.splits import SPLITS_FILE, make_splits
from swinssl.evaluation.summary import METRICS_FILE
from swinssl.experiments.benchmark.commands import run_script, run_swinssl
from swinssl.imageio.formats import required_ending
from swinssl.imageio.reader import read_label
from swinssl.imageio.writer import write_volume

WAYS = ("whole", "partial", "partial, not said")


def main() -> int:
    """Make the three data sets, train on each, print the table; 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw", type=Path, required=True)
    parser.add_argument("--drop", nargs="+", required=True, metavar="STRUCTURE")
    parser.add_argument("--work", type=Path, default=Path("partial_labels"))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--plan", nargs=argparse.REMAINDER, default=[], help="options of swinssl_plan; last")
    given = parser.parse_args()
    raw = RawDataset.load(given.raw)
    train, validation = _fold(raw)
    half = train[::2]
    scores: dict[str, dict[str, float]] = {}
    for number, way in enumerate(WAYS):
        name = f"Dataset{900 + number}_{raw.name.partition('_')[2]}"
        root = given.work / "root"
        _make(
            raw, root / "raw" / name, [*train, *validation], () if way == "whole" else half, given.drop, say=number < 2
        )
        _train(root, name, validation, steps=given.steps, plan=given.plan)
        predictions = root / "results" / name / "model" / "fold_0" / "validation"
        out = given.work / "evaluations" / name
        what = ["-p", predictions, "-r", _references(raw, validation, given.work / "references")]
        run_swinssl("evaluate", *what, "--dataset", given.raw / "dataset.json", "--out", out)
        scores[way] = _means(out / METRICS_FILE)
    dropped = f"taken away in {len(half)} of {len(train)} training cases"
    print(f"\nmean Dice of {len(validation)} validation cases, {given.steps} steps; {', '.join(given.drop)} {dropped}")
    print(f"{'':18}" + "".join(f"{name:>15}" for name in scores["whole"]))
    for way, own in scores.items():
        print(f"{way:18}" + "".join(f"{value:15.3f}" for value in own.values()))
    files.write_json(given.work / "partial_labels.json", {"steps": given.steps, "drop": given.drop, "dice": scores})
    return 0


def _fold(raw: RawDataset) -> tuple[list[Case], list[Case]]:
    fold = make_splits({case.id: raw.labels.names for case in raw.cases})[0]
    return [raw.case(i) for i in fold.train], [raw.case(i) for i in fold.val]


def _make(
    raw: RawDataset, folder: Path, cases: Sequence[Case], partial: Sequence[Case], drop: Sequence[str], *, say: bool
) -> None:
    if (folder / "dataset.json").is_file():
        return
    lost = [
        value for name, own in zip(raw.labels.names, raw.labels.values, strict=True) if name in drop for value in own
    ]
    kept = [name for name in raw.labels.names if name not in drop]
    for case in cases:
        assert case.label is not None
        for channel, image in enumerate(case.images):
            link = folder / "imagesTr" / f"{case.id}_{channel:04d}{required_ending(image)}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(image.absolute())
        label = read_label(case.label)
        codes = label.array[0]
        if case in partial:
            codes = np.where(np.isin(codes, lost), 0, codes).astype(codes.dtype)
        write_volume(folder / "labelsTr" / f"{case.id}{required_ending(case.label)}", codes, label.geometry)
    if partial and say:
        rows = [[case.id, ";".join(kept if case in partial else raw.labels.names)] for case in cases]
        text = "\n".join(",".join(row) for row in [["case", "structures"], *rows])
        files.write_text(folder / "labels_present.csv", text + "\n")
    files.write_json(folder / "dataset.json", {**raw.description, "numTraining": len(cases)})


def _train(root: Path, name: str, validation: Sequence[Case], *, steps: int, plan: Sequence[str]) -> None:
    raw = root / "raw" / name
    held_out = [case.id for case in validation]
    train = sorted({path.name.removesuffix("_0000.nii.gz") for path in (raw / "imagesTr").iterdir()} - {*held_out})
    files.write_json(raw / SPLITS_FILE, [{"train": train, "val": held_out}])
    run_swinssl("plan", raw, "--root", root, *plan)
    run_swinssl("preprocess", raw, "--root", root)
    length = ["--steps", steps, "--patience", 1_000_000]
    run_swinssl("train", raw, "--root", root, "--name", "model", "--fold", 0, *length)


def _references(raw: RawDataset, validation: Sequence[Case], folder: Path) -> Path:
    """Whole labels of the validation cases, as links."""
    folder.mkdir(parents=True, exist_ok=True)
    for case in validation:
        assert case.label is not None
        link = folder / case.label.name
        if not link.is_symlink():
            link.symlink_to(case.label.absolute())
    return folder


def _means(metrics: Path) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    with metrics.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if row["Dice"]:
                found.setdefault(row["structure"], []).append(float(row["Dice"]))
    return {name: sum(own) / len(own) for name, own in found.items()}


if __name__ == "__main__":
    run_script(main)
