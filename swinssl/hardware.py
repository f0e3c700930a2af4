"""What this machine computes with, asked without torch: importing it takes longer than planning a small data set."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import runpy
import subprocess
import sys
from pathlib import Path

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
