"""CSV as spreadsheets and programs read it: what is undefined (None) is empty, and no field is taken for a formula.

A text that a spreadsheet would run (it begins with `=`, `+`, `-`, `@`, a tab or a carriage return) gets an apostrophe
before it, which reading takes off again.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_PROTECTED = re.compile(r"'+[=+\-@\t\r]")


def csv_text(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """A header and a line for each row.

    Args:
        columns: the only ones. Default: all that any row has, in the order in which they come.
    """
    rows = list(rows)
    names = list(dict.fromkeys(name for row in rows for name in row)) if columns is None else columns
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(map(_field, names))
    writer.writerows([_field(row.get(name)) for name in names] for row in rows)
    return stream.getvalue()


def csv_rows(text: str, *, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """The number of the last line and the fields of each row, the header's first; rows without any field are left out.

    Raises:
        ValueError: the text is no CSV.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        for row in reader:
            if row:
                yield reader.line_num, [field[1:] if _PROTECTED.match(field) else field for field in row]
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from None


def csv_records(text: str) -> list[dict[str, str]]:
    """The rows by the names of the header.

    Raises:
        ValueError: the text is no CSV, or a row has more or fewer fields than the header.
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
