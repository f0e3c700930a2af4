"""What several pretraining runs came to: a row each, and one page with their pictures inside."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from swinssl.core import files
from swinssl.evaluation.report.html.content import Figure, HtmlReport, Section, Table
from swinssl.evaluation.report.html.write import write_report
from swinssl.ssl.pretraining import PretrainingRun

PICTURES = ("progress.png", "learnt.png")


@dataclass(frozen=True)
class Row:
    """One run.

    Args:
        folder: where it lies.
        images_per_second: samples; a method with two views a sample sees twice as many crops.
        waiting_percent: of the time of its steps, for data.
        first_loss, last_loss: of the first and the last line of its log.
        feature_deviation, effective_rank: at the end; see docs/pretraining.md.
        probe_untrained, probe_last, probe_best: Dice of the frozen probe; None without one.
    """

    method: str
    folder: Path
    steps: int
    batch_size: int
    minutes: float
    images_per_second: float
    waiting_percent: float
    first_loss: float
    last_loss: float
    feature_deviation: float | None
    effective_rank: float | None
    probe_untrained: float | None
    probe_last: float | None
    probe_best: float | None


def row_of(folder: Path) -> Row:
    """The row of a finished run.

    Raises:
        UserError: `run.json` is missing or cannot be read.
    """
    run = PretrainingRun.read(folder / "run.json")
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    last, probed = log[-1], [entry for entry in log if "validation_score" in entry]
    steps, seconds = run.steps or 0, run.seconds or 0.0
    batch_size = round((run.images_per_second or 0.0) * seconds / max(steps, 1))
    # Speed is that of the steps, in which waiting for data is: neither the probe nor pictures are.
    working = sum(
        (entry["step"] - before["step"]) * batch_size / entry["samples_per_second"]
        for before, entry in zip([{"step": 0}, *log], log, strict=False)
    )
    waiting = sum(entry["waiting_seconds"] for entry in log)
    return Row(
        method=run.method,
        folder=folder,
        steps=steps,
        batch_size=batch_size,
        minutes=round(seconds / 60, 2),
        images_per_second=round(steps * batch_size / working, 2),
        waiting_percent=round(100 * waiting / working, 2),
        first_loss=round(log[0]["loss"], 4),
        last_loss=round(last["loss"], 4),
        feature_deviation=_rounded(last.get("feature_deviation")),
        effective_rank=_rounded(last.get("effective_rank")),
        probe_untrained=_rounded(probed[0]["validation_untrained"]) if probed else None,
        probe_last=_rounded(probed[-1]["validation_score"]) if probed else None,
        probe_best=_rounded(max(entry["validation_score"] for entry in probed)) if probed else None,
    )


def write_table(rows: Sequence[Row], path: Path) -> None:
    """Write the rows as CSV."""
    names = _columns()
    with files.atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(names)
        writer.writerows([_shown(getattr(row, name)) for name in names] for row in rows)


def write_page(rows: Sequence[Row], path: Path) -> None:
    """Write the rows and the pictures of their runs as one HTML file that asks for no other."""
    names = _columns()
    cells = [[getattr(row, name) for name in names] for row in rows]
    table = Table("Runs", [name.replace("_", " ") for name in names], cells)
    runs = [
        Section(row.method, figures=[Figure(row.folder / name, "", alt=Path(name).stem) for name in PICTURES])
        for row in rows
    ]
    write_report(path, HtmlReport("Pretraining methods", "", [Section("Runs", tables=[table]), *runs]))


def _columns() -> list[str]:
    return [field.name for field in fields(Row) if field.name != "folder"]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _shown(value: object) -> str:
    return "" if value is None else str(value)
