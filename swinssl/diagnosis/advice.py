"""What to do about the facts: a pure function, so that every rule is tested without the machine that has the fault."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from swinssl.diagnosis.facts import FAILED, Facts
from swinssl.diagnosis.libraries import MISSING, numbers

INSTALL = "In the checkout: pip install -c constraints.txt -e ."
# Below these the smallest training, or a few dozen preprocessed CTs, become a squeeze.
LEAST_MEMORY_GB, LEAST_DISK_GB = 4.0, 10.0
# Docker's default is 0.06.
LEAST_SHARED_MEMORY_GB = 0.5
SLOW_DISK_MB_PER_S = 30.0
SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True)
class Advice:
    """One thing that is wrong or could be better.

    Args:
        severity: error: swinssl does not work; warning: something will fail or be slow; note: good to know.
        message: what was found; no full stop at its end.
        remedy: what the user does about it; a sentence.
    """

    severity: Literal["error", "warning", "note"]
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.message}. {self.remedy}"


def advise(facts: dict[str, Facts], *, lowest: dict[str, str], torch_for_torchvision: str | None) -> tuple[Advice, ...]:
    """Advice on facts, the worst first.

    Args:
        facts: sections of `diagnose`; a missing one gives no advice.
        lowest: library -> lowest version that swinssl asks for.
        torch_for_torchvision: the torch version that the installed torchvision was built for.
    """
    sections = defaultdict[str, Facts](dict)
    sections.update({name: section for name, section in facts.items() if FAILED not in section})
    found = [
        *_on_probes(facts),
        *_on_libraries(sections, lowest),
        *_on_torchvision(sections, torch_for_torchvision),
        *_on_devices(sections["graphics"], sections["torch"]),
        *_on_cores(sections["cpu"], sections["torch"], sections["threads"]),
        *_on_memory(sections["memory"], sections["shared memory"], sections["python"]),
        *_on_storage(sections["workspace"], sections["disk"]),
    ]
    return tuple(sorted(found, key=lambda advice: SEVERITIES.index(advice.severity)))


def _on_probes(facts: dict[str, Facts]) -> Iterator[Advice]:
    for name, section in facts.items():
        if FAILED in section:
            yield Advice("note", f"{name} could not be examined ({section[FAILED]})", "Include this line in a report.")


def _on_libraries(sections: dict[str, Facts], lowest: dict[str, str]) -> Iterator[Advice]:
    versions, failed = sections["versions"], sections["imports"].get("failed", {})
    if sections["swinssl"].get("installed") is False:
        yield Advice("error", "swinssl runs from a folder but is not installed", INSTALL)
    for name, asked in lowest.items():
        version = versions.get(name, "")
        if version == MISSING:
            yield Advice("error", f"{name} is not installed", INSTALL)
        elif numbers(version) < numbers(asked):
            yield Advice("error", f"{name} is {version or 'unknown'}, needed is {asked} or newer", INSTALL)
        elif name in failed:
            yield Advice("error", f"{name} cannot be imported ({failed[name]})", f"pip uninstall {name}. {INSTALL}")
    if versions.get("isal") == MISSING:
        yield Advice("note", "isal is not installed, so .nii.gz files are read more slowly", "pip install isal")
    for name in ("isal", "triton"):
        if name in failed:
            yield Advice("warning", f"{name} cannot be imported ({failed[name]})", f"Optional: pip uninstall {name}")


def _on_torchvision(sections: dict[str, Facts], built_for: str | None) -> Iterator[Advice]:
    torch, torchvision = (sections["versions"].get(name, MISSING) for name in ("torch", "torchvision"))
    failure = sections["imports"].get("failed", {}).get("torchvision")
    if MISSING in (torch, torchvision):
        return
    remedy = (
        "swinssl does not use torchvision, but other networks of dynamic-network-architectures do. Install both "
        "libraries again with one pip install command, from one package index."
    )
    if built_for is not None and numbers(torch) != numbers(built_for):
        yield Advice("warning", f"torchvision {torchvision} was built for torch {built_for}, here is {torch}", remedy)
    elif failure is not None:
        message = (
            f"torchvision {torchvision} does not work with torch {torch} ({failure}); one may be for CPU, one for CUDA"
        )
        yield Advice("warning", message, remedy)


def _on_devices(graphics: Facts, torch: Facts) -> Iterator[Advice]:
    cards = graphics.get("cards")
    if cards and torch.get("cuda") is False:
        remedy = (
            "Install the CUDA build of torch: pip install -c constraints.txt --force-reinstall torch torchvision"
            if torch.get("built_for") == "CPU"
            else "Update the NVIDIA driver, and check that CUDA_VISIBLE_DEVICES does not hide the card."
        )
        yield Advice("warning", f"torch, built for {torch['built_for']}, cannot use the {cards[0]}", remedy)
    if torch and not (torch["cuda"] or torch["mps"] or cards):
        speed = "" if torch["bf16_on_cpu"] else " It has no bfloat16 instructions: steps take about twice as long."
        yield Advice("note", "no GPU, so training runs on the CPU", f"swinssl_plan chooses sizes for it.{speed}")


def _on_cores(cpu: Facts, torch: Facts, threads: Facts) -> Iterator[Advice]:
    limits = [cpu[name] for name in ("usable", "container_limit") if cpu.get(name)]
    if not limits:
        return
    cores: float = min(limits)
    used: float = torch.get("threads", cores)
    if used > math.ceil(cores):
        message = f"torch would start {used} threads, but {cores:g} cores may be used"
        yield Advice("warning", message, f"Set OMP_NUM_THREADS={math.ceil(cores)}")
    elif used < cores and "OMP_NUM_THREADS" in threads:
        message = f"OMP_NUM_THREADS={threads['OMP_NUM_THREADS']} leaves cores idle; available are {cores:g}"
        yield Advice("note", message, "Unset it, unless several programs share this machine.")
    if cpu.get("load", 0) > cores / 2:
        message = f"other programs keep the cores busy (load {cpu['load']:.1f} on {cores:g} cores)"
        yield Advice(
            "warning", message, "Times that swinssl_plan reports assume free cores. Wait, or expect longer times."
        )
        if threads.get("OMP_WAIT_POLICY", "passive").lower() != "passive":
            yield Advice("warning", "OMP_WAIT_POLICY makes waiting threads spin on busy cores", "Unset it.")


def _on_memory(memory: Facts, shared: Facts, python: Facts) -> Iterator[Advice]:
    free = min(memory.get("free_gb", math.inf), memory.get("container_limit_gb", math.inf))
    if free < LEAST_MEMORY_GB:
        remedy = "Close other programs, or train with --preset tiny and preprocess with --workers 0."
        yield Advice("warning", f"only {free:.1f} GB of memory can be used", remedy)
    if shared.get("total_gb", math.inf) < LEAST_SHARED_MEMORY_GB:
        message = (
            f"/dev/shm has {shared['total_gb']:.2f} GB, which libraries that share arrays between processes exceed"
        )
        yield Advice("note", message, "Start the container with --shm-size=8g")
    if python.get("bits") == 32:
        yield Advice("error", "this Python has 32 bits, so it can use 2 to 4 GB of memory", "Install a 64-bit Python.")


def _on_storage(workspace: Facts, disk: Facts) -> Iterator[Advice]:
    elsewhere = "Choose another folder with --root or SWINSSL_ROOT."
    if "not_writable" in disk:
        message = f"{workspace.get('root', 'the workspace')} cannot be written ({disk['not_writable']})"
        yield Advice("warning", message, elsewhere)
    if disk.get("free_gb", math.inf) < LEAST_DISK_GB:
        yield Advice("warning", f"only {disk['free_gb']:.1f} GB of disk are free", f"Free some. {elsewhere}")
    if disk.get("write_mb_per_s", math.inf) < SLOW_DISK_MB_PER_S:
        message = f"the disk writes {disk['write_mb_per_s']:.0f} MB/s"
        yield Advice("warning", message, f"Training reads faster from a local disk. {elsewhere}")
    if workspace.get("nnUNet_raw") == "no such folder":
        yield Advice("warning", "the folder of nnUNet_raw does not exist", "Correct the variable or unset it.")
