"""Weights on disk: safetensors with a few words of what they are. Nothing in such a file can run code."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from swinssl import files
from swinssl.errors import UserError


def write_weights(path: Path, weights: dict[str, Tensor], *, metadata: dict[str, str]) -> None:
    """Write tensors atomically; `metadata` says what they are (strings only)."""
    with files.atomic_path(path) as temporary:
        contiguous = {name: tensor.detach().to("cpu").contiguous() for name, tensor in weights.items()}
        save_file(contiguous, temporary, metadata=metadata)


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name on the CPU, and the metadata.

    Raises:
        UserError: the file is missing or is not safetensors.
    """
    with _opened(path) as stream:
        return {name: stream.get_tensor(name) for name in stream.keys()}, stream.metadata() or {}  # noqa: SIM118


def read_shapes(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Shapes by name and the metadata, from the header alone.

    Raises:
        UserError: the file is missing or is not safetensors.
    """
    with _opened(path) as stream:
        shapes = {name: tuple(stream.get_slice(name).get_shape()) for name in stream.keys()}  # noqa: SIM118
        return shapes, stream.metadata() or {}


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as stream:
            yield stream
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Give the path of a safetensors file with weights.") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a readable safetensors file ({error}). Copy or write it again.") from None
