"""What a benchmark comes to: one table of all scores that are there."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from swinssl import files
from swinssl.errors import UserError
from swinssl.experiments.benchmark import Benchmark, training_cells
from swinssl.experiments.cell_runs import SCORES_FILE


def write_benchmark_report(benchmark: Benchmark) -> Path:
    """Write the report of all cells that are done; its folder.

    Raises:
        UserError: none is.
    """
    folder = benchmark.report_folder
    files.write_text(folder / SCORES_FILE, all_scores(benchmark))
    return folder


def all_scores(benchmark: Benchmark) -> str:
    """The rows of all cells that are done, in the order of the cells.

    Raises:
        UserError: none is.
    """
    tables = [benchmark.place(cell) / SCORES_FILE for cell in training_cells(benchmark) if benchmark.is_done(cell)]
    if not tables:
        raise UserError(f"{benchmark.folder}: no cell is done, so there is nothing to report. Run it first.")
    rows = [row for path in tables for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines())]
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
