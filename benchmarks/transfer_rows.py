"""The results of transfer.py as a small table on disk: a row a test case of a cell, a cell's rows all at once."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.evaluation.comparison.score_table import Score, ScoreTable
from swinssl.metrics.registry import DICE

BEFORE, MEAN = ("init", "seed", "steps", "minutes", "case"), "mean"


@dataclass(frozen=True)
class Row:
    """A test case of a cell.

    Args:
        init: what the network started from, or which peer it is.
        seed: of the run, and which cases it was trained on.
        steps: of the training.
        minutes: that it took.
        dice: by structure; None where neither map has it.
        mean: over the structures that have one.
    """

    init: str
    seed: int
    steps: int
    minutes: float
    case: str
    dice: dict[str, float | None]
    mean: float | None


def read_rows(path: Path) -> tuple[Row, ...]:
    """All rows; none where the file is not there.

    Raises:
        UserError: it is not such a table.
    """
    if not path.exists():
        return ()
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        names = tuple(reader.fieldnames or ())
        if names[: len(BEFORE)] != BEFORE or names[-1] != MEAN:
            raise UserError(
                f"{path}: not a table of this benchmark; expected columns {', '.join(BEFORE)}, ..., {MEAN}."
            )
        try:
            return tuple(_row(entry, names[len(BEFORE) : -1]) for entry in reader)
        except (TypeError, ValueError) as error:
            raise UserError(
                f"{path}: a row cannot be read ({error}). Take the file from the repository again."
            ) from None


def add_rows(path: Path, rows: Sequence[Row]) -> None:
    """Add the rows of a cell to those that are there now; the file is replaced whole.

    Raises:
        UserError: what is there is of other structures.
    """
    there = read_rows(path)
    structures = list(rows[0].dice)
    if there and list(there[0].dice) != structures:
        raise UserError(f"{path}: has the structures {', '.join(there[0].dice)}, not {', '.join(structures)}.")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*BEFORE, *structures, MEAN])
    for row in (*there, *rows):
        scores = [_written(value) for value in (*row.dice.values(), row.mean)]
        writer.writerow([row.init, row.seed, row.steps, f"{row.minutes:.2f}", row.case, *scores])
    files.write_text(path, text.getvalue())


def scores_of(rows: Sequence[Row]) -> ScoreTable:
    """The rows as swinssl_compare has them, a score a structure."""
    return ScoreTable(
        tuple(
            Score(row.init, row.case, name, {} if dice is None else {DICE: dice}, seed=str(row.seed))
            for row in rows
            for name, dice in row.dice.items()
        )
    )


def is_done(rows: Sequence[Row], init: str, seed: int, *, test: Collection[str], steps: int | None) -> bool:
    """Whether the rows of a cell are there.

    Args:
        test: the cases that it must have.
        steps: that it must have been trained; None takes any.

    Raises:
        UserError: it is there, and of something else.
    """
    own = [row for row in rows if (row.init, row.seed) == (init, seed)]
    if not own:
        return False
    what = None
    if sorted(row.case for row in own) != sorted(test):
        what = "other test cases"
    elif steps is not None and any(row.steps != steps for row in own):
        what = f"{own[0].steps} steps"
    if what:
        raise UserError(f"{init}, seed {seed}: the results have it with {what}. Give the same, or another --results.")
    return True


def _row(entry: dict[str, str], structures: Sequence[str]) -> Row:
    return Row(
        init=entry["init"],
        seed=int(entry["seed"]),
        steps=int(entry["steps"]),
        minutes=float(entry["minutes"]),
        case=entry["case"],
        dice={name: _read(entry[name]) for name in structures},
        mean=_read(entry[MEAN]),
    )


def _read(text: str) -> float | None:
    return float(text) if text else None


def _written(value: float | None) -> str:
    return "" if value is None else f"{value:.5f}"
