"""The bytes of an image file, plain or compressed, read to their end with the checksum verified."""

from __future__ import annotations

import contextlib
import hashlib
import io
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from swinssl.core import files
from swinssl.core.geometry import Shape
from swinssl.imageio.image_fault import ImageFault

Encoding = Literal["raw", "gzip", "zlib"]

GZIP_MAGIC = b"\x1f\x8b"
WINDOW_BITS = {"gzip": 31, "zlib": 15}
# Deflate grows a piece at most 1032 times, so no piece takes more than 135 MB, whatever the file is.
PIECE = 128 * 1024
# Some writers fill up their last block with zeros.
MOST_PADDING = 1024 * 1024

# Level 2 of isal writes label maps and CT at 0.1 and 0.3 of SimpleITK's time; its files are 4 % larger for CT.
ISAL_LEVEL, ZLIB_LEVEL = 2, 1

GET_ANEW = "Copy or export the file again."


@contextlib.contextmanager
def open_voxels(path: Path, *, encoding: Encoding | None = None, start: int = 0) -> Iterator[VoxelStream]:
    """The stream of a file's bytes from `start` on.

    Args:
        encoding: of those bytes; None looks whether they begin as gzip does.

    Raises:
        ImageFault: there is no such file, it is empty, or may not be read; later, while reading, what is wrong in it.
    """
    with open_image_file(path) as file:
        size = file.seek(0, 2)
        if size == 0:
            raise ImageFault(path, "empty", "has no content (0 bytes)", GET_ANEW)
        file.seek(start)
        if encoding is None:
            encoding = "gzip" if file.read(2) == GZIP_MAGIC else "raw"
            file.seek(start)
        yield VoxelStream(path, file, encoding, size - start)


def open_image_file(path: Path) -> io.BufferedReader:
    """An image file opened for reading; the one place that says why it cannot be.

    Raises:
        ImageFault: there is no such file, it may not be read, or is a folder, a FIFO, a device or a link loop.
    """
    try:
        return files.open_regular(path)
    except FileNotFoundError:
        raise ImageFault(path, "missing", "no such file", "Put the file there, or remove the case.") from None
    except PermissionError as error:
        raise ImageFault(path, "unreadable", f"cannot be read ({error.strerror})", "Change its permissions.") from None
    except OSError as error:
        found, remedy = f"cannot be read ({error.strerror})", "Put the image file itself there, or remove the case."
        raise ImageFault(path, "unreadable", found, remedy) from None


def image_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of the bytes of an image file.

    Raises:
        ImageFault: as `open_image_file`.
    """
    with open_image_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class VoxelStream:
    """Reads forward only; `finish` says whether the whole was sound.

    Args:
        stored: bytes in the file that belong to the stream.
    """

    def __init__(self, path: Path, file: BinaryIO, encoding: Encoding, stored: int) -> None:
        self.path, self.encoding, self.stored = path, encoding, stored
        self._file, self._left = file, max(stored, 0)
        self._inflater: Any = None if encoding == "raw" else _inflater_module().decompressobj(WINDOW_BITS[encoding])
        self._ready = memoryview(b"")

    def read(self, count: int) -> bytes:
        """The next `count` bytes.

        Raises:
            ImageFault: there are fewer, or the stream is damaged.
        """
        out = bytearray(count)
        self.read_into(memoryview(out))
        return bytes(out)

    def read_into(self, out: memoryview) -> None:
        """Fill `out` (bytes) with what comes next.

        Raises:
            ImageFault: there is less, or the stream is damaged.
        """
        filled = 0
        while filled < len(out):
            if self._inflater is None and not self._ready:
                # Straight into its place; a short read is found out at the next turn.
                got = self._file.readinto(out[filled : filled + self._left])  # type: ignore[attr-defined]
                self._left -= got
            else:
                piece = self._next_piece()
                got = min(len(piece), len(out) - filled)
                out[filled : filled + got] = piece[:got]
                self._ready = piece[got:]
            if got == 0:
                found = f"is truncated: {filled} of {len(out)} bytes are present"
                raise ImageFault(self.path, "truncated", found, GET_ANEW)
            filled += got

    def read_array(self, shape: Shape, dtype: np.dtype) -> NDArray:
        """An array of `dtype` (with its byte order) in `shape`, in native byte order.

        Raises:
            ImageFault: there are fewer voxels, or the stream is damaged.
        """
        voxels = np.empty(shape, dtype)
        self.read_into(voxels.reshape(-1).view(np.uint8).data)
        return voxels if dtype.isnative else voxels.byteswap(inplace=True).view(dtype.newbyteorder("="))

    def finish(self) -> None:
        """Read to the end: the checksum must be right, and nothing but zeros may follow.

        Raises:
            ImageFault: the stream is damaged, or goes on after the voxels.
        """
        surplus = 0
        while piece := self._next_piece():
            self._ready = memoryview(b"")
            surplus += len(piece)
            if surplus > MOST_PADDING or bytes(piece).strip(b"\0"):
                self._refuse_surplus("continues after the voxels that its header describes")

    def _next_piece(self) -> memoryview:
        """What is ready, else what the next bytes of the file give; empty at the end."""
        if self._ready:
            return self._ready
        if self._inflater is None:
            return memoryview(self._from_file())
        while True:
            stored = self._from_file()
            if not stored:
                if not self._inflater.eof:
                    raise ImageFault(self.path, "truncated", "its compressed stream is truncated", GET_ANEW)
                return memoryview(b"")
            if piece := self._inflate(stored):
                return memoryview(piece)

    def _inflate(self, stored: bytes) -> bytes:
        """What `stored` inflates to; gzip allows several streams in a row, and zeros after the last."""
        if self._inflater.eof:
            if not stored.strip(b"\0"):
                return b""
            if self.encoding != "gzip" or not stored.startswith(GZIP_MAGIC):
                self._refuse_surplus("has other bytes after the end of its compressed stream")
            self._inflater = _inflater_module().decompressobj(WINDOW_BITS[self.encoding])
        try:
            piece: bytes = self._inflater.decompress(stored)
        except (zlib.error, _inflater_module().error) as error:
            raise ImageFault(self.path, "corrupt", f"its compressed stream is damaged ({error})", GET_ANEW) from None
        if self._inflater.eof and self._inflater.unused_data:
            # Back to the file's end of the pipe, to be looked at with what follows it.
            unused = len(self._inflater.unused_data)
            self._file.seek(-unused, 1)
            self._left += unused
        return piece

    def _from_file(self) -> bytes:
        stored = self._file.read(min(PIECE, self._left))
        self._left -= len(stored)
        return stored

    def _refuse_surplus(self, found: str) -> None:
        remedy = "Header and voxels do not belong together: copy the file again, or correct its dimensions."
        raise ImageFault(self.path, "surplus", found, remedy)


def _inflater_module() -> ModuleType:
    """isal's zlib if it is installed (1.8 times as fast), else Python's own."""
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib
    return isal_zlib


def gzip_writer() -> tuple[Callable[[Any], bytes], Callable[[], bytes]]:
    """gzip, from isal if it is installed; without name and time, so that equal content gives equal files."""
    gzip_window = 31
    try:
        from isal import isal_zlib
    except ImportError:
        deflater: Any = zlib.compressobj(ZLIB_LEVEL, zlib.DEFLATED, gzip_window)
    else:
        deflater = isal_zlib.compressobj(ISAL_LEVEL, zlib.DEFLATED, gzip_window)
    return deflater.compress, deflater.flush
