"""docs/reliability.md names only tests that exist; and what it says of the whole source is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::([\w:]+)`", (ROOT / "docs" / "reliability.md").read_text())))


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_each_named_test_exists(path, name):
    source = (ROOT / path).read_text(encoding="utf-8")
    for part in name.split("::"):
        assert re.search(rf"^\s*(def|class) {part}\b", source, re.MULTILINE), f"{path} has no {part}"


def test_the_page_names_tests():
    assert len(NAMED) > 20


@pytest.mark.parametrize("forbidden", ["import pickle", "weights_only=False", "allow_pickle=True", "yaml.load"])
def test_nothing_that_can_run_code_from_a_file_is_in_the_source(forbidden):
    sources = [path for path in (ROOT / "swinssl").rglob("*.py") if forbidden in path.read_text(encoding="utf-8")]
    assert sources == []
