"""Commands as they are typed, run in this process."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass(frozen=True)
class Typed:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one error message; that there is exactly one, and no traceback, is asserted."""
        lines = self.err.splitlines()
        (first,) = [number for number, line in enumerate(lines) if line.startswith("error: ")]
        assert "Traceback" not in self.err + self.out
        return "\n".join(lines[first:]).removeprefix("error: ")


@pytest.fixture
def typed(monkeypatch, capsys) -> Callable[..., Typed]:
    """`typed("plan", folder, "--json")` runs swinssl_plan, in a window wide enough to cut no message."""

    def run(name: str, *arguments: Any) -> Typed:
        monkeypatch.setenv("COLUMNS", "400")
        monkeypatch.setattr(sys, "argv", [f"swinssl_{name}", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            importlib.import_module(f"swinssl.cli.{name}").main()
        return Typed(end.value.code or 0, *capsys.readouterr())

    return run
