"""Checkpoints: weights as safetensors, the rest as a plain hash-checked state file; the last two are kept."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.training.engine.sharding import own_part

logger = logging.getLogger(__name__)

WEIGHTS, STATE, MANIFEST = "weights.safetensors", "state.pt", "manifest.json"
KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a run needs to go on.

    Args:
        step: optimiser steps done.
        weights: tensors by name (network and extras).
        state: optimiser state, counters, history: tensors, numbers, strings, lists and dicts only.
        run: JSON of the run's description, so that it is known whose checkpoint this is even without `run.json`.
    """

    step: int
    weights: dict[str, Tensor]
    state: dict[str, Any]
    run: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write `folder/step_<n>`, whole or not at all, and remove all but the newest two."""
    # Whatever step a killed process was writing: it may be as large as a checkpoint.
    files.clear_unfinished(folder)
    with files.atomic_folder(folder / _name(checkpoint.step)) as writing:
        save_file({name: t.detach().contiguous() for name, t in checkpoint.weights.items()}, writing / WEIGHTS)
        torch.save(checkpoint.state, writing / STATE)
        hashes = {name: files.sha256_of(writing / name) for name in (WEIGHTS, STATE)}
        manifest = {"step": checkpoint.step, "sha256": hashes, "run": checkpoint.run}
        (writing / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    for old in _newest_first(folder)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole; None where there is none at all.

    Raises:
        UserError: there are checkpoints, but all are damaged.
    """
    found = _newest_first(folder)
    for path in found:
        try:
            return _load(path)
        except Exception as error:  # a file that is cut, altered or of something else raises whatever it likes
            logger.warning("%s: damaged (%s); trying the checkpoint before it.", path, error)
    if found:
        raise UserError(f"{folder}: every checkpoint is damaged. Begin anew with --restart; it keeps the folder aside.")
    return None


def run_of_checkpoints(folder: Path) -> dict[str, Any] | None:
    """What the newest readable checkpoint says of its run, {} where it says nothing; None without any checkpoint."""
    paths = _newest_first(folder)
    for path in paths:
        try:
            run = json.loads((path / MANIFEST).read_text(encoding="utf-8")).get("run")
        except (OSError, ValueError, AttributeError):
            continue
        if isinstance(run, dict):
            return run
    return {} if paths else None


def newest_step(folder: Path) -> int | None:
    """Steps of the newest checkpoint, whole or not; None where there is none."""
    paths = _newest_first(folder)
    return int(paths[0].name.removeprefix("step_")) if paths else None


def first_not_finite(weights: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor with a number that is NaN or infinite; None where all are finite."""
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not torch.isfinite(own_part(tensor)).all():
            return name
    return None


def _load(path: Path) -> Checkpoint:
    manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    for name, expected in manifest["sha256"].items():
        if name not in (WEIGHTS, STATE) or files.sha256_of(path / name) != expected:
            raise ValueError(f"{name} is not what was written")
    state = torch.load(path / STATE, map_location="cpu", weights_only=True)
    weights = load_file(path / WEIGHTS)
    if (name := first_not_finite(weights)) is not None:
        raise ValueError(f"{name} has numbers that are not finite")
    return Checkpoint(manifest["step"], weights, state, manifest.get("run", {}))


def _newest_first(folder: Path) -> list[Path]:
    return sorted((p for p in folder.glob("step_*") if p.is_dir()), reverse=True)


def _name(step: int) -> str:
    return f"step_{step:09d}"
