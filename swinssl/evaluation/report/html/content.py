"""What a report says. Made by whoever compared something; `write.py` turns it into a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from swinssl.metrics.structures import Structure

Cell = str | float | int | None
Better = Literal["highest", "lowest"]
# Of a case: by model, by structure. A structure that the case lacks is left out or None.
Scores = Mapping[str, Mapping[str, float | None]]


@dataclass(frozen=True)
class Table:
    """Rows that a reader can sort by any column.

    Args:
        rows: as long as `columns`; None is shown as a dash and sorts last.
        best: columns whose best value is marked, and which value that is.
        prose: cells hold sentences; on a narrow screen they stand below each other.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    best: Mapping[str, Better] = field(default_factory=dict)
    prose: bool = False

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"table {self.caption!r}: a row has not {len(self.columns)} cells")
        if unknown := set(self.best) - set(self.columns):
            raise ValueError(f"table {self.caption!r}: no column {sorted(unknown)}")


@dataclass(frozen=True)
class Figure:
    """A picture.

    Args:
        path: an SVG file, which becomes part of the page, or a PNG file.
        alt: what it shows, in words, for who cannot see it.
    """

    path: Path
    caption: str
    alt: str


@dataclass(frozen=True)
class Case:
    """A case to look at: its image, and label maps on the same grid.

    Args:
        image: of its first channel.
        predictions: label map by model; a model without one, or whose file is missing, is said to have none.
        scores: a number in 0 to 1 for each model and structure, higher is better.
        structures: what the values of the maps are called; values without a name are shown as `label 3`.
        ct: whether the image is CT, shown in a soft-tissue window; else in the range of its own intensities.
    """

    task: str
    case: str
    image: Path
    reference: Path
    predictions: Mapping[str, Path]
    scores: Scores
    structures: Sequence[Structure] = ()
    ct: bool = False


@dataclass(frozen=True)
class Section:
    """A part under its own heading: paragraphs, commands to type, tables, figures, cases, in this order."""

    title: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    cases: Sequence[Case] = ()
    commands: Sequence[str] = ()


@dataclass(frozen=True)
class HtmlReport:
    """A page.

    Args:
        summary: what the reader must know, in sentences with numbers; stands first. What the cases of each section
            come to is added to it.
        score: what the scores of the cases are called.
    """

    title: str
    subtitle: str
    sections: Sequence[Section]
    summary: Sequence[str] = ()
    score: str = "Dice"
