"""Text for messages (lists, counts, sizes, "did you mean") and escaping of untrusted text.

Names of structures, cases, files and tensors come from untrusted files. Characters that a terminal, a page or a
spreadsheet would interpret are escaped where they are shown: terminal and log (`terminal.py`, `cli/tables.py`),
pictures (`pictures.py`), CSV, HTML and Markdown (here).
"""

from __future__ import annotations

import csv
import difflib
import html
import io
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

# Bidirectional embeddings, overrides and isolates: they reorder the following text.
_REORDERING = {chr(code) for code in (0x061C, *range(0x202A, 0x202F), *range(0x2066, 0x206A))}
# Control characters, surrogates, line and paragraph separators.
_CATEGORIES = {"Cc", "Cs", "Zl", "Zp"}


def printable(text: str, *, keep: str = "") -> str:
    r"""`text` with every control character escaped (`\x1b`, `\n`, `\u202e`).

    Args:
        keep: characters that are not escaped, such as line breaks set by the program.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if char in keep or not _acts(char) else _escaped(char) for char in text)


def message(text: str) -> str:
    """A message of one or more lines; further lines are indented, so that a name cannot imitate another message."""
    first, *others = printable(text, keep="\n\t").split("\n")
    return "\n".join([first, *(line if not line or line.startswith("  ") else f"  {line}" for line in others)])


def shortened(text: str, longest: int) -> str:
    """`text`, with its middle left out if it is longer than `longest` characters."""
    half = (longest - 3) // 2
    return text if len(text) <= longest else f"{text[:half]}...{text[-half:]}"


def html_text(text: str) -> str:
    """`text` for the content of an HTML element or a quoted attribute."""
    return html.escape(printable(text))


def markdown_cell(text: str) -> str:
    """`text` for a cell of a Markdown table."""
    escaped = re.sub(r"([\\`*<>|$~])", r"\\\1", printable(text))
    # Only brackets that could form a link; an underscore within a word is literal.
    return re.sub(r"\](?=[(\[:])|(?<!\w)_|_(?!\w)", r"\\\g<0>", escaped)


def _acts(char: str) -> bool:
    return char in _REORDERING or unicodedata.category(char) in _CATEGORIES


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


MOST = 10


def listed(items: Iterable[object], *, most: int = MOST, separator: str = ", ") -> str:
    """`a, b, c`; a long list is cut: `a, b, c and 7 more`."""
    items = list(items)
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return separator.join(map(str, items[:most])) + more


def sentences(items: Sequence[object], *, most: int) -> str:
    """Sentences joined by spaces; a long list is cut: the first ones and `And 7 more.`"""
    more = [f"And {len(items) - most} more."] if len(items) > most else []
    return " ".join([*map(str, items[:most]), *more])


def counted(number: float, noun: str, plural: str | None = None) -> str:
    """`1 case`, `2 cases`, `1.5 cases`; `plural` for nouns that do not form it with an s."""
    shown = str(number) if isinstance(number, int) else f"{number:.3g}"
    return f"{shown} {noun if number == 1 else plural or f'{noun}s'}"


def dimensions(values: Iterable[float], spec: str = "") -> str:
    """`2 x 1.5 x 1.5`, each value in the format `spec`."""
    return " x ".join(format(value, spec) for value in values)


def duration(seconds: float) -> str:
    """A duration in its two largest units: 42 s, 3 min 20 s, 5 h 10 min, 2 d 3 h."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def near_names(word: str, known: Iterable[str], *, most: int = 1, cutoff: float = 0.6) -> list[str]:
    """The known names closest to `word` in spelling, the closest first.

    Args:
        cutoff: minimum similarity, from 0 to 1.
    """
    return difflib.get_close_matches(word, list(known), n=most, cutoff=cutoff)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name closest to `word` in spelling; None if none is close."""
    return next(iter(near_names(word, known)), None)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`Did you mean X? ` with a trailing space; empty if no known name is close."""
    near = nearest(word, known)
    return f"Did you mean {near}? " if near else ""


_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_PROTECTED = re.compile(r"'+[=+\-@\t\r]")


def csv_text(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """CSV with a header and one line per row.

    Args:
        columns: by default all columns of any row, in order of appearance.
    """
    rows = list(rows)
    names = list(dict.fromkeys(name for row in rows for name in row)) if columns is None else columns
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(map(_field, names))
    writer.writerows([_field(row.get(name)) for name in names] for row in rows)
    return stream.getvalue()


def csv_rows(text: str, *, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """The number of the last line and the fields of each row, header first; empty rows are skipped.

    Raises:
        ValueError: the text is not CSV.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        for row in reader:
            if row:
                yield reader.line_num, [field[1:] if _PROTECTED.match(field) else field for field in row]
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from None


def csv_records(text: str) -> list[dict[str, str]]:
    """The rows as dictionaries with the names of the header.

    Raises:
        ValueError: the text is not CSV, or a row has more or fewer fields than the header.
    """
    rows = csv_rows(text)
    _, names = next(rows, (0, []))
    records = []
    for line, row in rows:
        if len(row) != len(names):
            raise ValueError(f"line {line} has {len(row)} fields, not {len(names)}")
        records.append(dict(zip(names, row, strict=True)))
    return records


def _field(value: Any) -> Any:
    if isinstance(value, str) and _FORMULA.match(value) and not _is_number(value):
        return f"'{value}"
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
