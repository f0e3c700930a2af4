"""Checkpoints of other projects, opened so that nothing in them can run, and reduced to tensors under bare names."""

from __future__ import annotations

import argparse
import contextlib
import re
import struct
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.networks.checkpoints.weights_file import read_weights

# Where a checkpoint keeps its state dict: MONAI and most others; DAE; nnssl.
STATE_DICT_KEYS = ("state_dict", "model", "network_weights")
# Self-distillation keeps two networks (DINO, iBOT, SMIT).
BRANCHES = ("student", "teacher")
# Prefixes that wrappers and research code put before an encoder's tensor names.
PREFIXES = ("module", "student", "teacher", "backbone", "model", "transformer", "swinViT", "swin_vit", "swin")
# `encoder.` is such a prefix only before an encoder's own parts: elsewhere it may be a decoder's name.
ENCODER_PREFIX = re.compile(r"encoder\.(?=patch_embed\.|layers\d|layers\.|stages\.|norms\.)")
# How torch's reader names a class that it refuses.
REFUSED_CLASS = re.compile(r"GLOBAL ([\w.]+)|Unsupported (?:global|class) ([\w.]+)")
RE_SAVE = (
    "torch.save(checkpoint['state_dict'], 'weights.pt'), or torch.save(network.state_dict(), 'weights.pt') where the "
    "file holds a whole network"
)
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
    named = {str(name): tensor for name, value in state.items() if (tensor := _tensor(value)) is not None}
    if not named:
        raise UserError(
            f"{path}: no tensors found in {container}. Expected a state dict, alone or under one of "
            f"{', '.join((*STATE_DICT_KEYS, *BRANCHES))}. Save the network's state_dict() and give that."
        )
    return Checkpoint(path, files.sha256_of(path), container, _bare(path, named), metadata)


def _tensor(value: Any) -> Tensor | None:
    """A tensor, or a numpy array as one; None of everything else."""
    if isinstance(value, _NumpyArray) and value.array is not None:
        return torch.from_numpy(value.array.copy())
    return value.detach() if isinstance(value, Tensor) else None


def _start(path: Path) -> bytes:
    try:
        with files.open_regular(path) as stream:
            start = stream.read(64)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Give the path of a checkpoint.") from None
    except IsADirectoryError:
        raise UserError(f"{path}: a folder. Give the path of a checkpoint in it.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Give the path of a checkpoint.") from None
    for first, what in NO_WEIGHTS.items():
        if (start.startswith(first) and first) or start == first:
            raise UserError(f"{path}: {what}.")
    return start


def _unpickled(path: Path) -> Any:
    """The content of a pickled checkpoint: tensors, plain values and what `STAND_INS` reads; all else is refused."""
    try:
        with torch.serialization.safe_globals(_stand_ins()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        if found := REFUSED_CLASS.search(str(error)):
            name = next(filter(None, found.groups()))
            raise UserError(
                f"{path}: holds {name}, and unpickling that could run code; nothing was executed. Expected tensors, "
                "plain values, numpy numbers and arrays, paths, dates and argument lists. If you trust the file's "
                f"source, load it where it was made and save its state dict alone: {RE_SAVE}."
            ) from None
        if zipfile.is_zipfile(path) and "Unsupported operand" in str(error):
            raise UserError(
                f"{path}: damaged, or saved with pickle_protocol 3 or later, which cannot be read safely; nothing in "
                f"it was executed. Load it where it was made and save it as torch does by default: {RE_SAVE}."
            ) from None
        raise UserError(_damaged(path)) from None
    except (RuntimeError, OSError, EOFError, ValueError, LookupError, AttributeError, TypeError, struct.error):
        raise UserError(_damaged(path)) from None


# --- what research code keeps beside the weights


class _NumpyDtype:
    """numpy.dtype of a number; only its name and byte order are taken, and no code of numpy's sees them."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code, self.order = str(code), "<"

    def __setstate__(self, state: Any) -> None:
        self.order = str(state[1])

    @property
    def real(self) -> np.dtype | None:
        """The dtype; None where it is none of a number."""
        if not re.fullmatch(r"[fiub][1248]", self.code) or self.order not in "<>|=":
            return None
        with contextlib.suppress(TypeError):
            return np.dtype(self.order + self.code)
        return None


class _NumpyArray:
    """An array of numbers under construction."""

    def __init__(self, *_: Any) -> None:
        self.array: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, content = state
        real = dtype.real if isinstance(dtype, _NumpyDtype) else None
        content = content.encode("latin1") if isinstance(content, str) else content
        if real is not None and isinstance(content, bytes):
            order: Literal["F", "C"] = "F" if is_fortran else "C"
            self.array = np.frombuffer(content, real).reshape(shape, order=order).astype(real.newbyteorder("="))


def _numpy_scalar(dtype: Any, content: Any = b"", *_: Any) -> Any:
    """The Python number of a numpy one; None where it is none."""
    real = dtype.real if isinstance(dtype, _NumpyDtype) else None
    content = content.encode("latin1") if isinstance(content, str) else content
    known = real is not None and isinstance(content, bytes) and len(content) == real.itemsize
    return np.frombuffer(content, real)[0].item() if known else None


def _encoded(text: Any, *_: Any) -> bytes:
    """The bytes that old protocols keep as text (_codecs.encode)."""
    return str(text).encode("latin1")


class _Forgotten:
    """Stands for what the import does not need; keeps nothing and runs nothing."""

    def __new__(cls, *_: Any, **__: Any) -> Self:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _Mapping:
    """A dict of a library's own kind; becomes an ordered one."""

    def __new__(cls, *_: Any) -> Any:
        return OrderedDict()


# By the names under which files ask for them. torch's reader for `weights_only` calls nothing but these and its own, so
# that no class of the file's runs: each is a small one above, or `argparse.Namespace`, which only holds values.
STAND_INS: dict[Any, tuple[str, ...]] = {
    argparse.Namespace: ("argparse.Namespace",),
    _numpy_scalar: ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
    _NumpyDtype: ("numpy.dtype",),
    _NumpyArray: (
        *("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"),
        *("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer"),
    ),
    _encoded: ("_codecs.encode",),
    _Mapping: (
        *("collections.defaultdict", "easydict.EasyDict", "addict.addict.Dict", "addict.Dict", "yacs.config.CfgNode"),
        *("ml_collections.config_dict.config_dict.ConfigDict", "mmengine.config.config.ConfigDict", "munch.Munch"),
        *("pytorch_lightning.utilities.parsing.AttributeDict", "lightning.fabric.utilities.data.AttributeDict"),
        *("lightning.pytorch.utilities.parsing.AttributeDict", "lightning_fabric.utilities.data.AttributeDict"),
    ),
    _Forgotten: (
        *(f"pathlib{inner}.{kind}" for inner in ("", "._local") for kind in ("PosixPath", "WindowsPath", "Path")),
        *(f"pathlib{inner}.Pure{kind}" for inner in ("", "._local") for kind in ("PosixPath", "WindowsPath", "Path")),
        *("numpy.ndarray", "datetime.datetime", "datetime.date", "datetime.timedelta", "datetime.timezone"),
        *(
            "uuid.UUID",
            "decimal.Decimal",
            "fractions.Fraction",
            "types.SimpleNamespace",
            "torch.torch_version.TorchVersion",
        ),
        *(
            "builtins.complex",
            "builtins.slice",
            "builtins.range",
            "builtins.frozenset",
            "builtins.dict",
            "builtins.list",
        ),
        *("builtins.int", "builtins.float", "builtins.bool", "builtins.str"),
    ),
}


def _stand_ins() -> list[Any]:
    return [(stand_in, name) for stand_in, names in STAND_INS.items() for name in names]


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
