"""Ways to do the same, side by side: interleaved, one thread each, every run in a fresh child of this process.

CPU time, wall time and the peak of memory above what the process had before are measured in the child; what is printed
is the median over the repetitions of the ratio within each, so that a machine that is busy for a while is busy for all.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib.metadata
import multiprocessing
import os
import platform
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.experiments.benchmark.commands import run_script

OURS = "swinssl"
THREADS = 1
# Read by the libraries when they are loaded.
ONE_THREAD = {
    name: str(THREADS)
    for name in (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "BLOSC_NTHREADS",
        "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
    )
}
PACKAGES = ("swinssl", "torch", "numpy", "nnunetv2", "monai", "batchgenerators", "batchgeneratorsv2", "SimpleITK")
MIB = 2**20
FORGET_PEAK = "5"
# How a child ends whose outputs are not what is claimed, or that lacks something.
DIFFERENT, MENDABLE = 3, 4


@dataclass(frozen=True)
class Way:
    """One way to do it.

    Args:
        name: `swinssl`, or that of the peer.
        run: does it once.
        wrote: the format of what it wrote, where it writes.
    """

    name: str
    run: Callable[[], Any]
    wrote: str = ""


@dataclass(frozen=True)
class Goal:
    """What is wanted of us against one peer: so many times as fast in CPU time, at most this share of its memory."""

    peer: str
    cpu: float
    memory: float | None = None


@dataclass(frozen=True)
class Comparison:
    """What is measured in one table.

    Args:
        name: what is done.
        what: what it is done to.
        ways: ours first.
        check: compares the outputs, in a child of its own, and says what it found; it raises AssertionError where
            they are not what is claimed.
        goals: against peers.
        unmeasured: a way whose CPU time is taken off that of all others, such as the network alone; memory and time by
            the clock stay whole.
    """

    name: str
    what: str
    ways: Sequence[Way]
    check: Callable[[], dict[str, Any]] = dict
    goals: Sequence[Goal] = ()
    unmeasured: Way | None = None


@dataclass
class Cost:
    """Of one run: seconds of CPU and by the clock, MiB above what there was before."""

    cpu: float
    wall: float
    memory: float


@dataclass
class Measured:
    """Medians of a way, and of ours against it: above 1 ours is faster, below 1 ours needs less memory."""

    cpu: float
    wall: float
    memory: float
    faster: float
    fastest_and_slowest: tuple[float, float]
    faster_by_the_clock: float
    memory_share: float
    wrote: str = ""


@dataclass
class Table:
    """A comparison's result, as it is kept; `taken_off` is the way whose CPU seconds are in none of the others."""

    name: str
    what: str
    repetitions: int
    found: dict[str, Any]
    ways: dict[str, Measured]
    goals: list[dict[str, Any]] = field(default_factory=list)
    taken_off: tuple[str, float] | None = None


def main(document: str | None, comparisons: Callable[[bool], Iterator[Comparison]]) -> NoReturn:
    """A stage's command: measure, print, write JSON, and leave; with 2 where outputs are not what is claimed.

    Args:
        document: the script's docstring.
        comparisons: those of the stage; True asks for what takes a minute in all.
    """
    if any(os.environ.get(name) != value for name, value in ONE_THREAD.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ONE_THREAD})

    run_script(lambda: _run(document, comparisons))


def _run(document: str | None, comparisons: Callable[[bool], Iterator[Comparison]]) -> int:
    parser = argparse.ArgumentParser(description=document, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small inputs, few repetitions")
    parser.add_argument("--repeat", type=int, help="repetitions; default: 5, quick 3")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="comparisons whose name contains one of these")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON; those of other comparisons stay")
    given = parser.parse_args()
    repetitions = given.repeat or (3 if given.quick else 5)
    wrong = []
    for comparison in comparisons(given.quick):
        if given.only and not any(word in comparison.name for word in given.only):
            continue
        try:
            table = measure(comparison, repetitions)
        except AssertionError as error:
            print(f"\n{comparison.name}: outputs differ, nothing is timed: {error}", file=sys.stderr)
            wrong.append(comparison.name)
            continue
        show(table)
        if given.out:
            keep(given.out, table)
    return 2 if wrong else 0


def measure(comparison: Comparison, repetitions: int) -> Table:
    """Compare the outputs, then run all ways one after another, again and again.

    Raises:
        AssertionError: the outputs are not what is claimed.
    """
    found = in_child(comparison.check)
    costs: dict[str, list[Cost]] = {way.name: [] for way in comparison.ways}
    off: list[float] = []
    for _ in range(repetitions):
        off.append(cost_of(comparison.unmeasured.run).cpu if comparison.unmeasured else 0.0)
        for way in comparison.ways:
            cost = cost_of(way.run)
            costs[way.name].append(Cost(max(cost.cpu - off[-1], 1e-6), cost.wall, cost.memory))
    ours = costs[comparison.ways[0].name]
    ways = {way.name: _measured(ours, costs[way.name], way.wrote) for way in comparison.ways}
    goals = [
        {
            **asdict(goal),
            "reached": bool(
                ways[goal.peer].faster >= goal.cpu
                and (goal.memory is None or ways[goal.peer].memory_share <= goal.memory)
            ),
        }
        for goal in comparison.goals
    ]
    taken_off = (comparison.unmeasured.name, statistics.median(off)) if comparison.unmeasured else None
    return Table(comparison.name, comparison.what, repetitions, found, ways, goals, taken_off)


def _measured(ours: Sequence[Cost], own: Sequence[Cost], wrote: str) -> Measured:
    faster = [b.cpu / a.cpu for a, b in zip(ours, own, strict=True)]
    return Measured(
        cpu=statistics.median(cost.cpu for cost in own),
        wall=statistics.median(cost.wall for cost in own),
        memory=statistics.median(cost.memory for cost in own),
        faster=statistics.median(faster),
        fastest_and_slowest=(min(faster), max(faster)),
        faster_by_the_clock=statistics.median(b.wall / a.wall for a, b in zip(ours, own, strict=True)),
        memory_share=statistics.median(a.memory / max(b.memory, 1e-3) for a, b in zip(ours, own, strict=True)),
        wrote=wrote,
    )


def cost_of(run: Callable[[], Any]) -> Cost:
    """What one run costs, in a fresh child."""

    def timed() -> Cost:
        before = start_of_peak()
        cpu, wall = time.process_time(), time.perf_counter()
        result = run()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        peak = resident_mib("VmHWM") - before
        del result
        return Cost(cpu, wall, max(peak, 0.1))

    return in_child(timed)


def in_child(run: Callable[[], Any]) -> Any:
    """What `run` returns, from a fork of this process; what it raises is raised here."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def child() -> None:
        try:
            sender.send((run(), None))
        except BaseException as error:
            traceback.print_exc()
            sender.send((None, f"{type(error).__name__}: {error}"))
            if isinstance(error, AssertionError | UserError):
                os._exit(DIFFERENT if isinstance(error, AssertionError) else MENDABLE)
        os._exit(0)

    process = context.Process(target=child)
    process.start()
    sender.close()
    try:
        result, error = receiver.recv()
    except EOFError:
        process.join()
        raise UserError(f"a measured run ended by itself (exit {process.exitcode}): is the memory full?") from None
    process.join()
    if error is not None:
        kinds: dict[int | None, type[Exception]] = {DIFFERENT: AssertionError, MENDABLE: UserError}
        raise kinds.get(process.exitcode, RuntimeError)(error)
    return result


def start_of_peak() -> float:
    """Forget the peak of memory so far; returns the MiB that are in use now (Linux)."""
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text(FORGET_PEAK)
    return resident_mib("VmRSS")


def resident_mib(what: str) -> float:
    """`VmRSS` or `VmHWM` of this process."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{what}:")]
    return int(line.split()[1]) * 1024 / MIB


def show(table: Table) -> None:
    """Print a table."""
    print(f"\n{table.name}: {table.what} ({table.repetitions} repetitions, {THREADS} thread)")
    for key, value in table.found.items():
        print(f"  {key}: {value}")
    if table.taken_off:
        print(f"  {table.taken_off[0]}: {table.taken_off[1]:.3f} CPU s, taken off the CPU s of all")
    print(f"  {'':26}{'CPU s':>9}{'wall s':>9}{'MiB':>8}{'ours is faster':>16}{'(spread)':>16}{'our memory':>12}")
    for name, own in table.ways.items():
        low, high = own.fastest_and_slowest
        print(
            f"  {name:26}{own.cpu:9.3f}{own.wall:9.3f}{own.memory:8.0f}{own.faster:15.2f}x{f'{low:.2f}-{high:.2f}':>16}"
            f"{own.memory_share:12.2f}  {own.wrote}"
        )
    for goal in table.goals:
        memory = "" if goal["memory"] is None else f" and {goal['memory']:g} of its memory"
        print(
            f"  goal {goal['cpu']:g}x {goal['peer']}{memory}: {'reached' if goal['reached'] else 'missed'}", flush=True
        )


def keep(path: Path, table: Table) -> None:
    """Put a table into the JSON file of its stage, with machine and versions."""
    before: dict[str, Any] = {"tables": {}}
    if path.is_file():
        before = files.read_json(path, what="figures", remedy="Delete it; the benchmark writes it anew.")
    tables = {**before["tables"], table.name: {**asdict(table), "machine": machine()}}
    files.write_json(path, {"tables": tables})


def machine() -> dict[str, Any]:
    """Processor, cores and versions."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
    }


def processor() -> str:
    """As Linux calls it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
