"""Running what is left of a benchmark. Several processes may do so at once: each takes a cell that nobody has."""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.core.locks import FileLock
from swinssl.experiments.benchmark.cell_runs import prepare_pretraining, run_comparison, run_pretraining, run_training
from swinssl.experiments.benchmark.cells import Cell, ComparisonCell, PretrainingCell
from swinssl.experiments.benchmark.study import Benchmark

logger = logging.getLogger(__name__)

LOG_FILE = "log.txt"
# Between two looks at cells that other processes are at.
PAUSE_SECONDS = 5.0

State = Literal["done", "failed", "elsewhere", "waits"]


@dataclass(frozen=True)
class Outcome:
    """What became of the cells that were asked for.

    Args:
        done: here or before, or by another process meanwhile.
        failed: with the reason.
        left_out: they need one that failed.
    """

    done: tuple[str, ...]
    failed: dict[str, str]
    left_out: tuple[str, ...]


def run_cells(
    benchmark: Benchmark, cells: Sequence[Cell], *, say: Callable[[str], None], pause: float = PAUSE_SECONDS
) -> Outcome:
    """Run the cells that are not done, in order; one that fails is reported, and the others go on.

    Args:
        say: told of each cell, in a line.
        pause: seconds between looks at cells that other processes are at.

    Raises:
        UserError: a cell was done with other settings, or a pretraining knows a test case, or a peer has no Python.
        KeyboardInterrupt: someone asked to stop; the cell in work has saved what it had.
    """
    benchmark.upgrade()
    left = [cell for cell in cells if not benchmark.is_done(cell)]
    benchmark.check(left)
    failed: dict[str, str] = {}
    left_out: list[str] = []
    total, ended = len(cells), len(cells) - len(left)
    while left:
        waiting: list[Cell] = []
        worked = False
        for cell in left:
            if any(need in failed or need in left_out for need in cell.needs):
                left_out.append(cell.key)
                continue
            state = _try(benchmark, cell, failed, _numbered(say, f"{ended + 1} of {total}"))
            if state in ("elsewhere", "waits"):
                waiting.append(cell)
            else:
                worked, ended = True, ended + 1
        if waiting and not worked:
            logger.info("%d cells are in work elsewhere or wait for one that is; waiting.", len(waiting))
            time.sleep(pause)
        left = waiting
    done = tuple(cell.key for cell in cells if cell.key not in failed and cell.key not in left_out)
    return Outcome(done, failed, tuple(left_out))


def _numbered(say: Callable[[str], None], number: str) -> Callable[[str], None]:
    return lambda text: say(f"{number}  {text}")


def _try(benchmark: Benchmark, cell: Cell, failed: dict[str, str], say: Callable[[str], None]) -> State:
    if not all(benchmark.is_done(own) for own in benchmark.cells if own.key in cell.needs):
        return "waits"
    place = benchmark.place(cell)
    lock = FileLock(place / ".lock", for_children=True)
    if not lock.take():
        return "elsewhere"
    try:
        if benchmark.is_done(cell):  # by another process, since we looked
            return "done"
        files.clear_unfinished(place)
        say(f"{cell.key}: begins; {place / LOG_FILE}")
        with open(place / LOG_FILE, "a", encoding="utf-8") as log:
            _run(benchmark, cell, log)
        if not benchmark.is_done(cell):  # else whatever needs it would wait for ever
            raise UserError(f"{place}: its results were changed while the cell was in work. Rerun the command.")
    except (UserError, subprocess.CalledProcessError) as error:  # the other cells may do
        failed[cell.key] = _reason(error, place)
        say(f"{cell.key}: failed: {failed[cell.key]}")
        return "failed"
    finally:
        lock.release()
    record = benchmark.record(cell) or {}
    steps = f"{record['steps']} steps in " if "steps" in record else ""
    say(f"{cell.key}: done, {steps}{record['minutes']:.1f} minutes")
    return "done"


def _run(benchmark: Benchmark, cell: Cell, log: IO[str]) -> None:
    if isinstance(cell, PretrainingCell):
        with _alone(benchmark.pretraining_data):
            prepare_pretraining(benchmark, log)
        run_pretraining(benchmark, cell, log)
        return
    if isinstance(cell, ComparisonCell):
        with _alone(benchmark.tasks[cell.trained.task].test):
            benchmark.tasks[cell.trained.task].preprocess_test(log)
        run_comparison(benchmark, cell, log)
        return
    workspace, planned_for = benchmark.tasks[cell.task], benchmark.config.planned_for
    encoder = None if planned_for is None else benchmark.encoder(planned_for, benchmark.config.seeds[0])
    with _alone(workspace.root):
        plans = benchmark.tables.plans_path(cell.task)
        workspace.prepare(encoder=encoder, device=benchmark.device, log=log, plans=plans)
    run_training(benchmark, cell, log)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time prepares a folder; the others wait for it."""
    lock = FileLock(folder / ".lock", for_children=True)
    lock.take(wait=True)
    try:
        yield
    finally:
        lock.release()


def _reason(error: UserError | subprocess.CalledProcessError, place: Path) -> str:
    if isinstance(error, UserError):
        return str(error)
    return f"{Path(error.cmd[0]).name} ended with exit code {error.returncode}; see above and {place / LOG_FILE}"
