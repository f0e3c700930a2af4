"""Memory of large, short-lived arrays: kept by the process instead of given back and asked for anew, or not kept."""

from __future__ import annotations

import ctypes
import platform

# Of mallopt(3): never give the top of the heap back, and serve no request by a mapping of its own.
TRIM_THRESHOLD, MMAP_MAX = -1, -4
KEPT_BYTES = 2**31 - 1


def keep_freed_memory() -> None:
    """Let the allocator reuse what was freed; without effect where there is no glibc.

    A training step on a CPU makes and frees hundreds of maps of megabytes. glibc maps each anew, and the kernel zeroes
    every page at its first touch: 13 % of a step's time (median of 6, tiny and small presets, one thread).
    """
    if libc := _glibc():
        libc.mallopt(TRIM_THRESHOLD, KEPT_BYTES)
        libc.mallopt(MMAP_MAX, 0)


def give_freed_memory_back() -> None:
    """Give what was freed to the system before something large is asked for that would not fit into it.

    glibc keeps the places of arrays of up to 32 MB, and serves larger ones from elsewhere. Without effect where there
    is no glibc. Takes milliseconds, so it is for the few turns of a case's memory, not for each array.
    """
    if libc := _glibc():
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
