"""What can be wrong with an image file, in a form that a command prints and the check sorts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from swinssl.core.errors import UserError

FaultKind = Literal[
    "missing",  # no such file
    "unreadable",  # a folder, or no permission
    "empty",  # zero bytes
    "not_an_image",  # another format, or a header that makes no sense
    "truncated",  # fewer voxels than the header says
    "corrupt",  # the checksum or the compressed stream is wrong
    "surplus",  # bytes after the voxels
    "too_large",  # more voxels than allowed, or than fit into memory
    "not_3d",  # a single slice, or several volumes
    "voxel_type",  # colour, complex, or a type that numpy has not
    "affine",  # an impossible position in space
    "grids",  # files of one case on different grids
    "values",  # voxels that cannot be computed with
]


class ImageFault(UserError):
    """A file that cannot be read, or must not be.

    Args:
        path: the file.
        kind: what sort of fault it is.
        found: what was found and what was expected; no full stop at its end.
        remedy: what the user does about it; a sentence.
    """

    def __init__(self, path: Path, kind: FaultKind, found: str, remedy: str) -> None:
        super().__init__(path, kind, found, remedy)
        self.path, self.kind, self.found, self.remedy = Path(path), kind, found, remedy

    def __str__(self) -> str:
        return f"{self.path}: {self.found}. {self.remedy}"


RemarkKind = Literal["unplaced", "forms", "sizes", "units", "patient"]
# What makes a result doubtful, so that not only the check says it.
CONTRADICTIONS: tuple[RemarkKind, ...] = ("unplaced", "forms", "sizes")


@dataclass(frozen=True)
class HeaderRemark:
    """Something odd about a header that can be read: what, in words without a full stop, and what to do about it."""

    kind: RemarkKind
    message: str
    remedy: str
