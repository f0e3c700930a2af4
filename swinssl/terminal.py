"""What the program says on a terminal or in a log: `print` and the log's format, with names as text (`text.py`)."""

from __future__ import annotations

import builtins
import contextlib
import io
import logging
import os
import sys
from collections.abc import Iterable
from typing import IO

from swinssl.text import message, printable


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
