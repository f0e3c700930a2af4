"""The results of a benchmark as two tables, from which it resumes at any place.

cells.csv        one row per finished cell: its settings, steps, minutes, cases and the hashes of what it made
scores.csv.gz    one row per test case and structure of every finished training; `swinssl_compare` reads it
<task>_plans.json    the plan of each task, so that cells of another machine use the same one

The tables are the record: cell folders hold weights, predictions and logs, and may be deleted.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.core.locks import FileLock
from swinssl.core.text import csv_records, csv_text

CELLS_TABLE, SCORES_TABLE, LOCK_FILE = "cells.csv", "scores.csv.gz", ".tables.lock"
VERSION = 1
# A field of these is text as it stands; all others are JSON, so that numbers, lists and null come back as they were.
TEXT_COLUMNS = ("cell", "device", "training", "predictions", "ended", "sha256", "left_out")
FIRST_COLUMNS = ("cell", "mean_dice", "steps", "minutes", "device")
REMEDY = "Restore it from a copy, or delete it and rerun the command; the cells are then run again."

Record = dict[str, Any]
ScoreRow = dict[str, str]


@dataclass
class ResultTables:
    """The tables in a folder. Processes may share them; every write happens under one lock.

    Args:
        folder: need not exist before the first cell is added.
    """

    folder: Path
    _stamp: tuple[Any, ...] | None = field(default=None, repr=False)
    _records: dict[str, Record] = field(default_factory=dict, repr=False)
    _scores: dict[str, list[ScoreRow]] = field(default_factory=dict, repr=False)

    @property
    def cells_path(self) -> Path:
        return self.folder / CELLS_TABLE

    @property
    def scores_path(self) -> Path:
        return self.folder / SCORES_TABLE

    def plans_path(self, task: str) -> Path:
        """The plan that the cells of a task used."""
        return self.folder / f"{task}_plans.json"

    def records(self) -> Mapping[str, Record]:
        """The record of every finished cell by its key.

        Raises:
            UserError: a table cannot be read, or a row was edited.
        """
        self._read()
        return self._records

    def scores(self, key: str) -> Sequence[ScoreRow]:
        """The scores of a cell; empty if the table has none."""
        self._read()
        return self._scores.get(key, [])

    def has_scores(self, key: str, record: Record) -> bool:
        """Whether the scores of a cell are the ones that its record names."""
        return record.get("scores") is None or record["scores"] == scores_hash(self.scores(key))

    def add(self, cells: Mapping[str, tuple[Record, Sequence[ScoreRow]]]) -> None:
        """Add finished cells, replacing rows of the same cells. The scores are written first: the row of a cell says
        that it is done.

        Raises:
            UserError: as of `records`.
        """
        lock = FileLock(self.folder / LOCK_FILE)
        lock.take(wait=True)
        try:
            self._read()
            records, scores = dict(self._records), dict(self._scores)
            for key, (record, rows) in cells.items():
                records[key] = sealed(record | {"scores": scores_hash(rows) if rows else None})
                scores[key] = list(rows)
            ordered = sorted(records, key=_order)
            kept = [row for key in ordered for row in scores.get(key, ())]
            if kept:
                text = csv_text(kept).encode()
                files.write_bytes(self.scores_path, gzip.compress(text, compresslevel=9, mtime=0))
            rows_of_cells = [_row(key, records[key]) for key in ordered]
            columns = dict.fromkeys((*FIRST_COLUMNS, *(name for row in rows_of_cells for name in row)))
            files.write_text(self.cells_path, csv_text(rows_of_cells, list(columns)))
        finally:
            lock.release(remove=True)

    def _read(self) -> None:
        """Read both tables unless they are as they were read; the rows of cells first, as they are written last."""
        stamp = tuple(_stamp(path) for path in (self.cells_path, self.scores_path))
        if stamp == self._stamp:
            return
        records = {}
        if self.cells_path.is_file():
            for row in _read_csv(self.cells_path, files.read_text):
                records[row.get("cell", "")] = _record(self.cells_path, row)
        scores: dict[str, list[ScoreRow]] = {}
        if self.scores_path.is_file():
            for row in _read_csv(self.scores_path, _gunzip):
                scores.setdefault(key_of_scores(row), []).append(row)
        self._records, self._scores, self._stamp = records, scores, stamp


def sealed(record: Record) -> Record:
    """A record with its own hash."""
    return {**record, "sha256": record_hash(record)}


def record_hash(record: Record, *, null: bool = False) -> str:
    """SHA-256 of a record without the hash itself.

    Args:
        null: null is part of it, as in version 0.1.0. In a table null and absent are both an empty field.
    """
    content = {name: value for name, value in record.items() if name != "sha256" and (null or value is not None)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def scores_hash(rows: Sequence[ScoreRow]) -> str:
    """SHA-256 of the scores of a cell; columns that are empty, as those of other cells, do not count."""
    content = [{name: value for name, value in row.items() if value != ""} for row in rows]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def key_of_scores(row: Mapping[str, str]) -> str:
    """The key of the training that a row of scores belongs to."""
    shots = row.get("shots", "")
    few = f"{shots}shots" if shots.isdecimal() else shots
    return f"cells/{row.get('task')}/{row.get('model')}/{few}/seed{row.get('seed')}"


def _row(key: str, record: Record) -> dict[str, str]:
    values = {"cell": key, **record}
    return {
        name: value if name in TEXT_COLUMNS else json.dumps(value)
        for name, value in values.items()
        if value is not None
    } | {"version": str(VERSION)}


def _record(path: Path, row: Mapping[str, str]) -> Record:
    """The record of a row, which is checked against its hash."""
    key = row.get("cell", "")
    if row.get("version", "") != str(VERSION):
        found = row.get("version") or "none"
        raise UserError(f"{path}: the row of cell {key!r} has version {found}, expected {VERSION}. {REMEDY}")
    try:
        record = {
            name: value if name in TEXT_COLUMNS else json.loads(value)
            for name, value in row.items()
            if value != "" and name not in ("cell", "version")
        }
    except ValueError:
        record = {}
    complete = isinstance(record.get("settings"), dict) and isinstance(record.get("minutes"), int | float)
    if not complete or record.get("sha256") != record_hash(record):
        raise UserError(
            f"{path}: the row of cell {key!r} was changed after the cell was done. Restore the file from a copy, or "
            "delete this row and rerun the command; the cell is then run again."
        )
    return record


def _read_csv(path: Path, read: Any) -> list[dict[str, str]]:
    try:
        return csv_records(read(path))
    except (OSError, EOFError, zlib.error, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read as a table of a benchmark ({reason}). {REMEDY}") from None


def _gunzip(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode("utf-8")


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _order(key: str) -> tuple[tuple[str, int, str], ...]:
    """Keys in order, numbers by their size: `5shots` before `20shots`, `all` after both."""
    parts = []
    for part in key.split("/"):
        stem = part.removesuffix("shots").removeprefix("seed")
        parts.append(("0", int(stem), "") if stem.isdecimal() else ("1", 0, part))
    return tuple(parts)
