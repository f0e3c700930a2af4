"""The folder of one run: locked while it runs, with its log, its description and a way to stop it from outside."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import shutil
import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.core.locks import LEASE_SECONDS, FileLock

logger = logging.getLogger(__name__)

STOP_FILE = "STOP"


class RunFolder:
    """A run's folder, held by one process at a time.

    Args:
        folder_option: how a user chooses another one, for messages.
    """

    def __init__(self, path: Path, *, folder_option: str = "--name") -> None:
        self.path, self.folder_option = path, folder_option
        # Whether a step was made: until then a start that fails leaves nothing behind.
        self.began = False
        self._made: list[Path] = []
        self._lock = FileLock(path / ".lock", whole_folder=True)

    def __enter__(self) -> RunFolder:
        self._made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        if not self._lock.take() and not self._outwait_lease():
            raise self._in_use()
        self.stop_file.unlink(missing_ok=True)
        files.clear_unfinished(self.path)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and not self.began and self._made:
            shutil.rmtree(self.path, ignore_errors=True)
            for parent in self._made[1:]:
                with contextlib.suppress(OSError):  # somebody else has put something there
                    parent.rmdir()
        self._lock.release()

    def check_free(self) -> None:
        """Check that nobody trains here, and leave the folder as it is.

        Raises:
            UserError: somebody does.
        """
        if not self._lock.path.exists():
            return
        if not self._lock.take():
            raise self._in_use()
        self._lock.release()

    def _in_use(self) -> UserError:
        return UserError(
            f"{self.path}: another process is training here; it holds {self._lock.path}. Wait for it, stop it "
            f"(touch {self.stop_file}), or choose another folder with {self.folder_option}."
        )

    def _outwait_lease(self) -> bool:
        """Whether the lock is ours after all, because the lease of another process is no longer refreshed."""
        if not self._lock.uses_lease:
            return False
        logger.info("%s: waiting to see whether the process that began here still runs", self._lock.path)
        return self._lock.take(wait=LEASE_SECONDS + 5.0)

    def check_ours(self) -> None:
        """Check that the folder is still there and that no other process has taken it over.

        Raises:
            UserError: it is not.
        """
        if not self.path.is_dir():
            raise UserError(
                f"{self.path}: the folder was removed or renamed while the run wrote to it. Put it back and rerun the "
                "command to resume from its last checkpoint; without it the command begins anew."
            )
        if not self._lock.still_ours():
            raise UserError(
                f"{self.path}: {self._lock.path} was removed, and another process has begun to train here since. This "
                f"one has ended, so that they do not overwrite each other. Choose another folder for a second run, "
                f"with {self.folder_option}."
            )

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def stop_file(self) -> Path:
        """Whoever makes this file asks the run to save and end."""
        return self.path / STOP_FILE

    @property
    def log_file(self) -> Path:
        return self.path / "log.jsonl"

    @property
    def run_file(self) -> Path:
        return self.path / "run.json"

    def log(self, entry: dict[str, Any]) -> None:
        """Append one line to `log.jsonl`; a number that is not finite becomes null."""
        clean = {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in entry.items()}
        with open(self.log_file, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(clean) + "\n")

    def read_log(self) -> list[dict[str, Any]]:
        """The entries so far; lines that are damaged, or cut off by a kill, are left out."""
        return [entry for entry in map(_entry, self._log_lines()) if entry is not None]

    def truncate_log(self, step: int) -> None:
        """Drop entries of steps that are going to be done again; a file with damaged lines is kept aside."""
        lines = self._log_lines()
        # The last line may be one that a kill cut off: that is no damage.
        damaged = sum(_entry(line) is None for line in lines[:-1])
        if damaged:
            aside = _unused(self.log_file.with_name("log_damaged"), ".jsonl")
            shutil.copyfile(self.log_file, aside)
            logger.warning(
                "%s: %d of %d lines are damaged and left out of curves and pictures; the file as it was is now %s.",
                self.log_file,
                damaged,
                len(lines),
                aside.name,
            )
        elif step > 0 and not self.log_file.exists():
            logger.warning("%s: is missing, so curves begin at step %d.", self.log_file, step)
        kept = [entry for entry in self.read_log() if entry["step"] <= step]
        files.write_text(self.log_file, "".join(json.dumps(entry) + "\n" for entry in kept))

    def _log_lines(self) -> list[bytes]:
        return [] if files.is_missing(self.log_file) else files.read_bytes(self.log_file).splitlines()


def archive_run(folder: Path) -> None:
    """Rename an earlier run's folder; what it holds stays."""
    if not folder.exists():
        return
    with RunFolder(folder):  # nobody is training there
        aside = _unused(folder.with_name(f"old_{folder.name}"))
    shutil.move(folder, aside)
    logger.info("%s: the earlier run is now %s", folder, aside.name)


def _unused(path: Path, ending: str = "") -> Path:
    """A name that nothing has, with a number."""
    number = 1
    while (numbered := path.with_name(f"{path.name}_{number}{ending}")).exists():
        number += 1
    return numbered


def _entry(line: bytes) -> dict[str, Any] | None:
    """The entry in a line of the log; None where it is damaged."""
    try:
        entry = files.parse_json(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) and isinstance(entry.get("step"), int) else None


class StopRequests:
    """Listens while the block runs. A second Ctrl-C interrupts at once.

    Args:
        stop_file: making this file is a request.
    """

    def __init__(self, stop_file: Path) -> None:
        self.stop_file = stop_file
        self._asked = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequests:
        # Signals can only be caught in the main thread; elsewhere the STOP file still works.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @property
    def asked(self) -> bool:
        """Whether someone asked to stop."""
        return self._asked or self.stop_file.exists()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = True
