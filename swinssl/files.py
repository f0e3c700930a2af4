"""Files that are never half written: a temporary name in the same folder, flushed, then renamed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swinssl.errors import UserError

# Of what is being written; after a kill it may stay.
PREFIX = ".writing-"


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it when the block ends well and vanishes when it does not.

    The temporary name keeps the whole ending (`.nii.gz`), so that writers which look at it do the right thing. An
    OSError of the temporary file, or of none in particular (a full disk), names `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # A folder, not a file: some writers (blosc2) refuse to write over a file that exists already.
        with tempfile.TemporaryDirectory(prefix=PREFIX, dir=path.parent, ignore_cleanup_errors=True) as folder:
            temporary = Path(folder) / path.name
            yield temporary
            with open(temporary, "rb+") as written:
                os.fsync(written.fileno())
            temporary.replace(path)
    except OSError as error:
        if error.filename is None or PREFIX in str(error.filename):
            error.filename = str(path)
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, as UTF-8 with bare newlines on every system."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write `value` as readable, strict JSON (NaN is refused: write null and say what it means)."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path, *, what: str, remedy: str) -> Any:
    """The content of a JSON file.

    Args:
        what: what the file is, for the message ("plans").
        remedy: what the user does when it is missing or broken.

    Raises:
        UserError: the file is missing, unreadable or not JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{path}: no {what} here. {remedy}") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path}: the {what} cannot be read: not valid JSON ({error}). {remedy}") from None
    except OSError as error:
        raise UserError(f"{path}: the {what} cannot be read ({error.strerror}). {remedy}") from None


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
