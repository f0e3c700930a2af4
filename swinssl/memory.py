"""Memory of large, short-lived arrays: kept by the process instead of given back and asked for anew, or not kept."""

from __future__ import annotations

import contextlib
import ctypes
import platform
import sys
from collections.abc import Iterator

from swinssl.errors import UserError

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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of the machine or of its GPU does not suffice."""
    torch = sys.modules.get("torch")  # without it, it raised nothing
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return True
    # torch has no exception of its own for want of memory on a CPU, nor for what CUDA's libraries ask for.
    signs = ("DefaultCPUAllocator", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "not enough memory")
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)


@contextlib.contextmanager
def out_of_memory_in_words(where: str, remedy: str) -> Iterator[None]:
    """Turn a want of memory inside the block into a UserError that names `where` and the remedy."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(f"{where}: not enough memory ({first_line(error)}). {remedy}") from None


def first_line(error: BaseException, most: int = 160) -> str:
    """What an error says, without the pages of advice that some libraries add."""
    text = (str(error).splitlines() or [""])[0].strip() or type(error).__name__
    return text if len(text) <= most else text[: most - 3] + "..."


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
