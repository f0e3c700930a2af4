"""The machine: how many cores, how much memory and how many threads this process may use."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import math
import os
import platform
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from swinssl.core.errors import UserError

CGROUP, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
# Without a limit version 1 names a number beyond any machine's memory.
NO_LIMIT_BYTES = 2**60


def bound_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_cores() -> int:
    """Cores that this process can keep busy: those it is bound to, within its share of the processor's time."""
    bound, share = bound_cores(), cpu_limit()
    return bound if share is None else max(1, min(bound, math.ceil(share)))


def free_memory() -> int:
    """Bytes that can be had now: free on the machine, and left of what is allotted."""
    import psutil  # commands ask for cores as they start

    left = [limit - used for limit, used in _memory()]
    return max(0, min([psutil.virtual_memory().available, *left]))


def cpu_limit() -> float | None:
    """Cores' worth of the processor's time that is allotted; None without a limit."""
    shares = []
    for group in _groups("cpu"):
        quota, _, period = _read(group / "cpu.max").partition(" ")
        quota, period = quota or _read(group / "cpu.cfs_quota_us"), period or _read(group / "cpu.cfs_period_us")
        if period and quota not in ("", "max", "-1"):
            shares.append(int(quota) / int(period))
    return min(shares, default=None)


def memory_limit() -> int | None:
    """Bytes that are allotted; None without a limit."""
    return min((limit for limit, _ in _memory()), default=None)


def _memory() -> Iterator[tuple[int, int]]:
    """(limit, used) in bytes of every group with a limit; files that can be read again do not count as used."""
    for group in _groups("memory"):
        limit = _read(group / "memory.max") or _read(group / "memory.limit_in_bytes")
        if limit in ("", "max") or int(limit) > NO_LIMIT_BYTES:
            continue
        used = int(_read(group / "memory.current") or _read(group / "memory.usage_in_bytes") or 0)
        stat = dict(line.split(" ") for line in _read(group / "memory.stat").splitlines())
        yield int(limit), used - int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))


def _groups(controller: str) -> Iterator[Path]:
    """The folders of this process's group and of all that enclose it, for processor (`cpu`) or `memory`."""
    for line in _read(OWN_GROUPS).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = CGROUP / controller if controllers else CGROUP
        # In a container the path may be the one outside: then only the top is there.
        group_folder = top / path.lstrip("/")
        yield from (group for group in (group_folder, *group_folder.parents) if group.is_relative_to(top))


def _read(path: Path) -> str:
    """Empty where there is no such file."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


# torch's CPU kernels of the highest class need these, as Linux names them; and one of those for bfloat16.
AVX512 = {"avx512f", "avx512bw", "avx512dq", "avx512vl", "fma"}
AVX512_BF16 = {"avx512_bf16", "amx_bf16"}
# Of torch's builds for Linux: the version of what they were built with, None where it is not in them.
ACCELERATORS = ("cuda", "hip", "xpu")
# With NVIDIA's driver, and without it there is no CUDA whatever the build is.
CUDA_DRIVER = "libcuda.so.1"


def cpu_name_and_flags() -> tuple[str, set[str]]:
    """The processor; the flags are known on Linux only."""
    if sys.platform == "darwin":
        query = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(query, capture_output=True, text=True, timeout=5, check=True).stdout.strip(), set()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor(), set()
    values = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = values.get("model name") or platform.processor() or platform.machine()
    return name, set((values.get("flags") or values.get("Features") or "").split())


def cpu_has_bf16() -> bool | None:
    """Whether torch has fast bfloat16 on this CPU (`devices.use_bf16`); None where only torch can tell."""
    if "ATEN_CPU_CAPABILITY" in os.environ:  # torch is told to do without
        return None
    _, flags = cpu_name_and_flags()
    return flags >= AVX512 and bool(flags & AVX512_BF16) if flags else None


def has_only_cpu() -> bool:
    """Whether torch certainly finds nothing but the CPU (`devices.select_device`); False where only torch can tell."""
    torch = importlib.util.find_spec("torch")
    if not sys.platform.startswith("linux") or torch is None or not torch.submodule_search_locations:
        return False
    version = Path(torch.submodule_search_locations[0]) / "version.py"
    if not version.is_file():
        return False
    built_with = runpy.run_path(str(version))
    found = {name for name in ACCELERATORS if built_with.get(name) is not None}
    return not found or (found == {"cuda"} and not _is_loadable(CUDA_DRIVER))


def _is_loadable(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


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


THREADS = "OMP_NUM_THREADS"


def limit_threads() -> None:
    """Let torch start as many threads as are allotted cores; to be called before it is loaded.

    By itself it looks at the cores that the process is bound to, not at a container's or a job's share of their time:
    with 2 of 64 cores it would start 64 threads, of which 62 wait. What the user has set stays.

    Raises:
        UserError: what the user has set is no number; libraries fail on it later, in words that point elsewhere.
    """
    found = os.environ.get(THREADS)
    if found is not None and not re.fullmatch(r"\s*0*[1-9][0-9]{0,5}\s*", found):
        raise UserError(f"{THREADS}={found}: expected a whole number above 0. Set it to one, or unset it.")
    usable = usable_cores()
    if usable < bound_cores():
        os.environ.setdefault(THREADS, str(usable))


def threads_per_process(processes: int) -> str:
    """`OMP_NUM_THREADS` of each of several processes: what the user has set, else their part of the cores.

    What `limit_threads` has set, in this process or in one that started it, the user has not.
    """
    usable, found = usable_cores(), os.environ.get(THREADS)
    fitted = usable < bound_cores() and found == str(usable)
    return str(max(1, usable // processes)) if found is None or fitted else found


def set_omp_wait_policy() -> None:
    """Let waiting threads spin for some microseconds, then sleep; to be called before torch is loaded.

    By default they spin for milliseconds and so take the cores from the threads that read ahead, and from other
    programs: with one busy neighbour on 2 cores a step took 10 to 20 times as long. Never to spin costs 15 % on an idle
    machine; this costs nothing there. What the user has set stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # all OpenMP libraries know this
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # GNU's, which torch has on Linux, this too
