"""Where the voxels of an NRRD or MetaImage file lie, and how they are encoded: what their text header says of it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from swinssl.imageio.image_fault import ImageFault
from swinssl.imageio.voxel_stream import GZIP_MAGIC, Encoding, open_voxels

# Text headers are short; a longer one is none.
MOST_HEADER_BYTES = 2**20


@dataclass(frozen=True)
class VoxelPlace:
    """The bytes of the voxels.

    Args:
        path: file that holds them.
        start: first byte.
        encoding: of the bytes from there to the end of the file.
        big_endian: byte order of the voxels.
        at_end: whether they end with the file, wherever they start (MetaImage's HeaderSize -1).
    """

    path: Path
    start: int
    encoding: Encoding
    big_endian: bool
    at_end: bool = False


def voxel_place(path: Path) -> VoxelPlace | None:
    """Where the voxels of a `.nrrd`, `.mha` or `.mhd` are; None for text voxels and other rarities.

    Raises:
        ImageFault: they are in several files, or in one outside the header's folder, which would let a header read
            any file of the machine.
    """
    with open(path, "rb") as file:
        return _in_nrrd(path, file) if file.read(4) == b"NRRD" else _in_metaimage(path, file)


def _in_nrrd(path: Path, file: BinaryIO) -> VoxelPlace | None:
    fields = {}
    for line in _lines(file):
        if not line:
            break
        # A colon alone is a field; with an equals sign it is a free key, which means nothing here.
        name, colon, value = line.partition(":")
        if colon and not value.startswith("="):
            fields[name.strip().lower().replace(" ", "")] = value.strip()
    data = path if (data_file := fields.get("datafile")) is None else _data_file(path, data_file)
    encodings: dict[str, Encoding] = {"raw": "raw", "gzip": "gzip", "gz": "gzip"}
    encoding = encodings.get(fields.get("encoding", "").lower())
    if encoding is None or any(fields.get(skip, "0") != "0" for skip in ("byteskip", "lineskip")):
        return None
    big_endian = fields.get("endian", "little").lower() == "big"
    return VoxelPlace(data, file.tell() if data == path else 0, encoding, big_endian)


def _in_metaimage(path: Path, file: BinaryIO) -> VoxelPlace | None:
    file.seek(0)
    fields: dict[str, str] = {}
    for line in _lines(file):
        name, equals, value = line.partition("=")
        if equals:
            fields[name.strip().lower()] = value.strip()
        if "elementdatafile" in fields:  # by definition the last one
            break
    where = fields.get("elementdatafile", "LIST")
    local = where.upper() == "LOCAL"
    data = path if local else _data_file(path, where)
    if fields.get("binarydata", "true").lower() != "true":
        return None
    order = fields.get("elementbyteordermsb", fields.get("binarydatabyteordermsb", "false"))
    skipped = int(size) if re.fullmatch(r"-?\d{1,9}", size := fields.get("headersize", "0")) else 0
    start = max(skipped, file.tell() if local else 0)
    encoding: Encoding = "raw"
    if fields.get("compresseddata", "false").lower() == "true":
        encoding = "gzip" if _begins_as_gzip(data, start) else "zlib"
    return VoxelPlace(data, start, encoding, order.lower() == "true", at_end=skipped == -1)


def _lines(file: BinaryIO) -> Iterator[str]:
    while file.tell() < MOST_HEADER_BYTES and (line := file.readline(MOST_HEADER_BYTES)):
        yield line.decode("latin-1").strip()


def _data_file(header: Path, name: str) -> Path:
    """The one file that a header names for its voxels; it can be opened.

    Raises:
        ImageFault: it is a list or a pattern of files, lies outside the header's folder, or cannot be opened.
    """
    if not name or name.split()[0].upper() == "LIST" or set(name) & {"%", "\0"}:
        raise ImageFault(header, "not_an_image", "has its voxels in several files", "Convert it to .nii.gz.")
    folder = os.path.abspath(header.parent)  # noqa: PTH100 (links stay what they are)
    data = Path(os.path.abspath(header.parent / name))  # noqa: PTH100
    if not data.is_relative_to(folder):
        found = f"names a file outside its folder for its voxels ({name})"
        raise ImageFault(header, "not_an_image", found, "Put that file beside it, or convert the image to .nii.gz.")
    data = header.parent / name
    with open_voxels(data, encoding="raw"):
        return data


def _begins_as_gzip(path: Path, start: int) -> bool:
    try:
        with open(path, "rb") as file:
            file.seek(start)
            return file.read(2) == GZIP_MAGIC
    except OSError:  # the reader will say so
        return False
