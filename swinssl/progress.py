"""The one progress helper: a live bar on a terminal, a plain line now and then elsewhere (logs, CI, SLURM)."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

T = TypeVar("T")

# A log file stays readable: one line every half minute at most.
PLAIN_LINE_SECONDS = 30.0


def track(items: Iterable[T], what: str, *, total: int | None = None) -> Iterator[T]:
    """Yield the items of `items` and show on stderr how far it is.

    Args:
        what: what is done, in the present participle ("preprocessing").
        total: number of items, where `items` has no length.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    if sys.stderr.isatty():
        yield from _live(items, what, total)
    else:
        yield from _plain(items, what, total)


def _live(items: Iterable[T], what: str, total: int | None) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield from bar.track(items, total=total, description=what)


def _plain(items: Iterable[T], what: str, total: int | None) -> Iterator[T]:
    started = shown = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - shown >= PLAIN_LINE_SECONDS:
            shown = now
            left = "" if not total else f" of {total}, {duration((now - started) / done * (total - done))} left"
            print(f"{what}: {done}{left}", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """A duration in the two largest units that matter: 42 s, 3 min 20 s, 5 h 10 min, 2 d 3 h."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
