"""Read an image: its channels, a label map, or only where it lies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from swinssl.imageio.endings import required_ending
from swinssl.imageio.image_fault import ImageFault
from swinssl.imageio.itk_image import read_itk, read_itk_geometry
from swinssl.imageio.nifti import read_nifti, read_nifti_header
from swinssl.imageio.volume import GRID_TOLERANCE_VOXELS, Geometry, Volume


def read_channels(paths: Sequence[Path]) -> Volume:
    """The channels of one image, a file each, stacked; voxels as they are stored, NaN included.

    Args:
        paths: in the order of the channels.

    Returns:
        A volume in the smallest type that holds every channel; on the grid of the first one.

    Raises:
        ImageFault: a file cannot be read (see `image_fault`), or the channels lie on different grids.
    """
    channels = [_read(Path(path)) for path in paths]
    if not channels:
        raise ValueError("no channel given")
    (first, geometry), path = channels[0], Path(paths[0])
    for other_path, (_, other) in zip(paths[1:], channels[1:], strict=True):
        check_same_grid(Path(other_path), other, path, geometry)
    if len(channels) == 1:
        return Volume(first[None], geometry)
    return Volume(np.stack([array for array, _ in channels]), geometry)


def read_label(path: Path) -> Volume:
    """A label map, as one channel of raw values.

    Raises:
        ImageFault: the file cannot be read.
    """
    return read_channels([path])


def read_geometry(path: Path) -> Geometry:
    """Where an image lies; reads the header only.

    Raises:
        ImageFault: the header cannot be read.
    """
    path = Path(path)
    if required_ending(path).startswith(".nii"):
        return read_nifti_header(path).geometry
    return read_itk_geometry(path)


def check_same_grid(path: Path, geometry: Geometry, reference_path: Path, reference: Geometry) -> None:
    """Refuse two files that must lie on one grid and do not.

    Raises:
        ImageFault: of the kind `grids`: the shapes differ, or the worst corners are over half a voxel apart.
    """
    remedy = f"Resample it onto the grid of {reference_path.name}."
    if geometry.shape != reference.shape:
        found = f"has {_listed(geometry)} voxels (z, y, x); {reference_path.name} has {_listed(reference)}"
        raise ImageFault(path, "grids", found, remedy)
    apart = reference.corner_displacement(geometry)
    if apart > GRID_TOLERANCE_VOXELS:
        found = (
            f"lies {apart:.2g} voxels from {reference_path.name} at the worst corner; up to {GRID_TOLERANCE_VOXELS} "
            "is taken for rounding"
        )
        raise ImageFault(path, "grids", found, remedy)


def _listed(geometry: Geometry) -> str:
    return " x ".join(map(str, geometry.shape))


def _read(path: Path) -> tuple[NDArray, Geometry]:
    return read_nifti(path) if required_ending(path).startswith(".nii") else read_itk(path)
