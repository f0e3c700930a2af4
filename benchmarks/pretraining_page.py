"""What several pretraining runs came to: a row each, and one page with their pictures inside."""

from __future__ import annotations

import base64
import csv
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from swinssl import files
from swinssl.ssl.run_description import PretrainingRun

PICTURES = ("progress.png", "learnt.png")
STYLE = """body { font: 15px/1.4 sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse } td, th { padding: .2em .7em; text-align: right; border-bottom: 1px solid #ccc }
td:first-child, th:first-child { text-align: left } img { max-width: 100%; border: 1px solid #ccc }"""


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
    head = "".join(f"<th>{html.escape(name.replace('_', ' '))}</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(_shown(getattr(row, name)))}</td>" for name in names) + "</tr>"
        for row in rows
    )
    sections = "".join(
        f"<h2>{html.escape(row.method)}</h2>" + "".join(_picture(row.folder / name) for name in PICTURES)
        for row in rows
    )
    page = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Pretraining methods</title><style>{STYLE}</style>"
        f"<h1>Pretraining methods</h1><table><tr>{head}</tr>{body}</table>{sections}</html>\n"
    )
    with files.atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _columns() -> list[str]:
    return [field.name for field in fields(Row) if field.name != "folder"]


def _picture(path: Path) -> str:
    encoded = base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<p><img alt="{html.escape(path.stem)}" src="data:image/png;base64,{encoded}"></p>'


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _shown(value: object) -> str:
    return "" if value is None else str(value)
