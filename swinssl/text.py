"""Names are text: what a reader's screen, page or spreadsheet would take for an instruction is shown as characters.

Names of structures, cases, files and tensors come from files that anybody may have written. Every place that shows
them makes them safe for itself: the terminal and the log (`terminal.py`, `progress.py`, `cli/tables.py`), pictures
(`pictures.py`), CSV (`csv_text.py`), HTML and Markdown (here).
"""

from __future__ import annotations

import html
import re
import unicodedata

# Embeddings, overrides and isolates: they reorder what stands after them.
_REORDERING = {chr(code) for code in (0x061C, *range(0x202A, 0x202F), *range(0x2066, 0x206A))}
# Control characters, halves of characters, line and paragraph separators.
_CATEGORIES = {"Cc", "Cs", "Zl", "Zp"}


def printable(text: str, *, keep: str = "") -> str:
    r"""`text` with every character that acts instead of being shown written as an escape (`\x1b`, `\n`, `\u202e`).

    Args:
        keep: characters that stay, such as line breaks that the program itself has set.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if char in keep or not _acts(char) else _escaped(char) for char in text)


def message(text: str) -> str:
    """A message of one or more lines; further lines are indented, so that a name cannot pass for another message."""
    first, *others = printable(text, keep="\n\t").split("\n")
    return "\n".join([first, *(line if not line or line.startswith("  ") else f"  {line}" for line in others)])


def shortened(text: str, longest: int) -> str:
    """`text` with its middle left out where it is longer."""
    half = (longest - 3) // 2
    return text if len(text) <= longest else f"{text[:half]}...{text[-half:]}"


def html_text(text: str) -> str:
    """`text` for the content of an HTML element or a quoted attribute."""
    return html.escape(printable(text))


def markdown_cell(text: str) -> str:
    """`text` for a cell of a Markdown table."""
    escaped = re.sub(r"([\\`*<>|$~])", r"\\\1", printable(text))
    # Of brackets only those that could make a link; an underscore within a word stands for itself.
    return re.sub(r"\](?=[(\[:])|(?<!\w)_|_(?!\w)", r"\\\g<0>", escaped)


def _acts(char: str) -> bool:
    return char in _REORDERING or unicodedata.category(char) in _CATEGORIES


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")
