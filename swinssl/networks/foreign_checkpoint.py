"""Checkpoints of other projects, opened so that nothing in them can run, and reduced to tensors under bare names."""

from __future__ import annotations

import argparse
import re
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from swinssl import files
from swinssl.errors import UserError
from swinssl.networks.weights_file import read_weights

# Where a checkpoint keeps its state dict: MONAI and most others; DAE; nnssl.
STATE_DICT_KEYS = ("state_dict", "model", "network_weights")
# Self-distillation keeps two networks (DINO, iBOT, SMIT).
BRANCHES = ("student", "teacher")
# What wrappers and research code put before an encoder's names (spec: networks_and_methods 3.2).
PREFIXES = ("module", "student", "teacher", "backbone", "model", "transformer", "swinViT", "swin_vit", "swin")
# `encoder.` is such a prefix only before an encoder's own parts: elsewhere it may be a decoder's name.
ENCODER_PREFIX = re.compile(r"encoder\.(?=patch_embed\.|layers\d|layers\.|stages\.|norms\.)")
# What is often found where weights were meant to be.
NO_WEIGHTS = {
    b"": "an empty file. Download or copy it again",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself. Fetch it with git lfs pull",
    b"<": "a web page, not a checkpoint. Download it again, with the link of the file itself",
}


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a file.

    Args:
        path: of the file.
        sha256: of its bytes.
        container: where in it the tensors lie, in words.
        tensors: by bare name; floating-point ones as float32.
        metadata: of a safetensors file.
    """

    path: Path
    sha256: str
    container: str
    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def open_checkpoint(path: Path, *, branch: str | None = None) -> Checkpoint:
    """Read a .pt, .pth or safetensors file; what it is, is told by its content.

    Args:
        branch: `student` or `teacher`, where a file keeps both.

    Raises:
        UserError: missing, truncated, no checkpoint, with objects that could run code, or without tensors.
    """
    path = Path(path)
    start = _start(path)
    metadata: dict[str, str] = {}
    if start[8:9] == b"{":
        tensors, metadata = read_weights(path)
        content: Any = tensors
    else:
        content = _unpickled(path)
    state, container = _state_dict(path, content, branch)
    named = {str(name): value.detach() for name, value in state.items() if isinstance(value, Tensor)}
    if not named:
        raise UserError(
            f"{path}: no tensors found in {container}. Expected a state dict, alone or under one of "
            f"{', '.join((*STATE_DICT_KEYS, *BRANCHES))}. Save the network's state_dict() and give that."
        )
    return Checkpoint(path, files.sha256_of(path), container, _bare(path, named), metadata)


def _start(path: Path) -> bytes:
    try:
        with open(path, "rb") as stream:
            start = stream.read(64)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Give the path of a checkpoint.") from None
    except IsADirectoryError:
        raise UserError(f"{path}: a folder. Give the path of a checkpoint in it.") from None
    for first, what in NO_WEIGHTS.items():
        if (start.startswith(first) and first) or start == first:
            raise UserError(f"{path}: {what}.")
    return start


def _unpickled(path: Path) -> Any:
    """The content of a pickled checkpoint: tensors, plain values and argument lists; any other class is refused."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        if found := re.search(r"GLOBAL ([\w.]+)|Unsupported (?:global|class) ([\w.]+)", str(error)):
            raise UserError(
                f"{path}: holds {found[1] or found[2]}, and unpickling that could run code; nothing was executed. "
                "Expected tensors and plain values only. If you trust the file's source, load it where it was made "
                "and save its state dict alone: torch.save(network.state_dict(), 'weights.pt')."
            ) from None
        raise UserError(_damaged(path)) from None
    except (RuntimeError, OSError, EOFError, ValueError, LookupError, AttributeError, TypeError, struct.error):
        raise UserError(_damaged(path)) from None


def _damaged(path: Path) -> str:
    return (
        f"{path}: truncated, or not a checkpoint that torch.save or safetensors wrote; nothing in it was executed. "
        "Download or copy it again."
    )


def _state_dict(path: Path, content: Any, branch: str | None) -> tuple[Mapping[Any, Any], str]:
    """The mapping that holds the tensors, and where it was found."""
    if not isinstance(content, Mapping):
        raise UserError(
            f"{path}: holds a {type(content).__name__}. Expected a state dict, or a dict with one under "
            f"{', '.join((*STATE_DICT_KEYS, *BRANCHES))}. Save the network's state_dict() and give that."
        )
    branches = [key for key in BRANCHES if isinstance(content.get(key), Mapping)]
    if len(branches) == 2 and branch is None:
        raise UserError(
            f"{path}: keeps a student and a teacher. Say which with --branch; DINO and iBOT evaluate the teacher."
        )
    if branch is not None and branch not in branches:
        raise UserError(f"{path}: keeps no {branch}. Leave --branch out.")
    for key in (branch, *branches, *STATE_DICT_KEYS):
        if isinstance(content.get(key), Mapping):
            return content[key], f"'{key}'"
    return content, "the top level"


def _bare(path: Path, named: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors without the prefixes of wrappers."""
    bare: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    for name, tensor in named.items():
        short = bare_name(name)
        if short in bare:
            raise UserError(
                f"{path}: {origin[short]} and {name} are both {short}. Save the state dict of one network alone."
            )
        bare[short] = tensor.float() if tensor.is_floating_point() else tensor
        origin[short] = name
    return bare


def bare_name(name: str) -> str:
    """The name without what wrappers and research code put before it."""
    while True:
        first, _, rest = name.partition(".")
        if first in PREFIXES and rest:
            name = rest
        elif match := ENCODER_PREFIX.match(name):
            name = name[match.end() :]
        else:
            return name
