"""A lock on a file, which the operating system takes back from a process that is gone.

Where a file system refuses locks (Cray DVS, some mounts of Lustre and NFS), a lease takes their place: a file beside
the lock that its process creates exclusively and refreshes; it says which process of which machine that is.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from filelock import SoftFileLease

logger = logging.getLogger(__name__)

# Between two looks at a lock that another process holds.
PAUSE_SECONDS = 0.1
# What the system says of a lock that another process holds. Only Windows says EACCES; elsewhere that is a permission.
HELD = {errno.EACCES, errno.EDEADLK} if os.name == "nt" else {errno.EAGAIN, errno.EWOULDBLOCK}
# What a file system without locks says. 524 is Linux's ENOTSUPP, which has no name outside the kernel.
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, 524}
# After so long without a refresh a lease of another machine counts as left behind; all processes must agree on it.
LEASE_SECONDS = 30.0
LEASE_ENDING = ".lease"


class FileLock:
    """A file that one process holds at a time, of all machines where the file system shares its locks.

    The lock ends with the process that holds it, so whoever was killed leaves nothing to clean up.

    Args:
        path: the file; made if it is not there.
        for_children: child processes that are given `children_descriptors` hold the lock too, so that it lasts as long
            as one of them works on after this process was killed.
        whole_folder: lock the folder of `path` too, where the system can, so that a process stays alone in it even if
            somebody deletes the file.
    """

    def __init__(self, path: Path, *, whole_folder: bool = False, for_children: bool = False) -> None:
        self.path, self.whole_folder, self.for_children = path, whole_folder, for_children
        self._stream: BinaryIO | None = None
        self._folder: int | None = None
        self._lease: SoftFileLease | None = None

    def take(self, *, wait: bool | float = False) -> bool:
        """Take the lock; whether it is ours now.

        Args:
            wait: until it is, or for so many seconds.

        Raises:
            OSError: the file cannot be opened or locked; names it.
        """
        began = time.monotonic()
        while not self._try():
            if wait is False or (wait is not True and time.monotonic() - began > wait):
                return False
            time.sleep(PAUSE_SECONDS)
        return True

    @property
    def uses_lease(self) -> bool:
        """Whether the file system refused the lock, so that a lease takes its place."""
        return self._lease is not None

    def still_ours(self) -> bool:
        """Whether nobody else took the lock that was ours; a file that was deleted is locked again."""
        if self._lease is not None:
            if _has_token(Path(self._lease.lock_file), self._lease.token):
                return True
            self._give_back_lease()
            return self._try()
        if self._stream is None or _is_at(self._stream, self.path):
            return self._stream is not None
        self._stream.close()
        self._stream = None
        return self._try()

    def release(self, *, remove: bool = False) -> None:
        """Give the lock back; with `remove` the file goes too."""
        self._give_back_lease()
        _HELD_FOR_CHILDREN.discard(self)
        if self._folder is not None:
            os.close(self._folder)
            self._folder = None
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
                error.filename = str(self.path)
                raise
            if not self._try_lease(error):
                stream.close()
                return False
        if not _is_at(stream, self.path):  # its holder removed it after we had opened it
            self._give_back_lease()
            stream.close()
            return self._try()
        if not self._try_folder():
            self._give_back_lease()
            stream.close()
            return False
        self._stream = stream
        if self.for_children:
            _HELD_FOR_CHILDREN.add(self)
        return True

    def _try_folder(self) -> bool:
        """Whether nobody else holds the folder; it is ours then, where the system locks folders."""
        if not self.whole_folder or os.name == "nt" or self._folder is not None:
            return True
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            _lock_exclusively(folder)
        except OSError as error:
            os.close(folder)
            return error.errno not in HELD  # NFS locks no folders: the file must do
        self._folder = folder
        return True

    def _try_lease(self, refusal: OSError) -> bool:
        import filelock  # takes longer to import than most cases of a small data set to prepare

        path = self.path.with_name(self.path.name + LEASE_ENDING)
        _warn_of_lease(self.path.parent, refusal.strerror or str(refusal))
        # The same object at every try: it remembers since when the lease of another process has not been refreshed.
        if self._lease is None:
            self._lease = filelock.SoftFileLease(path, lease_duration=LEASE_SECONDS, thread_local=False)
        try:
            self._lease.acquire(timeout=0)
        except filelock.Timeout:
            return False
        return True

    def _give_back_lease(self) -> None:
        if self._lease is not None and self._lease.is_locked:
            self._lease.release(force=True)


_HELD_FOR_CHILDREN: set[FileLock] = set()


def children_descriptors() -> tuple[int, ...]:
    """File descriptors that a child process keeps open (`pass_fds`) to hold the locks that are held for children."""
    if os.name == "nt":
        return ()
    return tuple(lock._stream.fileno() for lock in _HELD_FOR_CHILDREN if lock._stream is not None)


@functools.cache
def _warn_of_lease(folder: Path, why: str) -> None:
    logger.warning(
        "%s: the file system refuses file locks (%s). Processes keep out of each other's way by files named *%s "
        "instead, which each refreshes while it works; one whose machine went down is waited for %.0f seconds.",
        folder,
        why,
        LEASE_ENDING,
        LEASE_SECONDS,
    )


def _has_token(path: Path, token: str | None) -> bool:
    try:
        return token is not None and token in path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def _is_at(stream: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _lock_exclusively(file: BinaryIO | int) -> None:
    if os.name == "nt":
        import msvcrt

        assert not isinstance(file, int)  # Windows opens no folders
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
