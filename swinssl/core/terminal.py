"""What the program says on a terminal or in a log: `print`, messages and progress bars; names are text."""

from __future__ import annotations

import builtins
import contextlib
import io
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextvars import ContextVar
from types import TracebackType
from typing import IO, Any, Literal, TypeVar

from swinssl.core.text import duration, message, printable


def print(*values: object, sep: str = " ", end: str = "\n", file: IO[str] | None = None, flush: bool = False) -> None:
    """Python's `print`, where each value stays in one line and nothing in it moves the cursor or sets a colour.

    What is said on stderr is lost where nobody listens any more; that must not end the work.
    """
    shown = (printable(str(value), keep="\t") for value in values)
    if file is None or file is not sys.stderr:
        builtins.print(*shown, sep=sep, end=end, file=file, flush=flush)
        return
    with contextlib.suppress(OSError):
        builtins.print(*shown, sep=sep, end=end, file=file, flush=flush)


def print_lines(text: str) -> None:
    """Print a text of the program's making (JSON, a script) line by line."""
    print(*text.splitlines(), sep="\n")


def print_message(kind: str, text: object) -> None:
    """Say `kind: text` on stderr; further lines of the text are indented. A line break before the kind stays."""
    lines = message(f"{kind.lstrip()}: {text}").split("\n")
    print(*[""] * (kind != kind.lstrip()), *lines, sep="\n", file=sys.stderr, flush=True)


def print_warnings(lines: Iterable[str], *, json: bool = False) -> None:
    """What a run ends with that the user should look at, a line each; beside JSON on stderr."""
    for line in lines:
        if json:
            print_message("warning", line)
        else:
            print(f"warning: {line}")


def open_streams() -> None:
    """Make stdout and stderr take every name, and give those that the caller has closed somewhere to write to.

    A closed descriptor would be handed to the next file that is opened, and what libraries say would be written there.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != descriptor:
                os.dup2(null, descriptor)
                os.close(null)
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8"))
        elif name != "stdin" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def start_log() -> None:
    """Log records and warnings go to stderr, as messages."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stderr:
            handler.setFormatter(_MessageFormatter())
    logging.getLogger("swinssl").setLevel(logging.INFO)


class _MessageFormatter(logging.Formatter):
    """The message alone; of an exception its traceback below."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return message(record.message)

    def formatException(self, ei: object) -> str:
        return printable(super().formatException(ei), keep="\n\t")  # type: ignore[arg-type]


T = TypeVar("T")

# Of the work that a program calls: what is done, how many units are, and of how many (None where unknown).
Progress = Callable[[str, int, int | None], None]
# Nothing is shown by itself: commands ask for the terminal, a program gives its own function.
_PROGRESS: ContextVar[Progress | Literal["terminal"] | None] = ContextVar("_PROGRESS", default=None)


@contextlib.contextmanager
def progress_to(progress: Progress | Literal["terminal"] | None) -> Iterator[None]:
    """Within this context progress goes to `progress`; where that is None, to where it went before.

    On a terminal (stderr) it is a bar, in a log a line every half minute.
    """
    token = _PROGRESS.set(progress or _PROGRESS.get())
    try:
        yield
    finally:
        _PROGRESS.reset(token)


# A log file stays readable: one line every half minute at most.
PLAIN_LINE_SECONDS = 30.0
# The first units are slower (caches, compiled kernels, worker processes): no estimate before so many seconds.
ESTIMATE_AFTER_SECONDS = 5.0


def track(items: Iterable[T], what: str, *, total: int | None = None) -> Iterator[T]:
    """Yield the items of `items` and say how far it is (`progress_to`).

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
        self.progress = _PROGRESS.get()
        if self.progress == "terminal" and sys.stderr is not None and sys.stderr.isatty():
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
        if self.progress != "terminal":
            if self.progress is not None:
                self.progress(self.what, done, self.total)
            return
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
