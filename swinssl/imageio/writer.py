"""Write an array on a grid, in the format given by the file name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from swinssl.core import files
from swinssl.imageio.formats import format_of
from swinssl.imageio.volume import Geometry


def write_volume(path: Path, array: NDArray, geometry: Geometry) -> None:
    """Write a label map or an image; the ending determines the format.

    The file is written atomically. Its header contains only type, shape and placement; if the grid comes from a NIfTI
    file, all its placement fields are kept. The same array gives the same bytes on every run.

    Args:
        path: with one of the endings `formats.known_endings`.
        array: (Z, Y, X); booleans become uint8, 64-bit integers the smallest type that holds them, float16 float32.
        geometry: its grid, of the same shape.

    Raises:
        UserError: the ending is unknown.
    """
    path = Path(path)
    module = format_of(path).load()
    if array.shape != geometry.shape:
        raise ValueError(f"array {array.shape} does not fit the grid {geometry.shape}")
    array = _in_common_type(array)
    with files.atomic_path(path) as temporary:
        module.write(temporary, array, geometry, target=path)


def _in_common_type(array: NDArray) -> NDArray:
    """The array in a type that every program reads, in native byte order."""
    if array.dtype == bool:
        return array.astype(np.uint8)
    if array.dtype == np.float16:
        return array.astype(np.float32)
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8:
        lowest, highest = int(array.min()), int(array.max())
        fitting = (np.iinfo(name) for name in ("u1", "i1", "u2", "i2", "u4", "i4", array.dtype.str))
        return array.astype(next(info.dtype for info in fitting if info.min <= lowest and highest <= info.max))
    return array.astype(array.dtype.newbyteorder("="), copy=False)
