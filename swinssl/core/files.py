"""Atomic file writing (a temporary name in the same folder, flushed, then renamed) and safe reading."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swinssl.core.errors import UserError

# Prefix of temporary files; a killed process may leave some behind.
PREFIX = ".writing-"
# A temporary file that has not changed for this long is no longer being written.
LEFT_BEHIND_SECONDS = 24 * 3600.0
# Linux constants: paths relative to the working folder; exchange two names.
AT_FDCWD, RENAME_EXCHANGE = -100, 2
# Characters of a name, each up to four bytes: file systems allow 255 bytes.
LONGEST_NAME = 50
# Nesting of JSON: swinssl's files have six levels, and Python's recursion limit is several hundred.
DEEPEST = 50
SPECIAL_FILES = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)
# Errors of a full disk, an exceeded quota or a file that is too large.
FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# Bytes written to test whether the disk is full.
TRIAL_BYTES = 1 << 20


@contextlib.contextmanager
def atomic_path(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it if the block succeeds and is deleted if it fails.

    The temporary name keeps the whole ending (`.nii.gz`), because some writers choose the format by it. The file does
    not exist yet, because some writers (blosc2) refuse to overwrite. An OSError about the temporary file, or about no
    file (a full disk), names `path`; an exception of a library becomes an OSError if the disk was the cause.

    Args:
        durable: wait until the content is on the disk, so that a power cut cannot leave an empty file under the name.
            Not needed if readers verify the content and can make it again; it costs milliseconds.
    """
    with _temporary(Path(path)) as temporary:
        yield temporary
        _share(temporary)
        if durable:
            _flush(temporary)
        temporary.replace(path)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that replaces it if the block succeeds; otherwise as for `atomic_path`."""
    with _temporary(Path(path)) as temporary:
        temporary.mkdir()
        yield temporary
        for written in temporary.iterdir():
            _share(written)
            _flush(written)
        replace_folder(temporary, Path(path))


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[None]:
    """Create a folder with its parents; new and empty ones are removed if the block fails."""
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    clear_left_behind(path)
    try:
        yield
    except BaseException:
        for folder in made:
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()
        raise


def replace_folder(new: Path, path: Path) -> None:
    """Move the folder `new` to `path` and delete what was there.

    On Linux the two are exchanged atomically, so a kill at any moment leaves one complete folder at `path`. On other
    systems neither exists for a moment.
    """
    if not path.exists():
        new.rename(path)
    elif _exchange(new, path):
        _remove(new)
    else:
        old = new.with_name(f"{new.name}-old")
        path.rename(old)
        try:
            new.rename(path)
        except OSError:
            old.rename(path)
            raise
        _remove(old)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two paths atomically; False if the system or the file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):  # not Linux, or a C library without it
        return False
    return bool(renameat2(AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE) == 0)


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A new name beside `path`; anything left under it is deleted at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_left_behind(path.parent)
    temporary = path.with_name(f"{PREFIX}{secrets.token_hex(4)}-{path.name[-LONGEST_NAME:]}")
    try:
        yield temporary
    except OSError as error:
        _name(path, error)
        raise
    except Exception as error:
        refusal = _refusal_of_the_disk(error, temporary)
        if refusal is None:
            raise
        _name(path, refusal)
        raise refusal from error
    finally:
        _remove(temporary)


def _name(path: Path, error: OSError) -> None:
    """Set the error's file name to `path`, unless it is about another file."""
    if error.filename is None or PREFIX in str(error.filename):
        error.filename = str(path)


def _share(path: Path) -> None:
    """Set a file's permissions by the umask: safetensors writes files that only their owner may read."""
    if os.name == "nt" or not path.is_file():
        return
    mode = path.stat().st_mode
    if (shared := mode | (0o666 & ~_umask())) != mode:
        path.chmod(shared)


@functools.cache
def _umask() -> int:
    """The process's umask. It can be read only by setting it, so it is read once."""
    current = os.umask(0o077)
    os.umask(current)
    return current


def _flush(path: Path) -> None:
    with open(path, "rb+") as written:
        os.fsync(written.fileno())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _refusal_of_the_disk(error: Exception, temporary: Path) -> OSError | None:
    """The disk error behind a library's exception; None if the disk is not the cause.

    safetensors gives the number of the system's error and removes its file. For other libraries, appending to the
    unfinished files shows whether the disk is full.
    """
    if found := re.search(r"\(os error (\d+)\)", str(error)):
        return OSError(int(found[1]), os.strerror(int(found[1])))
    another = temporary.with_name(f"{temporary.name}-another")
    begun = [path for path in (temporary, *temporary.rglob("*")) if path.is_file()]
    try:
        for path in (*begun, another):
            with open(path, "ab") as stream:
                stream.write(bytes(TRIAL_BYTES))
                stream.flush()
                os.fsync(stream.fileno())
    except OSError as refusal:
        return refusal
    finally:
        _remove(another)
    return None


def write_bytes(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write `content` to `path` atomically, unless the file has it already; `durable` as for `atomic_path`."""
    with contextlib.suppress(OSError):
        if path.stat().st_size == len(content) and path.read_bytes() == content:
            return
    with atomic_path(path, durable=durable) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    r"""Write `text` to `path` atomically, as UTF-8 with `\n` on every system; `durable` as for `atomic_path`."""
    write_bytes(path, text.encode("utf-8"), durable=durable)


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Write `value` as indented, strict JSON; NaN is refused (write null instead)."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n", durable=durable)


def parse_json(text: str) -> Any:
    """The content of strict JSON that can be written again: no NaN, no infinity, no lone surrogate.

    Raises:
        ValueError: it is not strict JSON, or it is nested more than `DEEPEST` levels deep.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    level = [value]
    for _ in range(DEEPEST):
        level = [item for parent in level for item in _items(parent)]
        if not level:
            break
    else:
        raise ValueError(f"nested more than {DEEPEST} levels deep")
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    return value


def _items(value: Any) -> list[Any]:
    """The objects and lists inside a JSON value."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [item for item in items if isinstance(item, dict | list)]


def read_json(path: Path, *, what: str, remedy: str) -> Any:
    """The content of a JSON file.

    Args:
        what: name of the file's kind in messages ("plans").
        remedy: what the user does if it is missing or broken.

    Raises:
        UserError: the file is missing, unreadable or not JSON.
    """
    path = Path(path)
    try:
        return parse_json(read_text(path))
    except FileNotFoundError:
        raise UserError(f"{path}: no {what} here. {remedy}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: the {what} cannot be read: not valid JSON ({error}). {remedy}") from None
    except OSError as error:
        raise UserError(f"{path}: the {what} cannot be read ({error.strerror}). {remedy}") from None


def read_bytes(path: Path) -> bytes:
    """The content of a file that may come from a user.

    Raises:
        OSError: as for `open_regular`.
    """
    with open_regular(path) as stream:
        return stream.read()


def read_text(path: Path) -> str:
    """The content of a text file that may come from a user: UTF-8, with or without a byte order mark.

    Raises:
        OSError: as for `open_regular`.
        UnicodeDecodeError: it is not UTF-8.
    """
    return io.TextIOWrapper(io.BytesIO(read_bytes(path)), encoding="utf-8-sig").read()


def is_file(path: Path) -> bool:
    """Whether a file exists; unlike `Path.is_file`, an invalid name (too long) is not an error."""
    return os.path.isfile(path)  # noqa: PTH113


def is_missing(path: Path) -> bool:
    """Whether nothing exists under a name; an inaccessible file, a device or a link loop exists."""
    try:
        os.stat(path)  # noqa: PTH116
    except OSError as error:
        return error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
    except ValueError:  # a NUL, which no name can hold
        return True
    return False


def clear_unfinished(folder: Path) -> None:
    """Remove unfinished files of killed processes from a folder that no other process writes to."""
    for left in folder.glob(f"{PREFIX}*"):
        _remove(left)


def open_regular(path: Path) -> io.BufferedReader:
    """Open a regular file for reading; reading a FIFO, a device or a socket might never end.

    Raises:
        OSError: it cannot be opened, or is not a regular file; `strerror` says what it is.
    """
    mode = os.stat(path).st_mode  # noqa: PTH116 (link loops are an OSError on every version of Python)
    if not stat.S_ISREG(mode):
        number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        kind = next((name for is_kind, name in SPECIAL_FILES if is_kind(mode)), "a special file")
        raise OSError(number, f"is {kind}, not a regular file", str(path))
    return open(path, "rb")


@functools.cache  # once for each folder that a process writes to
def clear_left_behind(folder: Path) -> None:
    """Remove what killed processes left half written in a folder, long enough ago that none can still be at it."""
    oldest = time.time() - LEFT_BEHIND_SECONDS
    with contextlib.suppress(OSError):  # somebody else removes it too, or it is not ours to remove
        for left in folder.glob(f"{PREFIX}*"):
            if max(path.lstat().st_mtime for path in (left, *left.rglob("*"))) < oldest:
                _remove(left)


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes.

    Raises:
        OSError: as `open_regular`.
    """
    with open_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
