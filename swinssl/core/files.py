"""Files that are never half written: a temporary name in the same folder, flushed, then renamed."""

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

# Of what is being written; after a kill it may stay.
PREFIX = ".writing-"
# So long after the last change of it nobody can still be writing it.
LEFT_BEHIND_SECONDS = 24 * 3600.0
# Of Linux: paths are relative to the working folder; two names change places.
AT_FDCWD, RENAME_EXCHANGE = -100, 2
# Of a name, in characters of up to four bytes: file systems take 255 bytes.
LONGEST_NAME = 50
# Of JSON: the program's own files have six levels, and Python gives up at several hundred, wherever it is then.
DEEPEST = 50
SPECIAL_FILES = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)
# Of a disk, quota or file that takes no more.
FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# Written to find out whether a disk takes any more.
TRIAL_BYTES = 1 << 20


@contextlib.contextmanager
def atomic_path(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it when the block ends well and vanishes when it does not.

    The temporary name keeps the whole ending (`.nii.gz`), so that writers which look at it do the right thing, and
    nothing is there under it yet: some writers (blosc2) refuse to write over a file. An OSError of the temporary file,
    or of none in particular (a full disk), names `path`; a library's own exception is one if the disk was the reason.

    Args:
        durable: wait until the content is on the disk, so that a power cut cannot leave an empty file under the name.
            Off where whoever reads it checks its content and it can be made again: a disk takes milliseconds.
    """
    with _temporary(Path(path)) as temporary:
        yield temporary
        _share(temporary)
        if durable:
            _flush(temporary)
        temporary.replace(path)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that replaces it when the block ends well; else as `atomic_path`."""
    with _temporary(Path(path)) as temporary:
        temporary.mkdir()
        yield temporary
        for written in temporary.iterdir():
            _share(written)
            _flush(written)
        replace_folder(temporary, Path(path))


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[None]:
    """Make a folder with its parents; those that are new and empty go again if the block fails."""
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    clear_left_behind(path)
    try:
        yield
    except BaseException:
        for folder in made:
            with contextlib.suppress(OSError):  # somebody has put something there
                folder.rmdir()
        raise


def replace_folder(new: Path, path: Path) -> None:
    """Put the folder `new` at `path`; what was there before is gone afterwards.

    On Linux the two change places at once, so that a kill at any moment leaves one of them whole at `path`. Elsewhere
    there is a moment in which neither is.
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
    """Let two paths change places at once; False where the system or the file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):  # no Linux, or a C library without it
        return False
    return bool(renameat2(AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE) == 0)


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A new name beside `path`; what is there under it afterwards goes."""
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
    """Let the error be about `path`, unless it is about another file."""
    if error.filename is None or PREFIX in str(error.filename):
        error.filename = str(path)


def _share(path: Path) -> None:
    """Give a file the permissions that the umask asks for: what safetensors writes, only its owner may read."""
    if os.name == "nt" or not path.is_file():
        return
    mode = path.stat().st_mode
    if (shared := mode | (0o666 & ~_umask())) != mode:
        path.chmod(shared)


@functools.cache
def _umask() -> int:
    """The process's umask. The system tells it only to whoever sets it, so it is asked once."""
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
    """Why the disk takes no more, where a library failed with an exception of its own; None if it does.

    Few say it: safetensors names the number of the system's error, and removes what it wrote; of others the files that
    they could not end are tried.
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
    """Write `content` to `path` atomically, unless it is there already; `durable` as of `atomic_path`."""
    with contextlib.suppress(OSError):
        if path.stat().st_size == len(content) and path.read_bytes() == content:
            return
    with atomic_path(path, durable=durable) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Write `text` to `path` atomically, as UTF-8 with bare newlines on every system; `durable` as of `atomic_path`."""
    write_bytes(path, text.encode("utf-8"), durable=durable)


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Write `value` as readable, strict JSON (NaN is refused: write null and say what it means)."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n", durable=durable)


def parse_json(text: str) -> Any:
    """The content of strict JSON: no NaN, no number beyond all bounds, no half of a character; it can be written again.

    Raises:
        ValueError: it is not, or it is nested more than `DEEPEST` levels deep.
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
    """What an object or list of JSON holds, of what can hold more."""
    held = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [item for item in held if isinstance(item, dict | list)]


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
        return parse_json(read_text(path))
    except FileNotFoundError:
        raise UserError(f"{path}: no {what} here. {remedy}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: the {what} cannot be read: not valid JSON ({error}). {remedy}") from None
    except OSError as error:
        raise UserError(f"{path}: the {what} cannot be read ({error.strerror}). {remedy}") from None


def read_bytes(path: Path) -> bytes:
    """The content of a file that a user may have given.

    Raises:
        OSError: as `open_regular`.
    """
    with open_regular(path) as stream:
        return stream.read()


def read_text(path: Path) -> str:
    """The content of a text file that a user may have given: UTF-8, with or without a byte order mark.

    Raises:
        OSError: as `open_regular`.
        UnicodeDecodeError: it is not UTF-8.
    """
    return io.TextIOWrapper(io.BytesIO(read_bytes(path)), encoding="utf-8-sig").read()


def is_file(path: Path) -> bool:
    """Whether there is a file; a name that no file can have (too long) is no error, unlike for `Path.is_file`."""
    return os.path.isfile(path)  # noqa: PTH113


def is_missing(path: Path) -> bool:
    """Whether there is nothing under a name; a file that may not be opened, a device or a link loop is something."""
    try:
        os.stat(path)  # noqa: PTH116
    except OSError as error:
        return error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
    except ValueError:  # a NUL, which no name can hold
        return True
    return False


def clear_unfinished(folder: Path) -> None:
    """Remove what a killed process left half written in a folder in which nobody else writes."""
    for left in folder.glob(f"{PREFIX}*"):
        _remove(left)


def open_regular(path: Path) -> io.BufferedReader:
    """A file opened for reading, if it is one: reading a FIFO, a device or a socket may never end.

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
