"""The endings of the image files that swinssl reads and writes; capitals count as small letters."""

from __future__ import annotations

from pathlib import Path

from swinssl.core.errors import UserError
from swinssl.core.text import counted

# Longest first: `.nii.gz` is not a `.gz`.
ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")


def image_ending(name: str | Path) -> str | None:
    """The ending of a file name, in small letters; None where it is no image that swinssl reads."""
    lower = Path(name).name.lower()
    return next((ending for ending in ENDINGS if lower.endswith(ending) and lower != ending), None)


# Of volumes in formats that swinssl does not read; pictures and tables beside images are no volumes.
FOREIGN_ENDINGS = (
    *(".dcm", ".ima", ".img", ".hdr", ".nhdr", ".nrrd.gz", ".mgz", ".mgh", ".mnc", ".gipl", ".gipl.gz", ".vtk"),
    *(".tif", ".tiff", ".npy", ".b2nd", ".nii.zip", ".nii.bz2", ".nii.xz", ".img.gz", ".zip", ".tar.gz", ".7z"),
)


def unread_images(folder: Path) -> list[str]:
    """What of a folder is an image by its name and not read, in words; empty where all is."""
    names = [p.name for p in sorted(folder.iterdir()) if p.name.lower().endswith(FOREIGN_ENDINGS) and p.is_file()]
    names = [name for name in names if not name.startswith(".")]
    if not names:
        return []
    files = f"{counted(len(names), 'file')} left out, such as {names[0]}"
    return [f"{folder}: {files}; swinssl reads {', '.join(ENDINGS)}. Convert the others to one of these."]


def images_in(folder: Path) -> list[Path]:
    """The image files of a folder, sorted; hidden ones are what other programs, or a killed one, left there."""
    return sorted(path for path in folder.iterdir() if image_ending(path) and not path.name.startswith("."))


def without_ending(name: str | Path) -> str:
    """The file name without its image ending; the whole name where it has none."""
    plain = Path(name).name
    return plain[: len(plain) - len(image_ending(plain) or "")]


def required_ending(path: Path) -> str:
    """The ending of an image file.

    Raises:
        UserError: it is none of `ENDINGS`.
    """
    ending = image_ending(path)
    if ending is None:
        raise UserError(
            f"{path}: does not end as an image that swinssl reads ({', '.join(ENDINGS)}). Convert it to one of these."
        )
    return ending
