"""Work on many cases at once: in processes of this machine or in a Dask cluster."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from swinssl.core.errors import UserError
from swinssl.core.machine import free_memory, usable_cores
from swinssl.core.text import counted

logger = logging.getLogger(__name__)

J = TypeVar("J")
R = TypeVar("R")

# What a process takes before it has read anything.
PROCESS_BYTES = 250_000_000
MEMORY_SHARE = 0.7
# After so long in one case something hangs, most likely a disk that does not answer.
SLOW_SECONDS = 900.0
# A process that is told to end and does not is killed.
ENDING_SECONDS = 5.0
# One thread a process: the processes themselves fill the cores.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


# A server that has imported what the jobs need, has no threads, and forks: a worker is there at once. macOS's own
# libraries do not bear a fork, and Windows has none.
START_METHOD = "forkserver" if sys.platform == "linux" else "spawn"
_early: dict[str, None] = {}


@dataclass(frozen=True)
class Crash:
    """The process that worked on a job died: out of memory, most often, or a fault in a library; or what is said."""

    exit_code: int | None
    said: str = ""

    def __str__(self) -> str:
        if self.said:
            return self.said
        if self.exit_code == -9:  # SIGKILL, which Windows does not name
            return "its process was killed, most likely because memory ran out. Use fewer --workers."
        return f"its process died (exit code {self.exit_code}). Try it alone with --workers 0."


@dataclass
class _Worker(Generic[J]):
    process: Any
    connection: Connection
    job: int | None = None
    since: float = 0.0


def run_jobs(
    function: Callable[[J], R], jobs: Sequence[J], *, workers: int, name: Callable[[J], str] = str
) -> Iterator[tuple[int, R | Crash]]:
    """Yield (index of the job, its result) as results come; a `Crash` stands for the result of a process that died.

    Args:
        function: importable by name, since new processes begin without this one's memory; it does not raise.
        workers: processes; 0 works in this one.
        name: of a job, for the warning about one that takes very long.
    """
    if workers == 0:
        for index, job in enumerate(jobs):
            yield index, function(job)
        return
    left = iter(range(len(jobs)))
    pool: list[_Worker] = []
    try:
        for _ in range(min(workers, len(jobs))):
            pool.append(_start(function))
            _assign(pool[-1], left, jobs)
        while busy := [worker for worker in pool if worker.job is not None]:
            ready = wait([worker.connection for worker in busy], SLOW_SECONDS)
            _warn_of_slow(busy, lambda index: name(jobs[index]))
            for place, worker in enumerate(pool):
                if worker.connection not in ready or worker.job is None:
                    continue
                index, result = worker.job, _received(worker)
                if isinstance(result, Crash):
                    pool[place] = worker = _start(function)
                yield index, result
                _assign(worker, left, jobs)
    finally:
        for worker in pool:
            worker.connection.close()  # a waiting process ends by itself,
            if worker.job is not None:
                worker.process.terminate()  # a working one is told to; it clears its temporary files away
        for worker in pool:
            worker.process.join(ENDING_SECONDS)
            if worker.process.is_alive():  # it hangs where no request reaches it
                worker.process.kill()
                worker.process.join()


def import_early(*modules: str) -> None:
    """Let the server of workers import what later jobs need, beside whatever this process does until its first job."""
    _early.update(dict.fromkeys(modules))
    if START_METHOD == "forkserver":
        multiprocessing.get_context(START_METHOD).set_forkserver_preload(list(_early))
        from multiprocessing import forkserver

        with _environment(ONE_THREAD):
            forkserver.ensure_running()


def fitting_workers(jobs: int, bytes_each: int) -> int:
    """Processes that fill the cores and fit into the free memory, at least one and at most one a job.

    Args:
        bytes_each: peak memory of the largest job.
    """
    cores, free = usable_cores(), free_memory()
    fitting = int(MEMORY_SHARE * free // (PROCESS_BYTES + bytes_each))
    workers = max(1, min(cores, fitting, jobs))
    if workers < min(cores, jobs):
        logger.info(
            "Using %s instead of %d: each may take %.1f GB, and %.1f GB are free.",
            counted(workers, "process", "processes"),
            min(cores, jobs),
            (PROCESS_BYTES + bytes_each) / 1e9,
            free / 1e9,
        )
    return workers


def _start(function: Callable[[J], R]) -> _Worker:
    parent_end, child_end = multiprocessing.Pipe()
    context: Any = multiprocessing.get_context(START_METHOD)
    import_early(getattr(function, "__module__", type(function).__module__))  # heeded until the server runs
    process = context.Process(target=_serve, args=(child_end, function), daemon=True)
    with _environment(ONE_THREAD):
        process.start()
    child_end.close()  # so that the end of the process is the end of the connection
    return _Worker(process, parent_end)


def _assign(worker: _Worker, left: Iterator[int], jobs: Sequence[Any]) -> None:
    worker.job, worker.since = next(left, None), time.monotonic()
    if worker.job is not None:
        # A process that died meanwhile shows when its answer is read.
        with contextlib.suppress(OSError):
            worker.connection.send(jobs[worker.job])


def _warn_of_slow(busy: Sequence[_Worker], name: Callable[[int], str]) -> None:
    """Say which jobs have taken very long, each once in a while: they may go on for ever."""
    for worker in busy:
        if worker.job is None or time.monotonic() - worker.since < SLOW_SECONDS:
            continue
        worker.since = time.monotonic()
        logger.warning(
            "%s: no answer for %g minutes. If it hangs, press Ctrl-C and rerun the command to do the others.",
            name(worker.job),
            SLOW_SECONDS / 60,
        )


def _received(worker: _Worker) -> Any:
    try:
        return worker.connection.recv()
    except (EOFError, OSError):
        worker.process.join()
        return Crash(worker.process.exitcode)


def _serve(connection: Connection, function: Callable[[Any], Any]) -> None:
    """The life of a worker: a job in, its result out, until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # unwinds, so that temporary files go
    with contextlib.suppress(EOFError, OSError):
        while True:
            connection.send(function(connection.recv()))


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


CONNECT_SECONDS = "20s"
INSTALL = "Install it: pip install -c constraints.txt '.[dask]'."


@dataclass(frozen=True)
class Cluster:
    """A dask scheduler by its address; its workers see the same files under the same paths, and have swinssl."""

    address: str

    @classmethod
    def at(cls, address: str, *, insecure: bool) -> Cluster:
        """The cluster at an address that is safe to talk to, or that the user has said is.

        Raises:
            UserError: no address of dask's, or an open one without `insecure`.
        """
        scheme, _, rest = address.partition("://")
        if scheme not in ("tcp", "tls") or not rest:
            raise UserError(f"--cluster {address}: expected tls://HOST:PORT or tcp://HOST:PORT of a dask scheduler.")
        if scheme == "tcp" and not insecure:
            raise UserError(
                f"--cluster {address}: tcp is open; whoever reaches this port can run code as you on every worker. "
                "Use tls:// with certificates (docs/cluster.md), or add --insecure-cluster where the network is yours "
                "alone."
            )
        return cls(address)

    def run_jobs(self, function: Callable[[J], R], jobs: Sequence[J]) -> Iterator[tuple[int, R | Crash]]:
        """Yield (index of the job, its result) as results come; a `Crash` says why there is none.

        Args:
            function: importable by name on the workers.

        Raises:
            UserError: dask is not installed, or no scheduler answers.
        """
        if not jobs:
            return
        with self._client() as client:
            from distributed import as_completed

            # Named by nothing that two calls could share: dask would take the result of the other.
            futures = client.map(function, jobs, pure=False)
            numbers = {future.key: number for number, future in enumerate(futures)}
            try:
                for future in as_completed(futures, loop=client.loop):
                    yield numbers[future.key], _result(future)
            finally:
                client.cancel(futures)  # what is not done when the caller stops

    def _client(self) -> Any:
        try:
            from distributed import Client
        except ImportError:
            raise UserError(f"--cluster {self.address}: dask is not installed. {INSTALL}") from None
        try:
            return Client(self.address, timeout=CONNECT_SECONDS, set_as_default=False)
        except OSError as error:  # a time-out too
            raise UserError(f"--cluster {self.address}: no dask scheduler answers ({error}). Start one.") from None
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(
                f"--cluster {self.address}: the connection failed ({error}). Name the certificates in dask's "
                "configuration, distributed.comm.tls (docs/cluster.md)."
            ) from None


def _result(future: Any) -> Any:
    from distributed import KilledWorker

    if future.status == "cancelled":
        return Crash(None, "the cluster gave it up: its scheduler was closed, or the case was cancelled there.")
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, KilledWorker):
        return Crash(None, f"{error} Most likely it takes more memory than a worker has.")
    trace = "".join(traceback.format_exception(type(error), error, future.traceback()))
    return Crash(None, f"unexpected, on a worker: {trace}")
