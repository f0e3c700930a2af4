"""Table 2 of the paper: every model on every structure, mean and SD over patients, as Markdown, HTML and CSV."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from swinssl.core import files
from swinssl.core.text import csv_text, html_text, markdown_cell
from swinssl.evaluation.comparison.score_table import ScoreTable
from swinssl.metrics.registry import DICE, lower_is_better

NAME = "table"
MEAN = "mean"


@dataclass(frozen=True)
class Cell:
    """Mean and SD over patients; None where there is nothing, or of a single patient no SD."""

    mean: float | None
    sd: float | None

    def __str__(self) -> str:
        if self.mean is None:
            return "-"
        return f"{self.mean:.3f}" + ("" if self.sd is None else f" ({self.sd:.3f})")


@dataclass(frozen=True)
class LargeTable:
    """Cells (models, columns).

    Args:
        columns: setting and structure; the last of each setting is the mean over structures.
    """

    models: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]
    cells: tuple[tuple[Cell, ...], ...]
    lower_is_better: bool

    def is_best(self, row: int, column: int) -> bool:
        """Whether no model has a better mean there, as printed."""
        means = [own[column].mean for own in self.cells]
        known = [round(mean, 3) for mean in means if mean is not None]
        mean = means[row]
        return mean is not None and round(mean, 3) == (min if self.lower_is_better else max)(known)


def large_table(table: ScoreTable, *, metric: str = DICE) -> LargeTable:
    """Of all settings of a table."""
    columns: list[tuple[str, str]] = []
    cells: list[list[Cell]] = [[] for _ in table.models]
    for name, part in table.settings.items():
        scopes: dict[str, tuple[str, ...]] = {structure: (structure,) for structure in part.structures}
        if len(scopes) > 1:
            scopes[MEAN] = part.structures
        for title, structures in scopes.items():
            columns.append((name, title))
            for row, model in zip(cells, table.models, strict=True):
                row.append(_cell(list(part.unit_means(model, metric=metric, structures=structures).values())))
    return LargeTable(table.models, tuple(columns), tuple(map(tuple, cells)), lower_is_better(metric))


def write_table(table: LargeTable, folder: Path) -> tuple[str, ...]:
    """Write table.md, table.html and table.csv into a folder; gives their names."""
    written = {f"{NAME}.md": markdown(table), f"{NAME}.html": as_html(table), f"{NAME}.csv": as_csv(table)}
    for name, text in written.items():
        files.write_text(folder / name, text)
    return tuple(written)


def markdown(table: LargeTable) -> str:
    """The best of a column in bold."""
    head = ["model", *(markdown_cell(": ".join(filter(None, column))) for column in table.columns)]
    lines = [head, ["---"] * len(head)]
    for row, model in enumerate(table.models):
        marks = ["**" if table.is_best(row, column) else "" for column in range(len(table.columns))]
        lines.append(
            [markdown_cell(model), *(f"{mark}{cell}{mark}" for mark, cell in zip(marks, table.cells[row], strict=True))]
        )
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_html(table: LargeTable) -> str:
    """A page of its own, settings above their structures."""
    spans: dict[str, int] = {}
    for setting, _ in table.columns:
        spans[setting] = spans.get(setting, 0) + 1
    above = "".join(f'<th colspan="{count}">{html_text(name)}</th>' for name, count in spans.items())
    below = "".join(f"<th>{html_text(structure)}</th>" for _, structure in table.columns)
    rows = []
    for row, model in enumerate(table.models):
        marks = ["b" if table.is_best(row, column) else "span" for column in range(len(table.columns))]
        cells = zip(marks, table.cells[row], strict=True)
        rows.append(f"<tr><th>{html_text(model)}</th>{''.join(f'<td><{m}>{c}</{m}></td>' for m, c in cells)}</tr>")
    style = "table{border-collapse:collapse;font:14px sans-serif}td,th{padding:3px 8px;border-bottom:1px solid #ccc}"
    head = f'<tr><th rowspan="2">model</th>{above}</tr>\n<tr>{below}</tr>'
    body = "\n".join(rows)
    note = "<p>Mean (SD) over patients; bold: the best of a column.</p>"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Scores</title>'
        f"<style>{style}</style></head>\n<body>\n<table>\n{head}\n{body}\n</table>\n{note}\n</body></html>\n"
    )


def as_csv(table: LargeTable) -> str:
    """A row a model and column: setting, structure, mean, sd."""
    return csv_text(
        {"model": model, "setting": setting, "structure": structure, "mean": cell.mean, "sd": cell.sd}
        for model, cells in zip(table.models, table.cells, strict=True)
        for (setting, structure), cell in zip(table.columns, cells, strict=True)
    )


def _cell(values: list[float]) -> Cell:
    if not values:
        return Cell(None, None)
    return Cell(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None)
