"""Work on many cases in the workers of a dask cluster, where the death of one costs its own case a second try."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from swinssl.case_pool import Crash
from swinssl.errors import UserError

J = TypeVar("J")
R = TypeVar("R")

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
                f"--cluster {self.address}: cannot be talked to ({error}). Name the certificates in dask's "
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
