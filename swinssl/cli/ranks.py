"""`--gpus N`: a command as N processes of this machine, as torchrun starts them, with one voice and one exit code."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Annotated

import typer

from swinssl.cli.command import EXIT_USER_ERROR, INTERRUPTED, RESUME, arguments_as_typed
from swinssl.core.machine import THREADS, threads_per_process
from swinssl.core.terminal import print, print_message

Gpus = Annotated[
    int,
    typer.Option(
        "--gpus",
        min=1,
        help="Processes that split every batch, one a GPU; as torchrun --standalone --nproc-per-node N. On a CPU too.",
    ),
]

# Ranks find the same mistake of the user at about the same time; so long the others may take to say so.
GRACE_SECONDS = 10.0
# So many requests to stop, and everything is killed.
IMPATIENT = 3
LAST_LINES = 60
FORWARDED = (signal.SIGINT, signal.SIGTERM)


def start_ranks(entry: str, gpus: int) -> bool:
    """Run the command that was typed as `gpus` processes to its end; False where this process is to do the work.

    Args:
        entry: module and name of the command's entry point, as `swinssl.cli.train:main`.

    Raises:
        SystemExit: one of the processes did not end well.
    """
    if gpus == 1 or "WORLD_SIZE" in os.environ:  # else this is one of them, or one of torchrun's
        return False
    code = _Ranks(entry, arguments_as_typed(), gpus).run()
    if code:
        raise SystemExit(code)
    return True


def warn_of_raw_changes(datasets: Iterable[str], *, root: Path | None) -> None:
    """Say on stderr, once for all ranks, how raw data sets differ from what was preprocessed.

    Raises:
        UserError: a preprocessed data set is that of another raw data set of the same name.
    """
    from swinssl.api.datasets import changes_of_raw

    if os.environ.get("RANK", "0") != "0":
        return
    for dataset in datasets:
        for line in changes_of_raw(dataset, root=root):
            print(f"warning: {line}", file=sys.stderr, flush=True)


def first_attempt() -> bool:
    """Whether this is no run that torchrun has begun again, which goes on even where one was asked to begin anew."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"


@dataclass
class _Rank:
    process: subprocess.Popen
    said: IO[bytes] | None  # what it writes, of all but the first, which speaks for all


@dataclass
class _Ranks:
    entry: str
    arguments: Sequence[str]
    count: int
    running: dict[int, _Rank] = field(default_factory=dict)
    ended: queue.SimpleQueue[int] = field(default_factory=queue.SimpleQueue)
    asked: int = 0  # requests to stop

    def run(self) -> int:
        """The exit code of all."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._forwarded_signals())
            stack.callback(self._kill)
            self._start(stack)
            return self._outcome(dict(self.running))

    def _start(self, stack: contextlib.ExitStack) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        shared = {"WORLD_SIZE": self.count, "LOCAL_WORLD_SIZE": self.count, "MASTER_ADDR": "127.0.0.1"}
        environment = {**os.environ, THREADS: threads_per_process(self.count)}
        # What they say to each other stays on this machine, unless the user has chosen another interface.
        if (loopback := _loopback_interface()) is not None:
            environment = {**dict.fromkeys(("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"), loopback), **environment}
        environment |= {name: str(value) for name, value in {**shared, "MASTER_PORT": port}.items()}
        command = [sys.executable, "-m", "swinssl.cli.one_rank", self.entry, sys.argv[0], *self.arguments]
        for rank in range(self.count):
            said = stack.enter_context(contextlib.closing(_nameless_file())) if rank else None
            process = subprocess.Popen(
                command,
                env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=None if said is None else subprocess.STDOUT,
                # Of Ctrl-C each hears through this process, and once: twice would mean at once.
                start_new_session=os.name != "nt",
            )
            self.running[rank] = _Rank(process, said)
            if self.asked:  # meanwhile
                process.terminate()
            threading.Thread(target=self._watch, args=(rank, process), daemon=True).start()

    def _watch(self, rank: int, process: subprocess.Popen) -> None:
        process.wait()
        self.ended.put(rank)

    def _outcome(self, ranks: dict[int, _Rank]) -> int:
        """Wait for all; where one fails, its exit code, after the others were ended and what it said was shown."""
        failed: int | None = None
        deadline = float("inf")
        while self.running:
            try:
                rank = self.ended.get(timeout=0.5)
            except queue.Empty:
                if time.monotonic() > deadline or self.asked >= IMPATIENT:
                    self._kill()
                continue
            code = self.running.pop(rank).process.returncode
            # Who was asked to stop is left to save, and so are those whose run has ended with them.
            if code == 0 or failed is not None:
                continue
            failed = rank
            if code == EXIT_USER_ERROR:
                deadline = time.monotonic() + GRACE_SECONDS
            elif code != INTERRUPTED and not self.asked:
                self._kill()
        if failed is None:
            return 0
        codes = [rank.process.returncode for rank in ranks.values()]
        if INTERRUPTED in codes and all(code in _ASKED for code in codes):
            return INTERRUPTED
        if self.asked and all(code in _ASKED for code in codes):
            print_message("\nstopped", RESUME)
            return INTERRUPTED
        return self._failure(failed, ranks)

    def _failure(self, failed: int, ranks: dict[int, _Rank]) -> int:
        code = ranks[failed].process.returncode
        known = code == EXIT_USER_ERROR and ranks[0].process.returncode == code
        said = ranks[failed].said
        if said is not None and not known:
            said.seek(0)
            lines = said.read().decode(errors="replace").splitlines()
            print(*lines[-LAST_LINES:], sep="\n", file=sys.stderr)
        if code == EXIT_USER_ERROR:
            return code
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        print(
            f"error: process {failed} of 0 to {self.count - 1} {how}, and the others were ended. What it said stands "
            "above. Rerun the command to resume from the last checkpoint.",
            file=sys.stderr,
        )
        return max(code, 1)

    def _kill(self) -> None:
        for rank in self.running.values():
            rank.process.kill()

    @contextlib.contextmanager
    def _forwarded_signals(self) -> Iterator[None]:
        def forward(number: int, frame: object) -> None:
            self.asked += 1
            for rank in self.running.values():
                if os.name != "nt":  # there the console tells all of its processes
                    rank.process.send_signal(number)

        before = {number: signal.signal(number, forward) for number in FORWARDED}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _loopback_interface() -> str | None:
    """Its name (lo, lo0); None where the system has no such names."""
    return next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None) if os.name != "nt" else None


def _nameless_file() -> IO[bytes]:
    return tempfile.TemporaryFile()


# Exit codes of processes that were asked to stop: in words, before they could answer, or when all was done.
_ASKED = (INTERRUPTED, 0, *(-number for number in FORWARDED))
