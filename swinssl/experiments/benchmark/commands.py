"""Commands run one after the other, each in a process of its own: its memory is fresh, and its crash is its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

from swinssl.core.errors import UserError
from swinssl.core.locks import children_descriptors
from swinssl.core.terminal import print


def run_swinssl(name: str, *arguments: object, log: IO[str] | None = None) -> None:
    """Run `swinssl_<name>` of this environment; errors as of `run`.

    Args:
        log: takes what the command prints as its result; what it says as it goes, and why it failed, stays on the
            terminal.
    """
    print(f"$ swinssl_{name} {' '.join(map(str, arguments))}", flush=True, file=log or sys.stdout)
    run([Path(sys.executable).parent / f"swinssl_{name}", *arguments], stdout=log)


def run(
    command: Sequence[object], *, environment: Mapping[str, str] | None = None, stdout: IO[str] | None = None
) -> None:
    """Run a command to its end.

    A Ctrl-C reaches it too, and a SIGTERM is handed on: it is then waited for, since it may have to save what it did.

    Raises:
        KeyboardInterrupt: it was stopped.
        subprocess.CalledProcessError: it failed.
    """
    stopped = False
    # Where this process is killed the command works on; nobody else begins the same work until it has ended.
    process = subprocess.Popen(list(map(str, command)), env=environment, stdout=stdout, pass_fds=children_descriptors())

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


def run_script(main: Callable[[], int]) -> NoReturn:
    """Run `main` of a benchmark script and exit with the code that it returns: 2 after an error that the user can fix,
    whose message is printed, 130 if it was interrupted."""
    try:
        sys.exit(main())
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except subprocess.CalledProcessError as error:
        print(f"{Path(error.cmd[0]).name} failed with exit code {error.returncode}; see above.", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("Interrupted. Rerun the command to resume.", file=sys.stderr)
        sys.exit(130)
