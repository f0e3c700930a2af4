"""The one progress helper: a live bar on a terminal, a plain line now and then elsewhere (logs, CI, SLURM)."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from types import TracebackType
from typing import Any, TypeVar

from swinssl.terminal import print
from swinssl.text import printable

T = TypeVar("T")

# A log file stays readable: one line every half minute at most.
PLAIN_LINE_SECONDS = 30.0
# The first units are slower (caches, compiled kernels, worker processes): no estimate before so many seconds.
ESTIMATE_AFTER_SECONDS = 5.0


def track(items: Iterable[T], what: str, *, total: int | None = None) -> Iterator[T]:
    """Yield the items of `items` and show on stderr how far it is.

    Args:
        what: what is done, in the present participle ("preprocessing").
        total: number of items, where `items` has no length.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Meter(what, total=total) as meter:
        for done, item in enumerate(items, start=1):
            yield item
            meter.update(done)


class Meter:
    """How far a piece of work is, with rate and remaining time; a context manager.

    Args:
        what: what is done, in the present participle.
        total: units of the whole work; None where unknown. `update` may correct it.
        done: units that were done before (a resumed run), so that the rate counts only the new ones.
        seconds_allowed: time budget of the work, if it has one; no estimate exceeds what is left of it.
    """

    def __init__(self, what: str, *, total: int | None, done: int = 0, seconds_allowed: float | None = None) -> None:
        self.what, self.total, self.first, self.seconds_allowed = what, total, done, seconds_allowed
        self.started = self.shown = time.monotonic()
        self.bar: Any = None
        self.task: Any = None
        if sys.stderr is not None and sys.stderr.isatty():
            self._open_bar(done)

    def __enter__(self) -> Meter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    def update(self, done: int, *, note: str = "", total: int | None = None) -> None:
        """Say that `done` units are done; `note` is shown beside (a loss, a file)."""
        self.total = total or self.total
        if self.bar is not None:
            beside = ", ".join(filter(None, (self._rate(done), note)))
            self.bar.update(self.task, completed=done, total=self.total, note=printable(beside))
            return
        now = time.monotonic()
        if now - self.shown >= PLAIN_LINE_SECONDS:
            self.shown = now
            of = f" of {self.total}" if self.total else ""
            line = ", ".join(filter(None, (f"{self.what}: {done}{of}", self._rate(done), note)))
            print(line, file=sys.stderr, flush=True)

    def _rate(self, done: int) -> str:
        new = done - self.first
        elapsed = time.monotonic() - self.started
        speed = ""
        if new > 0 and elapsed > 0:
            rate = new / elapsed
            speed = f"{rate:.2f}/s" if rate >= 0.1 else f"{1 / rate:.1f} s each"
        return ", ".join(filter(None, (speed, self._time_left(done, new, elapsed))))

    def _time_left(self, done: int, new: int, elapsed: float) -> str:
        """By rate and total, by the time budget, or by whichever ends first; empty where neither is known."""
        left = math.inf
        if self.total and new > 0 and elapsed >= ESTIMATE_AFTER_SECONDS:
            left = max(0, self.total - done) * elapsed / new
        if self.seconds_allowed is not None:
            left = min(left, max(0.0, self.seconds_allowed - elapsed))
        return "" if math.isinf(left) else f"{duration(left)} left"

    def _open_bar(self, done: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        self.bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self.task = self.bar.add_task(printable(self.what), total=self.total, completed=done, note="")
        self.bar.start()


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
