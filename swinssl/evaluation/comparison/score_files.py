"""Reading the scores of models: `metrics.csv` of swinssl_evaluate, or one table of all models.

A table of all models is long (a row a case and structure, a column a score) or wide (a row a case, a column the Dice of
a structure; a column `mean` is computed anew).
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.core.text import csv_rows, listed
from swinssl.evaluation.comparison.score_table import Score, ScoreTable
from swinssl.evaluation.summary import METRICS_FILE
from swinssl.metrics.registry import DICE, aliases

MODEL, SEED, CASE, STRUCTURE = "model", "seed", "case", "structure"
# Columns of a table, by the field of a Score.
WORDS = ("patient", "task", "modality", "shots")
NUMBERS = ("volumes", "parameters")
OTHER_NAMES = {"init": MODEL, "group": "patient"}
# Of metrics.csv and of the benchmark's table: they are no scores.
NO_SCORES = ("label", "steps", "minutes", "mean")
# Where a folder given for a model has its table.
PLACES = (".", "validation", "cross_validation")
REMEDY = "Give metrics.csv of swinssl_evaluate, or a table with the columns model, case, structure, Dice."


def read_scores(given: Sequence[str]) -> ScoreTable:
    """All scores that were given.

    Args:
        given: `NAME=PATH` of a metrics.csv or a folder with one, each further one of a name being the next seed; or
            the path of a table of all models, which may be compressed (.csv.gz).

    Raises:
        UserError: a file is missing, is no such table, or has something twice.
    """
    scores: list[Score] = []
    runs: dict[str, int] = {}
    for one in given:
        name, equals, path = one.partition("=")
        if not equals or Path(one).exists():
            scores += _table(Path(one))
            continue
        if not name or not path:
            raise UserError(f"{one}: expected NAME=FOLDER. Say which model the results are of.")
        scores += _metrics(_metrics_file(Path(path)), name, str(runs.setdefault(name, 0)))
        runs[name] += 1
    _check_unique(scores)
    return ScoreTable(tuple(scores))


def _metrics_file(path: Path) -> Path:
    if path.is_file():
        return path
    found = next((file for place in PLACES if (file := path / place / METRICS_FILE).is_file()), None)
    if found is None:
        raise UserError(f"{path}: no {METRICS_FILE} here. Make it with swinssl_evaluate, or correct the path.")
    return found


def _metrics(path: Path, model: str, seed: str) -> list[Score]:
    names, rows = _rows(path)
    _demand(path, names, (CASE, STRUCTURE))
    scores = _score_columns(names)
    return [_score(path, line, {**row, MODEL: model, SEED: seed}, scores) for line, row in rows]


def table_of(path: Path, rows: Sequence[Mapping[str, str]]) -> ScoreTable:
    """The scores of rows that were read already, all with the same columns; `path` is their file, for messages."""
    names = [other_names().get(name.lower(), _plain(name)) for name in (rows[0] if rows else ())]
    columns = _score_columns(names)
    scores = [
        _score(path, line, dict(zip(names, row.values(), strict=True)), columns) for line, row in enumerate(rows, 2)
    ]
    _check_unique(scores)
    return ScoreTable(tuple(scores))


def other_names() -> dict[str, str]:
    """Further names of columns, by the name that is understood."""
    return OTHER_NAMES | aliases()


def _table(path: Path) -> list[Score]:
    names, rows = _rows(path)
    if MODEL not in names and {CASE, STRUCTURE} <= set(names):
        raise UserError(f"{path}: does not say which model it is of. Give it as NAME={path}.")
    _demand(path, names, (MODEL, CASE))
    columns = _score_columns(names)
    if STRUCTURE in names:
        return [_score(path, line, row, columns) for line, row in rows]
    return [
        _score(path, line, {**row, STRUCTURE: structure, DICE: row[structure]}, (DICE,))
        for line, row in rows
        for structure in columns
    ]


def _rows(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Columns by the names that we use, and the rows with their line."""
    try:
        text = _text(path)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read ({reason}). {REMEDY}") from None
    header = text.partition("\n")[0]
    try:
        lines = list(csv_rows(text, delimiter=max(",;\t", key=header.count)))
    except ValueError as error:
        raise UserError(f"{path}: cannot be read as CSV ({error}). {REMEDY}") from None
    known = other_names()
    names = [known.get(name.strip().lower(), _plain(name.strip())) for name in lines[0][1]] if lines else []
    if len(set(names)) < len(names):
        raise UserError(f"{path}: two columns have one name ({listed(names)}). Rename or remove one.")
    rows = []
    for line, row in lines[1:]:
        if any(row):
            if len(row) != len(names):
                raise UserError(f"{path}: line {line} has {len(row)} fields, not {len(names)}. Correct it.")
            rows.append((line, {name: value.strip() for name, value in zip(names, row, strict=True)}))
    if not rows:
        raise UserError(f"{path}: no scores in it. {REMEDY}")
    return names, rows


def _text(path: Path) -> str:
    """The content of a table, compressed (.gz) or not."""
    if path.suffix == ".gz":
        return gzip.decompress(files.read_bytes(path)).decode("utf-8-sig")
    return files.read_text(path)


def _plain(name: str) -> str:
    """Names of facts in small letters; names of scores and structures as they are."""
    small = name.lower()
    return small if small in (MODEL, SEED, CASE, STRUCTURE, *WORDS, *NUMBERS, *NO_SCORES) else name


def _demand(path: Path, names: Sequence[str], wanted: Sequence[str]) -> None:
    if missing := [name for name in wanted if name not in names]:
        raise UserError(f"{path}: no column {missing[0]!r}, only {listed(names)}. {REMEDY}")
    if not _score_columns(names):
        raise UserError(f"{path}: no column with scores, only {listed(names)}. {REMEDY}")


def _score_columns(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name not in (MODEL, SEED, CASE, STRUCTURE, *WORDS, *NUMBERS, *NO_SCORES))


def _score(path: Path, line: int, row: Mapping[str, str], columns: Sequence[str]) -> Score:
    for name in (MODEL, CASE, STRUCTURE):
        if not row[name]:
            raise UserError(f"{path}: line {line} has no {name}. Fill it in, or remove the line.")
    values = {name: _number(path, line, name, row[name]) for name in columns}
    facts = {name: _number(path, line, name, row.get(name, "")) for name in NUMBERS}
    return Score(
        model=row[MODEL],
        case=row[CASE],
        structure=row[STRUCTURE],
        values={name: value for name, value in values.items() if value is not None},
        seed=row.get(SEED) or "0",
        volumes=facts["volumes"],
        parameters=facts["parameters"],
        **{name: row.get(name, "") for name in WORDS},
    )


def _number(path: Path, line: int, name: str, text: str) -> float | None:
    """None for an empty field or NaN: undefined."""
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.inf
    if math.isinf(value):
        raise UserError(f"{path}: line {line}, {name} is {text!r}. Expected a number; leave what is undefined empty.")
    return None if math.isnan(value) else value


def _check_unique(scores: Sequence[Score]) -> None:
    seen: set[tuple[object, ...]] = set()
    for score in scores:
        if (key := (score.model, score.seed, score.case, score.structure, score.setting)) in seen:
            where = ", ".join(_told(score))
            raise UserError(f"{where}: there twice. Give each result once; further runs of a model differ in seed.")
        seen.add(key)


def _told(score: Score) -> Iterator[str]:
    yield f"model {score.model}"
    yield f"seed {score.seed}"
    yield f"case {score.case}"
    yield score.structure
