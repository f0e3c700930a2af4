"""The life of a run in its folder: locked, restarted or resumed, then stopped, failed or done."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Generic, TypeVar

from swinssl.core.errors import Interrupted, UserError
from swinssl.core.machine import out_of_memory_in_words
from swinssl.training.engine.checkpoint import newest_step
from swinssl.training.engine.distribution import Ranks
from swinssl.training.engine.progress import Length
from swinssl.training.engine.run_description import EngineRun
from swinssl.training.engine.run_folder import RunFolder, archive_run

RunT = TypeVar("RunT", bound=EngineRun)


class RunLifecycle(Generic[RunT]):
    """One run in its folder; fine-tuning and pretraining both begin, resume and end through it.

    Only the main rank locks the folder and writes to it.

    Args:
        folder: of the run.
        described: the run as requested now.
        ranks: the processes that share it.
        length: of the run.
        batch_size: of the run, for the advice given when memory runs out.
        result: returns the name of the result file that the folder has; None if it has none, or it is damaged.

    Attributes:
        run: the run's description; after `begin` it includes what an earlier sitting knew.
        earlier: the description of an earlier sitting, if there was one.
        closed: an earlier sitting finished the run and its checkpoints were removed, so there is nothing to train.
    """

    def __init__(
        self,
        folder: RunFolder,
        described: RunT,
        *,
        ranks: Ranks,
        length: Length,
        batch_size: int,
        result: Callable[[], str | None],
    ) -> None:
        self.folder, self.run, self.ranks, self.length = folder, described, ranks, length
        self.batch_size, self._result = batch_size, result
        self.earlier: RunT | None = None
        self.closed = False

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and messages."""
        return self.ranks.is_main

    def check(self, *, restart: bool) -> None:
        """Run the checks of `begin` and write nothing.

        Raises:
            UserError: another process is training here, or the folder has another run.
        """
        if self.folder.path.is_dir() and not restart:
            self.folder.check_free()
            self._resumed(self.run.earlier_in(self.folder))

    @contextlib.contextmanager
    def begin(self, *, restart: bool) -> Iterator[None]:
        """Hold the folder while the block runs; resume the run in it, or archive that run first.

        Raises:
            UserError: another process is training here, or the folder has another run.
        """
        if restart:
            if self.is_main:
                archive_run(self.folder.path)
            self.ranks.barrier()
        with self.folder if self.is_main else contextlib.nullcontext():
            self.earlier = self.run.earlier_in(self.folder)
            closed = self.earlier is not None and self.earlier.is_closed(self.folder, result=self._result())
            self.run = self._resumed(self.earlier)
            self.write()
            with self._ending_noted():
                # Other ranks may have read a description that the main one has just rewritten.
                self.closed = bool(self.ranks.broadcast([closed])[0]) and self.earlier is not None
            yield

    def train(self, train: Callable[[RunT], Mapping[str, object]], *, outcome: Collection[str]) -> Mapping[str, object]:
        """Train to the end, and return what the description says of the end.

        Args:
            train: trains from the newest checkpoint and returns those fields.
            outcome: names of the fields, taken from the earlier sitting if that closed the run.

        Raises:
            UserError: training failed; `run.json` says why.
            Interrupted: a stop was requested; everything is saved.
        """
        if self.closed and self.earlier is not None:
            return self.earlier.model_dump(include=set(outcome))
        with self.failure_noted():
            return train(self.run)

    @contextlib.contextmanager
    def failure_noted(self) -> Iterator[None]:
        """Write to `run.json` how a run ended that does not reach the end of the block; explain a lack of memory."""
        saved = newest_step(self.folder.checkpoints) is not None
        remedy = self.run.config.memory_remedy(self.batch_size, saved=saved)
        with self._ending_noted(), out_of_memory_in_words(str(self.folder.path), remedy):
            yield

    def update(self, **facts: Any) -> None:
        """Replace fields of the description; `write` puts them on disk."""
        self.run = self.run.model_copy(update=facts)

    def write(self) -> None:
        """Write `run.json`, on the main rank."""
        if self.is_main:
            self.run.write(self.folder.run_file)

    def _resumed(self, earlier: RunT | None) -> RunT:
        return self.run.resuming(earlier, self.folder, result=self._result(), length=self.length)

    @contextlib.contextmanager
    def _ending_noted(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            stopped = isinstance(error, Interrupted | KeyboardInterrupt)
            failure = None if stopped else f"{error if isinstance(error, UserError) else repr(error)}"
            if self.is_main and self.folder.path.is_dir():
                with contextlib.suppress(OSError):  # the error itself reports a full disk
                    ended = self.run.finish("stopped" if stopped else "failed", failure=failure)
                    ended.write(self.folder.run_file)
            raise
