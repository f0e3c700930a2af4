"""Import libraries on trial, in a process of its own: a broken one may crash it or hang.

Run as a module it is that process: it imports what it is told and answers in lines of JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass

from swinssl.diagnosis.facts import Facts

LIMIT_SECONDS = 90


@dataclass(frozen=True)
class Trial:
    """How the imports went, and what torch says of itself and the devices."""

    imports: Facts
    torch: Facts


def try_imports(modules: dict[str, str]) -> Trial:
    """Import modules one after the other.

    Args:
        modules: library -> module to import.
    """
    answers, ending = _ask_another_process(list(modules.values()))
    failed = {}
    for library, module in modules.items():
        if f"begun {module}" in answers and module not in answers:
            failed[library] = f"stopped Python ({ending})"
        elif isinstance(answers.get(module), str):
            failed[library] = str(answers[module])
    seconds = [value for value in answers.values() if isinstance(value, float)]
    imports = {"tried": len(modules), "took_seconds": sum(seconds), "failed": failed}
    described = answers.get("describe torch")
    return Trial(imports, described if isinstance(described, dict) else {})


def _ask_another_process(modules: list[str]) -> tuple[dict[str, object], str]:
    """Its answers by key, and how it ended."""
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-m", __name__, *modules]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, timeout=LIMIT_SECONDS, check=False)
        said, ending = done.stdout, f"exit code {done.returncode}"
    except subprocess.TimeoutExpired as stuck:
        said, ending = stuck.stdout or b"", f"still busy after {LIMIT_SECONDS} s"
    answers: dict[str, object] = {}
    for line in said.decode("utf-8", "replace").splitlines():
        if line.startswith('{"answer":'):
            key, value = json.loads(line)["answer"]
            answers[key] = value
    return answers, ending


def _answer(modules: list[str]) -> None:
    for module in modules:
        _say(f"begun {module}", True)
        started = time.perf_counter()
        try:
            importlib.import_module(module)
            _say(module, time.perf_counter() - started)
        except Exception as error:
            _say(module, f"{type(error).__name__}: {error}")
            continue
        if module == "torch":
            _say("describe torch", _described_torch())


def _say(key: str, value: object) -> None:
    print(json.dumps({"answer": [key, value]}), flush=True)


def _described_torch() -> Facts:
    import torch

    from swinssl.core.devices import use_bf16

    cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    cuda, rocm = torch.version.cuda, torch.version.hip
    return {
        "built_for": f"CUDA {cuda}" if cuda else f"ROCm {rocm}" if rocm else "CPU",
        "cuda": torch.cuda.is_available(),
        "cards": [f"{c.name} {c.total_memory / 1e9:.0f} GB capability {c.major}.{c.minor}" for c in cards],
        "mps": torch.backends.mps.is_available(),
        "cpu_instructions": torch.backends.cpu.get_cpu_capability(),
        "bf16_on_cpu": use_bf16(torch.device("cpu"), "auto"),
        "threads": torch.get_num_threads(),
        "compiler": next((name for name in ("g++", "clang++", "cl") if shutil.which(name)), "none"),
    }


if __name__ == "__main__":
    _answer(sys.argv[1:])
