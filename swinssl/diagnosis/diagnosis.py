"""All facts about machine and installation, and what to do about the bad ones."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from swinssl.diagnosis import import_trial, libraries, machine, storage
from swinssl.diagnosis.advice import Advice, advise
from swinssl.diagnosis.anonymous import anonymised
from swinssl.diagnosis.facts import FAILED, Facts


@dataclass(frozen=True)
class Diagnosis:
    """Facts by section, and advice, the worst first; nothing in them names the user or the machine."""

    facts: dict[str, Facts]
    advice: tuple[Advice, ...]


def diagnose(root: Path) -> Diagnosis:
    """Probe everything; a probe that fails leaves its error among the facts and stops no other.

    Args:
        root: the workspace's root folder; it need not exist and is not made.
    """
    probes: dict[str, Callable[[], Facts]] = {
        "swinssl": libraries.program_facts,
        "python": machine.python_facts,
        "system": machine.system_facts,
        "cpu": machine.cpu_facts,
        "memory": machine.memory_facts,
        "graphics": machine.graphics_facts,
        "threads": machine.thread_facts,
        "versions": libraries.version_facts,
        "workspace": lambda: storage.workspace_facts(root),
        "disk": lambda: storage.disk_facts(root),
        "shared memory": storage.shared_memory_facts,
    }
    # The imports take seconds in a process of their own; the rest runs beside them.
    with ThreadPoolExecutor(max_workers=1) as pool:
        trial = pool.submit(lambda: import_trial.try_imports(libraries.modules()))
        facts = {name: _guarded(probe) for name, probe in probes.items()}
        facts["imports"] = _guarded(lambda: trial.result().imports)
        facts["torch"] = _guarded(lambda: trial.result().torch)
    advice = advise(facts, lowest=libraries.requirements(), torch_for_torchvision=libraries.torch_for_torchvision())
    return Diagnosis(anonymised(facts), anonymised(advice))


def _guarded(probe: Callable[[], Facts]) -> Facts:
    try:
        return probe()
    except Exception as error:  # whatever is broken on this machine is what we are here to report
        return {FAILED: f"{type(error).__name__}: {error}"}
