"""A lock on a file, which the operating system takes back from a process that is gone."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from pathlib import Path
from typing import BinaryIO

logger = logging.getLogger(__name__)

# Between two looks at a lock that another process holds.
PAUSE_SECONDS = 0.1
# What is said of a lock that another process holds.
HELD = {errno.EAGAIN, errno.EACCES, errno.EDEADLK}
# What a file system says that knows no locks.
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


class FileLock:
    """A file that one process holds at a time, of all machines where the file system shares its locks.

    The lock ends with the process that holds it, so whoever was killed leaves nothing to clean up.

    Args:
        path: the file; made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream: BinaryIO | None = None

    def take(self, *, wait: bool = False) -> bool:
        """Take the lock; whether it is ours now. With `wait` it always is, sooner or later."""
        while not self._try():
            if not wait:
                return False
            time.sleep(PAUSE_SECONDS)
        return True

    def release(self, *, remove: bool = False) -> None:
        """Give the lock back; with `remove` the file goes too."""
        if self._stream is None:
            return
        if remove:
            with contextlib.suppress(OSError):  # Windows removes no file that is open; an empty one does no harm
                self.path.unlink()
        self._stream.close()
        self._stream = None

    def _try(self) -> bool:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        stream = open(self.path, "ab+")  # noqa: SIM115 (open as long as the lock is held)
        try:
            _lock_exclusively(stream)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                stream.close()
                if error.errno in HELD:
                    return False
                raise
            logger.warning("%s: this file system has no locks; let no two processes work on the same here.", self.path)
        if not _is_at(stream, self.path):  # its holder removed it after we had opened it
            stream.close()
            return self._try()
        self._stream = stream
        return True


def _is_at(stream: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _lock_exclusively(stream: BinaryIO) -> None:
    if os.name == "nt":
        import msvcrt

        stream.seek(0)
        msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        import fcntl

        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
