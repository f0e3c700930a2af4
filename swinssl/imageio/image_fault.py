"""Faults of image files, as errors that commands print and the check classifies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from swinssl.core.errors import UserError

FaultKind = Literal[
    "missing",  # no such file
    "unreadable",  # a folder, or no permission
    "empty",  # zero bytes
    "not_an_image",  # another format, or an invalid header
    "truncated",  # fewer voxels than the header says
    "corrupt",  # the checksum or the compressed stream is wrong
    "surplus",  # bytes after the voxels
    "too_large",  # more voxels than allowed, or than fit in memory
    "not_3d",  # a single slice, or several volumes
    "voxel_type",  # colour, complex, or a type that numpy lacks
    "affine",  # an impossible position in space
    "grids",  # files of one case on different grids
    "values",  # voxels that are not finite numbers
]


class ImageFault(UserError):
    """A file that cannot or must not be read.

    Args:
        path: the file.
        kind: kind of the fault.
        found: what was found and what was expected, without a full stop.
        remedy: what the user does about it, as a sentence.
    """

    def __init__(self, path: Path, kind: FaultKind, found: str, remedy: str) -> None:
        super().__init__(path, kind, found, remedy)
        self.path, self.kind, self.found, self.remedy = Path(path), kind, found, remedy

    def __str__(self) -> str:
        return f"{self.path}: {self.found}. {self.remedy}"


RemarkKind = Literal["unplaced", "forms", "sizes", "units", "patient"]
# Contradictions make a result doubtful, so that other commands report them too.
CONTRADICTIONS: tuple[RemarkKind, ...] = ("unplaced", "forms", "sizes")


@dataclass(frozen=True)
class HeaderRemark:
    """An oddity of a readable header: the message, without a full stop, and the remedy."""

    kind: RemarkKind
    message: str
    remedy: str
