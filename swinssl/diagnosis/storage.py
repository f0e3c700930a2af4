"""The workspace, the disk it lies on, and shared memory."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

from swinssl.core.workspace import Workspace
from swinssl.diagnosis.facts import Facts

GB = 1e9
# Enough to see a slow network drive, little enough to take no time.
TRIAL_BYTES, TRIAL_SECONDS, CHUNK = 64_000_000, 1.0, 4_000_000
SHARED_MEMORY = Path("/dev/shm")


def workspace_facts(root: Path) -> Facts:
    """Where data live and how many data sets are there; their names stay out of the report."""
    facts: Facts = {"root": str(root), "exists": root.is_dir()}
    for name in ("raw", "preprocessed", "results"):
        folder = root / name
        if folder.is_dir():
            facts[name] = _subfolders(folder)
    for folder in Workspace(root).raw_roots[1:]:
        facts["nnUNet_raw"] = _subfolders(folder) if folder.is_dir() else "no such folder"
    return facts


def disk_facts(root: Path) -> Facts:
    """Space and writing speed where the workspace is or would be."""
    place = next(folder for folder in (root.resolve(), *root.resolve().parents) if folder.is_dir())
    space = shutil.disk_usage(place)
    facts: Facts = {"free_gb": space.free / GB, "total_gb": space.total / GB}
    try:
        facts["write_mb_per_s"] = write_speed(place)
    except OSError as error:
        facts["not_writable"] = error.strerror or str(error)
    return facts


def shared_memory_facts() -> Facts:
    """Size of /dev/shm, which processes share arrays through; a container may have little of it."""
    if not SHARED_MEMORY.is_dir():
        return {}
    space = shutil.disk_usage(SHARED_MEMORY)
    return {"total_gb": space.total / GB, "free_gb": space.free / GB}


def write_speed(folder: Path) -> float:
    """Megabytes a second to the disk itself, measured with a file that vanishes.

    Raises:
        OSError: the folder cannot be written.
    """
    chunk = os.urandom(CHUNK)
    written, started = 0, time.perf_counter()
    with tempfile.TemporaryFile(prefix=".swinssl-doctor-", dir=folder) as file:
        while written < TRIAL_BYTES and time.perf_counter() - started < TRIAL_SECONDS:
            file.write(chunk)
            written += CHUNK
            file.flush()
            os.fsync(file.fileno())
    return written / 1e6 / (time.perf_counter() - started)


def _subfolders(folder: Path) -> int:
    return sum(path.is_dir() for path in folder.iterdir())
