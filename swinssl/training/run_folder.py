"""The folder of one run: locked while it runs, with its log, its description and a way to stop it from outside."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

from swinssl import files
from swinssl.errors import UserError
from swinssl.locks import LEASE_SECONDS, FileLock

logger = logging.getLogger(__name__)

STOP_FILE = "STOP"
# How a user chooses it, in fine-tuning and in pretraining.
ANOTHER_FOLDER = "--name of swinssl_train, --out of swinssl_pretrain_<method>"


class RunFolder:
    """A run's folder, held by one process at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path / ".lock", whole_folder=True)

    def __enter__(self) -> RunFolder:
        if not self._lock.take() and not self._outwait_lease():
            raise UserError(
                f"{self.path}: another process is training here; it holds {self._lock.path}. Wait for it, stop it "
                f"(touch {self.stop_file}), or choose another folder ({ANOTHER_FOLDER})."
            )
        self.stop_file.unlink(missing_ok=True)
        files.clear_unfinished(self.path)
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

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
                f"one has ended, so that they do not overwrite each other; choose another folder ({ANOTHER_FOLDER}) "
                "for a second run."
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
        """Append one line to `log.jsonl`; a NaN becomes null."""
        clean = {key: None if isinstance(v, float) and v != v else v for key, v in entry.items()}
        with open(self.log_file, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(clean) + "\n")

    def read_log(self) -> list[dict[str, Any]]:
        """The entries so far; a last line cut off by a kill is left out."""
        if not self.log_file.exists():
            return []
        entries = []
        for line in self.log_file.read_text(encoding="utf-8").splitlines():
            try:
                entries.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return entries

    def forget_log_after(self, step: int) -> None:
        """Drop entries of steps that are going to be done again."""
        kept = [entry for entry in self.read_log() if entry.get("step", 0) <= step]
        files.write_text(self.log_file, "".join(json.dumps(entry) + "\n" for entry in kept))


def put_aside(folder: Path) -> None:
    """Rename an earlier run's folder; what it holds stays."""
    if not folder.exists():
        return
    with RunFolder(folder):  # nobody is training there
        number = 1
        while (aside := folder.with_name(f"old_{folder.name}_{number}")).exists():
            number += 1
    shutil.move(folder, aside)
    logger.info("%s: the earlier run is now %s", folder, aside.name)
