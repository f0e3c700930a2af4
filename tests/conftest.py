"""What several test folders share: where real data are, if this machine has them, and commands as they are typed."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from swinssl.core.machine import free_memory, set_omp_wait_policy, usable_cores
from swinssl.core.pools import ONE_THREAD

set_omp_wait_policy()
if "PYTEST_XDIST_WORKER" in os.environ:  # before numpy and torch read it; the workers themselves fill the cores
    os.environ.update(ONE_THREAD)

ROOT = Path(__file__).resolve().parents[1]
# Of one process that runs tests, with torch and what the largest test holds; more than 8 processes wait for the disk.
WORKER_BYTES, MOST_WORKERS = 2_000_000_000, 8


def pytest_xdist_auto_num_workers() -> int | None:
    """Processes of `-n auto`: cores that this process may keep busy, as far as memory allows."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None  # pytest-xdist reads it
    return max(1, min(usable_cores(), free_memory() // WORKER_BYTES, MOST_WORKERS))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real data (`raw/`, `volumes/`); the test is skipped where the machine has none."""
    folder = Path(os.environ.get("SWINSSL_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set SWINSSL_TEST_DATA to the folder with raw/ and volumes/")
    return folder


@pytest.fixture(scope="module", autouse=True)
def _folders_go_with_their_module(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """What the fixtures of a module wrote, unless a test of it failed: all together is more than a small disk holds."""
    base, failed = tmp_path_factory.getbasetemp(), request.session.testsfailed
    before = {*base.iterdir()}
    yield
    if request.session.testsfailed == failed:
        for folder in {*base.iterdir()} - before:
            if folder.is_symlink():
                folder.unlink()
            else:
                shutil.rmtree(folder)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Networks compute in one thread: for toy sizes it is the fastest, and its sums have one order."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
    """`typed("plan", folder, "--json")` runs swinssl_plan in this process, in a window that cuts no message."""

    def run(name: str, *arguments: Any) -> Typed:
        monkeypatch.setenv("COLUMNS", "400")
        monkeypatch.setattr(sys, "argv", [f"swinssl_{name}", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            importlib.import_module(f"swinssl.cli.{name}").main()
        return Typed(end.value.code or 0, *capsys.readouterr())

    return run
