"""Weights on disk: safetensors with a few words of what they are. Nothing in such a file can run code."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from swinssl import files
from swinssl.errors import UserError

if TYPE_CHECKING:  # headers are read by commands that need no torch
    from torch import Tensor


def write_weights(path: Path, weights: dict[str, Tensor], *, metadata: dict[str, str]) -> None:
    """Write tensors atomically; `metadata` says what they are (strings only). The same give the same bytes."""
    from safetensors.torch import save

    # As bytes, since what safetensors itself writes only its owner may read.
    written = save({name: tensor.detach().to("cpu").contiguous() for name, tensor in weights.items()}, metadata)
    with files.atomic_path(path) as temporary, open(temporary, "wb") as stream:
        stream.writelines(_in_order(memoryview(written)))


def _in_order(written: memoryview) -> tuple[bytes | memoryview, ...]:
    """The parts of a safetensors file, its metadata sorted: safetensors has them in another order each time."""
    length = int.from_bytes(written[:8], "little")
    header = json.loads(bytes(written[8 : 8 + length]))
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    ordered = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    ordered += b" " * (-len(ordered) % 8)  # tensors begin at a multiple of 8
    return len(ordered).to_bytes(8, "little"), ordered, written[8 + length :]


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name on the CPU, and the metadata.

    Raises:
        UserError: the file is missing or is not safetensors.
    """
    with _opened(path, framework="pt") as stream:
        return {name: stream.get_tensor(name) for name in stream.keys()}, stream.metadata() or {}  # noqa: SIM118


def read_shapes(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Shapes by name and the metadata, from the header alone.

    Raises:
        UserError: the file is missing or is not safetensors.
    """
    with _opened(path, framework="numpy") as stream:
        shapes = {name: tuple(stream.get_slice(name).get_shape()) for name in stream.keys()}  # noqa: SIM118
        return shapes, stream.metadata() or {}


@contextlib.contextmanager
def _opened(path: Path, *, framework: str) -> Iterator[Any]:
    try:
        with safe_open(path, framework=framework) as stream:
            yield stream
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Give the path of a safetensors file with weights.") from None
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path}: not a readable safetensors file ({error}). Copy or write it again; a checkpoint of another "
            "project is converted by swinssl_weights import."
        ) from None
