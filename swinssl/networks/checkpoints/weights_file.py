"""Weights on disk: safetensors with a few words of what they are. Nothing in such a file can run code."""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from swinssl.core import files
from swinssl.core.errors import UserError

# Keys of the metadata of a sealed file: SHA-256 of the tensors, and of all other metadata.
TENSORS_HASH, METADATA_HASH = "sha256", "metadata_sha256"
OUR_FORMATS = "swinssl-"
# Of models by swinssl 0.1.0, whose tensors are hashed but not their metadata.
UNSEALED_VERSIONS = ("1",)
COPY_AGAIN = "Copy it again from where it was made."
# Of safetensors, as torch calls them; those that a network's weights may have.
FLOATS = ("float16", "bfloat16", "float32", "float64")
DTYPES = {
    **{"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64", "BOOL": "bool", "U8": "uint8"},
    **{"I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64", "C64": "complex64"},
    **{"U16": "uint16", "U32": "uint32", "U64": "uint64", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"},
}

if TYPE_CHECKING:  # headers are read by commands that need no torch
    from torch import Tensor


def write_weights(path: Path, weights: dict[str, Tensor], *, metadata: dict[str, str]) -> None:
    """Write tensors atomically; `metadata` says what they are (strings only). The same give the same bytes.

    Metadata with a `format` of swinssl's are sealed: the file also says the SHA-256 of its tensors and of its metadata,
    and whoever reads it checks both.
    """
    from safetensors.torch import save

    # As bytes, so that the header can be put in order and sealed.
    written = memoryview(save({name: tensor.detach().to("cpu").contiguous() for name, tensor in weights.items()}))
    header, body = _parsed(written)
    if metadata:
        header["__metadata__"] = _sealed(metadata, header, body) if _is_ours(metadata) else metadata
    with files.atomic_path(path) as temporary, open(temporary, "wb") as stream:
        stream.writelines(_serialised(header, body))


def _sealed(metadata: Mapping[str, str], header: Mapping[str, Any], body: memoryview) -> dict[str, str]:
    # Metadata that were read from a file carry the hash of that file.
    unsealed = {name: value for name, value in metadata.items() if name != METADATA_HASH}
    unsealed[TENSORS_HASH] = _tensors_sha256(header, body)
    return {**unsealed, METADATA_HASH: _metadata_sha256(unsealed)}


def _serialised(header: dict[str, Any], body: memoryview) -> tuple[bytes | memoryview, ...]:
    """The parts of a safetensors file, its metadata sorted: safetensors has them in another order each time."""
    if "__metadata__" in header:
        header = {"__metadata__": dict(sorted(header["__metadata__"].items())), **_tensors_of(header)}
    ordered = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    ordered += b" " * (-len(ordered) % 8)  # tensors begin at a multiple of 8
    return len(ordered).to_bytes(8, "little"), ordered, body


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name on the CPU, and the metadata; of a sealed file both are those that were written.

    Raises:
        UserError: the file is missing, is not safetensors, or is damaged.
    """
    check_content(path)
    with _opened(path, framework="pt") as stream:
        return {name: stream.get_tensor(name) for name in stream.keys()}, stream.metadata() or {}  # noqa: SIM118


def read_shapes(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Shapes by name and the metadata, from the header alone.

    Raises:
        UserError: the file is missing, is not safetensors, or its metadata are damaged.
    """
    with _opened(path, framework="numpy") as stream:
        shapes = {name: tuple(stream.get_slice(name).get_shape()) for name in stream.keys()}  # noqa: SIM118
        metadata = stream.metadata() or {}
    _check_metadata(path, metadata)
    return shapes, metadata


def read_dtypes(path: Path) -> dict[str, str]:
    """The type of each tensor by name (`float32`), from the header alone; errors as of `read_shapes`."""
    with _opened(path, framework="numpy") as stream:
        found = {name: stream.get_slice(name).get_dtype() for name in stream.keys()}  # noqa: SIM118
    return {name: DTYPES.get(dtype, dtype) for name, dtype in found.items()}


def check_content(path: Path) -> None:
    """Check that a sealed file, or a model of swinssl 0.1.0, has the tensors and metadata that were written.

    Needs no torch. Other files pass.

    Raises:
        UserError: the file is missing, is not safetensors, or is damaged.
    """
    metadata = read_shapes(path)[1]
    if not _is_ours(metadata):
        return
    with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        content = memoryview(mapped)
        header, body = _parsed(content)
        same = _tensors_sha256(header, body) == metadata.get(TENSORS_HASH)
        body.release()
        content.release()
    if not same:
        raise UserError(f"{path}: the weights are not those that were written: the file is damaged. {COPY_AGAIN}")


def refuse_unusable(path: Path, tensors: Mapping[str, Tensor], *, remedy: str) -> None:
    """Raise where a network's tensors cannot be computed with.

    Raises:
        UserError: a tensor is no floating-point one, or has numbers that are NaN or infinite; it is named.
    """
    import torch

    for name, tensor in tensors.items():
        if str(tensor.dtype).removeprefix("torch.") not in FLOATS:
            raise UserError(f"{path}: {name} is {tensor.dtype}; expected {', '.join(FLOATS)}. {remedy}")
        if not bool(torch.isfinite(tensor).all()):
            raise UserError(f"{path}: {name} has numbers that are NaN or infinite. {remedy}")


def _check_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    sealed = METADATA_HASH in metadata or (_is_ours(metadata) and metadata.get("version") not in UNSEALED_VERSIONS)
    if not sealed:
        return
    unsealed = {key: value for key, value in metadata.items() if key != METADATA_HASH}
    if metadata.get(METADATA_HASH) != _metadata_sha256(unsealed):
        raise UserError(f"{path}: its metadata are not those that were written: the file is damaged. {COPY_AGAIN}")


def _is_ours(metadata: Mapping[str, str]) -> bool:
    return metadata.get("format", "").startswith(OUR_FORMATS)


def _metadata_sha256(metadata: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode()).hexdigest()


def _tensors_sha256(header: Mapping[str, Any], body: memoryview) -> str:
    """Of names, types, shapes and numbers; does not depend on how the file orders them."""
    digest = hashlib.sha256()
    for name, entry in sorted(_tensors_of(header).items()):
        start, end = entry["data_offsets"]
        dtype = DTYPES.get(entry["dtype"], entry["dtype"])
        digest.update(f"{name} torch.{dtype} {tuple(entry['shape'])}".encode())
        digest.update(body[start:end])
    return digest.hexdigest()


def _tensors_of(header: Mapping[str, Any]) -> dict[str, Any]:
    return {name: entry for name, entry in header.items() if name != "__metadata__"}


def _parsed(content: memoryview) -> tuple[dict[str, Any], memoryview]:
    """Header and body of a safetensors file."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(bytes(content[8 : 8 + length])), content[8 + length :]


@contextlib.contextmanager
def _opened(path: Path, *, framework: str) -> Iterator[Any]:
    try:
        files.open_regular(path).close()  # safetensors calls every file that it may not read a missing one
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Give the path of a safetensors file with weights.") from None
    except IsADirectoryError:
        raise UserError(f"{path}: a folder. Give the path of a safetensors file with weights.") from None
    except PermissionError:
        raise UserError(f"{path}: you may not read it (permission denied). Ask its owner, or copy it.") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}. Give the path of a safetensors file with weights.") from None
    try:
        with safe_open(path, framework=framework) as stream:
            yield stream
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path}: not a readable safetensors file ({error}). Copy or write it again; a checkpoint of another "
            "project is converted by swinssl_weights import."
        ) from None
