"""What of the machine this process may use: in a container or a cluster's job that is less than there is.

The kernel's control groups say so, of either version. The process is in one of them, and what encloses it counts too.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

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
        own = top / path.lstrip("/")
        yield from (group for group in (own, *own.parents) if group.is_relative_to(top))


def _read(path: Path) -> str:
    """Empty where there is no such file."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
