"""Commands that a benchmark runs one after the other, each in a process of its own, so that memory is fresh."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from swinssl.errors import UserError


def leave_after(main: Callable[[], int]) -> NoReturn:
    """Leave Python with what `main` returns: 2 after a failure, whose reason is said, 130 where it was stopped."""
    try:
        sys.exit(main())
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except subprocess.CalledProcessError as error:
        print(f"{Path(error.cmd[0]).name} failed (exit {error.returncode}); see above.", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


def run_swinssl(name: str, *arguments: object) -> None:
    """Run `swinssl_<name>` of this environment; errors as of `run`."""
    print(f"$ swinssl_{name} {' '.join(map(str, arguments))}", flush=True)
    run([Path(sys.executable).parent / f"swinssl_{name}", *arguments])


def run(command: Sequence[object], *, environment: Mapping[str, str] | None = None) -> None:
    """Run a command to its end.

    A Ctrl-C reaches it too, and a SIGTERM is handed on: it is then waited for, since it may have to save what it did.

    Raises:
        KeyboardInterrupt: it was stopped.
        subprocess.CalledProcessError: it failed.
    """
    stopped = False
    process = subprocess.Popen(list(map(str, command)), env=environment)

    def hand_on(*_: Any) -> None:
        nonlocal stopped
        stopped = True
        process.terminate()

    before = signal.signal(signal.SIGTERM, hand_on)
    try:
        while True:
            try:
                code = process.wait()
                break
            except KeyboardInterrupt:
                stopped = True
    finally:
        signal.signal(signal.SIGTERM, before)
    if stopped:
        raise KeyboardInterrupt
    if code:
        raise subprocess.CalledProcessError(code, list(map(str, command)))
