"""Read an image: its channels, a label map, or only where it lies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from swinssl.imageio.formats import format_of
from swinssl.imageio.image_fault import CONTRADICTIONS, HeaderRemark, ImageFault
from swinssl.imageio.same_grid import on_grid_of
from swinssl.imageio.volume import Geometry, Volume

# Differences of larger values overflow float32, in which intensities are normalised and resampled.
LARGEST_INTENSITY = 1e30
VALUES_REMEDY = "Replace them, or remove the case."


def read_channels(paths: Sequence[Path]) -> Volume:
    """The channels of one image, a file each, stacked; voxels as they are stored, NaN included.

    Args:
        paths: in the order of the channels.

    Returns:
        A volume in the smallest type that holds every channel; on the grid and in the storage order of the first one.

    Raises:
        ImageFault: a file cannot be read (see `image_fault`), or the channels lie on different grids.
    """
    if not paths:
        raise ValueError("no channel given")
    first_path, *other_paths = map(Path, paths)
    first = read_label(first_path)
    if not other_paths:
        return first
    arrays = [first.array[0]]
    for path in other_paths:
        channel = on_grid_of(read_label(path), path, reference=first.geometry, reference_path=first_path)
        arrays.append(channel.array[0])
    return Volume(np.stack(arrays), first.geometry)


def read_image(paths: Sequence[Path]) -> Volume:
    """The channels of one image whose voxels are numbers that can be computed with; arguments as of `read_channels`.

    Raises:
        ImageFault: as `read_channels`, or voxels are NaN, infinite or too large (`unusable_voxels`).
    """
    image = read_channels(paths)
    for path, channel in zip(paths, image.array, strict=True):
        if (found := unusable_voxels(channel)) is not None:
            raise ImageFault(Path(path), "values", found, VALUES_REMEDY)
    return image


def read_case(images: Sequence[Path], label: Path | None) -> tuple[Volume, Volume | None]:
    """The image of a case and its label map (raw values), both on the grid and in the storage order of the image.

    Raises:
        ImageFault: as `read_image`, or the label lies on another grid.
    """
    image = read_image(images)
    if label is None:
        return image, None
    reference_path = Path(images[0])
    return image, on_grid_of(read_label(label), label, reference=image.geometry, reference_path=reference_path)


def read_label(path: Path) -> Volume:
    """A label map, as one channel of raw values.

    Raises:
        ImageFault: the file cannot be read.
    """
    array, geometry = _read(Path(path))
    return Volume(array[None], geometry)


def header_remarks(path: Path) -> tuple[HeaderRemark, ...]:
    """What is odd about the header of an image.

    Raises:
        ImageFault: the header cannot be read.
    """
    path = Path(path)
    return format_of(path).load().header_remarks(path)


def header_contradictions(paths: Sequence[Path]) -> dict[str, str]:
    """By kind, the first file whose header contradicts itself or lacks a place, and how; of the files of a case."""
    found: dict[str, str] = {}
    for path in map(Path, paths):
        for remark in header_remarks(path):
            if remark.kind in CONTRADICTIONS:
                found.setdefault(remark.kind, f"{path.name}: {remark.message}. {remark.remedy}")
    return found


def unusable_voxels(array: NDArray) -> str | None:
    """Which voxels of an image cannot be computed with, as a predicate of the file; None where all can.

    Args:
        array: (Z, Y, X) as read. Intensities are normalised and resampled in float32.
    """
    if array.dtype.kind != "f":
        return None
    count = 0
    first: tuple[int, ...] = ()
    for z, plane in enumerate(array):
        unusable = ~(np.abs(plane) <= LARGEST_INTENSITY)  # NaN compares as false
        if number := int(np.count_nonzero(unusable)):
            count, first = count + number, first or (z, *map(int, np.unravel_index(np.argmax(unusable), plane.shape)))
    if not count:
        return None
    kinds = f"NaN, infinite or beyond {LARGEST_INTENSITY:g}"
    return f"has voxels that are {kinds}: {count}, the first at {first} (z, y, x)"


def read_geometry(path: Path) -> Geometry:
    """Where an image lies; reads the header only.

    Raises:
        ImageFault: the header cannot be read.
    """
    path = Path(path)
    return format_of(path).load().read_geometry(path)


def _read(path: Path) -> tuple[NDArray, Geometry]:
    return format_of(path).load().read(path)
