"""A disk that takes no more: the system refuses what would make a file longer than so many bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def disk_that_takes(most_bytes: int) -> Iterator[None]:
    """In the block no file of this process grows beyond `most_bytes`; a write that would fails as on a full disk."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
