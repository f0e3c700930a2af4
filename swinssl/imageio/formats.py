"""The image formats, one row each; endings, messages, reading and writing derive from the table.

A new format is a module with the functions of `FormatModule` and a row in `FORMATS`. Capital letters in endings
count as small ones.
"""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.core.text import counted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from swinssl.imageio.image_fault import HeaderRemark
    from swinssl.imageio.volume import Geometry


class FormatModule(Protocol):
    """What the module of a format has; faults of a file are raised as `ImageFault`."""

    def read(self, path: Path) -> tuple[NDArray, Geometry]:
        """The voxels (Z, Y, X) in native byte order, verified to the end of the file, and the grid."""

    def read_geometry(self, path: Path) -> Geometry:
        """The grid; reads no voxel. Refuses a file of another format."""

    def header_remarks(self, path: Path) -> tuple[HeaderRemark, ...]:
        """What is odd about the header."""

    def write(self, path: Path, array: NDArray, geometry: Geometry, *, target: Path) -> None:
        """Write an array to the temporary `path`, which then replaces `target`; the same array gives the same bytes."""


@dataclass(frozen=True)
class ImageFormat:
    """One format.

    Args:
        endings: of its files, in small letters, the preferred one first.
        module: its `FormatModule`, imported at the first use.
        companions: endings of files beside a header that hold its voxels.
        single_file: by ending of a format in two files, the ending under which one file holds everything.
    """

    endings: tuple[str, ...]
    module: str
    companions: tuple[str, ...] = ()
    single_file: Mapping[str, str] = field(default_factory=dict)

    def load(self) -> FormatModule:
        """The module that reads and writes it."""
        return cast(FormatModule, importlib.import_module(self.module))


FORMATS = {
    "NIfTI": ImageFormat((".nii.gz", ".nii"), "swinssl.imageio.nifti"),
    "NRRD": ImageFormat((".nrrd",), "swinssl.imageio.itk_image"),
    "MetaImage": ImageFormat(
        (".mha", ".mhd"),
        "swinssl.imageio.itk_image",
        companions=(".raw", ".zraw"),
        single_file={".mhd": ".mha"},
    ),
}

# Of volumes in formats that swinssl does not read; pictures and tables beside images are no volumes.
FOREIGN_ENDINGS = (
    *(".dcm", ".ima", ".img", ".hdr", ".nhdr", ".nrrd.gz", ".mgz", ".mgh", ".mnc", ".gipl", ".gipl.gz", ".vtk"),
    *(".tif", ".tiff", ".npy", ".b2nd", ".nii.zip", ".nii.bz2", ".nii.xz", ".img.gz", ".zip", ".tar.gz", ".7z"),
)


# A DICOM file begins with 128 bytes of anything and these four.
DICOM_OFFSET, DICOM_MAGIC = 128, b"DICM"
# Files of a folder, and of its folders, that are looked at to find DICOM; a study may have thousands.
LOOKED_AT = 64


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its content, whatever it is called."""
    try:
        with files.open_regular(path) as stream:
            return stream.read(DICOM_OFFSET + len(DICOM_MAGIC))[DICOM_OFFSET:] == DICOM_MAGIC
    except OSError:
        return False


def dicom_hint(path: Path) -> str | None:
    """What to do with a DICOM file, or with a folder that has some at any depth; None where there is none."""
    inside = [path] if not path.is_dir() else islice((one for one in path.rglob("*") if one.is_file()), LOOKED_AT)
    found = next((one for one in inside if is_dicom(one)), None)
    if found is None:
        return None
    folder = path if path.is_dir() else path.parent
    command = f"dcm2niix -z y -o NIFTI_FOLDER {shlex.quote(str(folder))}"
    return f"{found} is DICOM. Convert each series to NIfTI first, for example with dcm2niix ({command})."


def known_endings() -> tuple[str, ...]:
    """The endings of all formats, the preferred first."""
    return tuple(ending for row in FORMATS.values() for ending in row.endings)


def image_ending(name: str | Path) -> str | None:
    """The ending of an image file's name, in small letters; None where no format has it."""
    lower = Path(name).name.lower()
    matching = [ending for ending in known_endings() if lower.endswith(ending) and lower != ending]
    return max(matching, key=len, default=None)


def required_ending(path: Path) -> str:
    """The ending of an image file.

    Raises:
        UserError: no format has it.
    """
    ending = image_ending(path)
    if ending is None:
        if (hint := dicom_hint(path)) is not None:
            raise UserError(hint)
        raise UserError(
            f"{path}: not the name of an image that swinssl reads ({', '.join(known_endings())}). Convert the file to "
            "one of these."
        )
    return ending


def format_of(path: Path) -> ImageFormat:
    """The format of an image file, by its ending.

    Raises:
        UserError: no format has its ending.
    """
    ending = required_ending(path)
    return next(row for row in FORMATS.values() if ending in row.endings)


def single_file_ending(path: Path) -> str:
    """The ending for writing one file in the format of `path`: its own, or for a format in two files another.

    Raises:
        UserError: no format has its ending.
    """
    ending = required_ending(path)
    return format_of(path).single_file.get(ending, ending)


def is_companion(name: str | Path) -> bool:
    """Whether a file's name is one of those that hold the voxels of a header beside them."""
    return Path(name).name.lower().endswith(tuple(end for row in FORMATS.values() for end in row.companions))


def without_ending(name: str | Path) -> str:
    """The file name without its image ending; the whole name where it has none."""
    plain = Path(name).name
    return plain[: len(plain) - len(image_ending(plain) or "")]


def images_in(folder: Path) -> list[Path]:
    """The image files of a folder, sorted. Hidden files are left out: other programs, or a killed one, left them."""
    return sorted(path for path in folder.iterdir() if image_ending(path) and not path.name.startswith("."))


def _is_foreign(path: Path) -> bool:
    """Whether a file is an image by its ending, or is DICOM, which often has none."""
    return path.name.lower().endswith(FOREIGN_ENDINGS) or (not path.suffix.strip(".0123456789") and is_dicom(path))


def unread_images(folder: Path) -> list[str]:
    """A sentence about files of a folder that look like images but are not read; empty if there are none."""
    names = [p.name for p in sorted(folder.iterdir()) if p.is_file() and _is_foreign(p)]
    names = [name for name in names if not name.startswith(".") and image_ending(name) is None]
    if not names:
        return []
    left_out = f"{counted(len(names), 'file')} left out, such as {names[0]}"
    return [f"{folder}: {left_out}; swinssl reads {', '.join(known_endings())}. Convert the others to one of these."]
