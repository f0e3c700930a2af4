"""Tables on a terminal: every cell is text, with no markup in it."""

from __future__ import annotations

from typing import Any

from rich import box
from rich import table as rich_table
from rich.console import Console
from rich.text import Text

from swinssl.core.text import printable


class Table(rich_table.Table):
    """A table with these headers, whose cells are plain text, or made by `styled`; further arguments as of rich."""

    def __init__(self, *headers: str, **style: Any) -> None:
        super().__init__(*map(printable, headers), box=box.SIMPLE_HEAD, **style)

    def add_row(self, *cells: Any, **style: Any) -> None:
        super().add_row(*(_text(cell) if isinstance(cell, str) else cell for cell in cells), **style)


def styled(*parts: tuple[str, str], separator: str = "") -> Text:
    """A cell of several parts, each with its style ("bold red", or "" for none); empty parts are left out."""
    shown = [Text(printable(part), style) for part, style in parts if part]
    return Text(separator).join(shown)


def print_table(table: Table, *, width: int = 0) -> None:
    """Print a table at the width of the terminal, or at `width` where the terminal is narrower."""
    console = Console(markup=False, highlight=False, emoji=False)
    console.width = max(console.width, width)
    console.print(table)


def needed_width(table: Table, *, uncut: bool = False) -> int:
    """The width at which a table's words stay whole; with `uncut` at which each cell has a single line."""
    measured = Console(width=1000, markup=False, highlight=False, emoji=False).measure(table)
    return measured.maximum if uncut else measured.minimum


def _text(cell: str) -> Text:
    return Text(printable(cell))
