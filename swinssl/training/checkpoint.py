"""Checkpoints: weights as safetensors, the rest as a plain hash-checked state file; the last two are kept."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from swinssl import files
from swinssl.errors import UserError

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
    """

    step: int
    weights: dict[str, Tensor]
    state: dict[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write `folder/step_<n>`, whole or not at all, and remove all but the newest two."""
    # Whatever step a killed process was writing: it may be as large as a checkpoint.
    files.clear_unfinished(folder)
    with files.atomic_folder(folder / _name(checkpoint.step)) as writing:
        save_file({name: t.detach().contiguous() for name, t in checkpoint.weights.items()}, writing / WEIGHTS)
        torch.save(checkpoint.state, writing / STATE)
        hashes = {name: files.sha256_of(writing / name) for name in (WEIGHTS, STATE)}
        (writing / MANIFEST).write_text(json.dumps({"step": checkpoint.step, "sha256": hashes}))
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
        raise UserError(f"{folder}: every checkpoint is damaged. Train anew with --restart.")
    return None


def _load(path: Path) -> Checkpoint:
    manifest = json.loads((path / MANIFEST).read_text())
    for name, expected in manifest["sha256"].items():
        if name not in (WEIGHTS, STATE) or files.sha256_of(path / name) != expected:
            raise ValueError(f"{name} is not what was written")
    state = torch.load(path / STATE, map_location="cpu", weights_only=True)
    return Checkpoint(manifest["step"], load_file(path / WEIGHTS), state)


def _newest_first(folder: Path) -> list[Path]:
    return sorted((p for p in folder.glob("step_*") if p.is_dir()), reverse=True)


def _name(step: int) -> str:
    return f"step_{step:09d}"
