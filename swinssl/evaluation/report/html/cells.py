"""A table as it is shown: the text of each cell, what it sorts by, and which are the best of their column."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from swinssl.evaluation.report.html.content import Better, Cell, Table

NOTHING = "–"


@dataclass(frozen=True)
class ShownCell:
    """A cell.

    Args:
        sort: the number or text that it sorts by; None sorts last either way.
        best: it is marked.
    """

    text: str
    sort: str | None
    best: bool = False


@dataclass(frozen=True)
class ShownTable:
    """A table; `numeric` tells of each column whether it sorts by number, `prose` as in `Table`."""

    caption: str
    columns: Sequence[str]
    numeric: Sequence[bool]
    rows: Sequence[Sequence[ShownCell]]
    prose: bool = False


def shown_table(table: Table) -> ShownTable:
    """The table with its cells as text."""
    rows = [[_finite(value) for value in row] for row in table.rows]
    by_column = [[row[index] for row in rows] for index in range(len(table.columns))]
    numeric = [_numeric(values) for values in by_column]
    best = [_best(values, table.best.get(name)) for name, values in zip(table.columns, by_column, strict=True)]
    shown = [
        [shown_cell(value, best=value is not None and value == top) for value, top in zip(row, best, strict=True)]
        for row in rows
    ]
    return ShownTable(table.caption, table.columns, numeric, shown, table.prose)


def shown_cell(value: Cell, *, best: bool = False) -> ShownCell:
    """Numbers with three digits after the point, very small ones by their power of ten; what is not there as a dash."""
    value = _finite(value)
    if value is None:
        return ShownCell(NOTHING, None)
    if isinstance(value, float):
        small = 0 < abs(value) < 5e-4
        return ShownCell(f"{value:.1e}" if small else f"{value:.3f}", repr(value), best)
    return ShownCell(str(value), str(value), best)


def _finite(value: Cell) -> Cell:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _numeric(values: Sequence[Cell]) -> bool:
    there = [value for value in values if value is not None]
    return bool(there) and all(isinstance(value, int | float) for value in there)


def _best(values: Sequence[Cell], better: Better | None) -> Cell:
    numbers = [value for value in values if isinstance(value, int | float)]
    if better is None or len(numbers) < 2:
        return None
    return max(numbers) if better == "highest" else min(numbers)
