"""Rows as CSV."""

from __future__ import annotations

import csv

from swinssl.core.text import csv_text


def test_rows_are_read_back_with_all_columns_that_any_has():
    rows = [{"case": 'a,"b"', "Dice": 0.1}, {"case": "c", "HD95_mm": None, "Dice": 1 / 3}]
    read = list(csv.DictReader(csv_text(rows).splitlines()))
    assert [*read[0]] == ["case", "Dice", "HD95_mm"]
    assert [(row["case"], float(row["Dice"]), row["HD95_mm"]) for row in read] == [('a,"b"', 0.1, ""), ("c", 1 / 3, "")]


def test_columns_may_be_chosen():
    assert csv_text([{"b": 1, "a": 2, "c": 3}], ["a", "b"]) == "a,b\n2,1\n"
    assert csv_text([], ["a"]) == "a\n"
