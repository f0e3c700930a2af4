"""Keeps a benchmark in small files: its finished cells, the comparison, and the figures that are drawn in lines.

    python benchmarks/miniature/keep.py ROOT/results/benchmarks/first_tier

The page with its cases (`report.html`), weights, predictions and pictures of patients stay out. Where `cells/` and
`workspaces/` are put back beneath another ROOT, the benchmark goes on with the cells that are left, by the same plan.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swinssl.core import files
from swinssl.core.text import csv_text
from swinssl.evaluation.comparison.convergence import LOG_FILE
from swinssl.experiments.benchmark.cell_runs import SCORES_FILE
from swinssl.experiments.benchmark.study import CELL_FILE
from swinssl.preprocessing.plans import PLANS_FILE

RESULTS = Path(__file__).parent / "results"
ENDINGS = {".csv", ".json", ".md", ".svg"}
# Pictures of patients: data of others, and large. All scores: those of the cells once more.
LEFT_OUT = {"overlays.svg", SCORES_FILE}
OF_A_CELL = (CELL_FILE, SCORES_FILE, LOG_FILE)


def main() -> None:
    """Copy, in place of what was kept before."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", type=Path, help="its folder")
    given = parser.parse_args()
    report, kept = given.benchmark / "report", RESULTS / given.benchmark.name
    if not report.is_dir():
        parser.error(f"{report}: no such folder. Run swinssl_benchmark first.")
    shutil.rmtree(kept, ignore_errors=True)
    for path in sorted(report.rglob("*")):
        if path.suffix in ENDINGS and path.name not in LEFT_OUT:
            copy(path, kept / path.relative_to(report))
    for plans in sorted(given.benchmark.glob(f"workspaces/*/preprocessed/*/{PLANS_FILE}")):
        copy(plans, kept / plans.relative_to(given.benchmark))
    for record in sorted((given.benchmark / "cells").rglob(CELL_FILE)):
        for path in (record.parent / name for name in OF_A_CELL):
            if path.is_file():
                copy(path, kept / path.relative_to(given.benchmark))
    if rows := list(curves(given.benchmark / "cka")):
        files.write_text(kept / "cka.csv", csv_text(rows))
    print(f"kept: {kept}")


def copy(path: Path, target: Path) -> None:
    """Into a folder that is made where it is missing."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)


def curves(folder: Path) -> Iterator[dict[str, Any]]:
    """A row a block: CKA of the encoder before fine-tuning with itself after it."""
    for path in sorted(folder.rglob("cka.json")):
        task, init, shots, seed = path.parent.relative_to(folder).parts
        cell = {"task": task, "init": init, "shots": shots, "seed": seed}
        content = files.read_json(path, what="comparison of encoders", remedy="Delete its folder and run it again.")
        yield from ({**cell, **point} for point in content["curve"])


if __name__ == "__main__":
    main()
