"""Python, system, processor, memory, graphics driver and thread settings."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from swinssl.core.machine import bound_cores, cpu_limit, cpu_name_and_flags, memory_limit
from swinssl.diagnosis.facts import Facts

GB = 1e9
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "OMP_PROC_BIND",
    "KMP_BLOCKTIME",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
)
# Instructions for bfloat16 as Linux names them.
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16"}


def python_facts() -> Facts:
    """The interpreter."""
    return {
        "version": platform.python_version(),
        "implementation": platform.python_implementation(),
        "bits": 64 if sys.maxsize > 2**32 else 32,
        "virtual_environment": sys.prefix != sys.base_prefix,
        "path": sys.executable,
    }


def system_facts() -> Facts:
    """The operating system."""
    libc = " ".join(platform.libc_ver()).strip()
    return {
        "name": platform.system(),
        "release": platform.release(),
        "machine": platform.machine(),
        **({"libc": libc} if libc else {}),
        **({"container": True} if Path("/.dockerenv").exists() or "container" in os.environ else {}),
    }


def cpu_facts() -> Facts:
    """The processor, the cores that this process may use, and how busy they are."""
    model, flags = cpu_name_and_flags()
    facts: Facts = {"model": model, "cores": os.cpu_count(), "usable": bound_cores()}
    if share := cpu_limit():
        facts["container_limit"] = share
    if flags:
        facts["bf16_instructions"] = sorted(flags & BF16_FLAGS)
    if hasattr(os, "getloadavg"):
        facts["load"] = os.getloadavg()[0]
    return facts


def memory_facts() -> Facts:
    """Memory of the machine, and the limit of the container if there is one."""
    try:
        import psutil

        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
        facts: Facts = {
            "total_gb": memory.total / GB,
            "free_gb": memory.available / GB,
            "swap_gb": swap.total / GB,
        }
    except Exception:  # missing or broken: the system may still tell
        page = os.sysconf("SC_PAGE_SIZE")
        facts = {
            "total_gb": page * os.sysconf("SC_PHYS_PAGES") / GB,
            "free_gb": page * os.sysconf("SC_AVPHYS_PAGES") / GB,
        }
    if limit := memory_limit():
        facts["container_limit_gb"] = limit / GB
    return facts


def graphics_facts() -> Facts:
    """NVIDIA cards and their driver, as the driver itself tells; what torch can use of it stands under torch."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return {"nvidia_driver": False}
    query = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
    cards = [[part.strip() for part in line.split(",")] for line in answer.splitlines() if line.strip()]
    return {
        "nvidia_driver": cards[0][2] if cards else None,
        "cards": [f"{name} {int(mib) * 2**20 / GB:.0f} GB" for name, mib, _ in cards],
    }


def thread_facts() -> Facts:
    """Environment variables that change how libraries use cores and cards, where they are set."""
    return {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ}
