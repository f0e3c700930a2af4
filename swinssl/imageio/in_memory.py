"""Images in memory as volumes: numpy arrays, nibabel's images, SimpleITK's images.

Voxels, place and faults are those of a file that the image would be saved to, so that it does not matter whether a
program hands over the image or the file.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from swinssl.core.errors import UserError
from swinssl.core.text import dimensions
from swinssl.imageio.grid_rules import checked_affine, spatial_shape
from swinssl.imageio.image_fault import CONTRADICTIONS, ImageFault
from swinssl.imageio.volume import Geometry, Volume, reversed_axes

# Spacings that differ by a larger share are two spacings.
SAME_SPACING = 1e-3
ASSUMED_ORIENTATION = (
    "the array has a spacing and no affine, so z, y and x are taken to point to superior, anterior and the patient's "
    "right. Pass affine=numpy.diag([z, y, x, 1]) with the spacing in mm if that is right, or the image's own affine"
)


def is_image(image: object) -> bool:
    """Whether `image` is of nibabel or SimpleITK; neither is imported for it."""
    return _is_nibabel(image) or _is_itk(image)


def volume_of_image(image: Any, *, name: str) -> tuple[Volume, tuple[str, ...]]:
    """The volume of an image of nibabel or SimpleITK, and what is odd about its place.

    Args:
        name: what messages call it.

    Raises:
        ImageFault: it is not 3D, has voxels that are no plain numbers, or an impossible affine.
    """
    return _volume_of_nibabel(image, Path(name)) if _is_nibabel(image) else (_volume_of_itk(image, Path(name)), ())


def volume_of_array(
    array: ArrayLike, *, spacing: Sequence[float] | None, affine: ArrayLike | None, name: str
) -> tuple[Volume, tuple[str, ...]]:
    """The volume of an array, and what is assumed of its place.

    Args:
        array: (Z, Y, X) or (C, Z, Y, X) numbers.
        spacing: (z, y, x) in mm.
        affine: (4, 4), from the index (z, y, x, 1) of a voxel to its place (z, y, x, 1) in mm; z grows to superior, y
            to anterior, x to the patient's right.
        name: what messages call it.

    Raises:
        UserError: neither spacing nor affine is given, or they do not fit each other or the array.
    """
    voxels = _numbers(array, name)
    if voxels.ndim not in (3, 4):
        raise UserError(
            f"{name}: has the shape {tuple(voxels.shape)}. Give an array (Z, Y, X), or (C, Z, Y, X) with C channels."
        )
    channels = voxels if voxels.ndim == 4 else voxels[None]
    shape = spatial_shape(Path(name), channels.shape[:0:-1])
    if spacing is None and affine is None:
        raise UserError(
            f"{name}: no spacing. Pass spacing=(z, y, x) in mm, or affine=, a (4, 4) matrix from voxel index (z, y, x) "
            "to mm."
        )
    if affine is None:
        matrix = np.diag([*_three_sizes(spacing, name), 1.0])
        return Volume(channels, Geometry(shape, checked_affine(Path(name), matrix))), (ASSUMED_ORIENTATION,)
    matrix = np.array(affine, np.float64)
    if matrix.shape != (4, 4) or not np.array_equal(matrix[3], (0, 0, 0, 1)):
        raise UserError(f"{name}: affine is no (4, 4) matrix with the last row 0 0 0 1. Pass one, or spacing= instead.")
    geometry = Geometry(shape, checked_affine(Path(name), matrix))
    if spacing is not None and not np.allclose(_three_sizes(spacing, name), geometry.spacing, rtol=SAME_SPACING):
        said, placed = (dimensions(sizes, ".4g") for sizes in (spacing, geometry.spacing))
        raise UserError(
            f"{name}: spacing is {said} mm, and affine has {placed} mm (z, y, x). Pass the right one alone."
        )
    return Volume(channels, geometry), ()


def as_nibabel(array: NDArray, geometry: Geometry) -> Any:
    """A (Z, Y, X) array as nibabel's NIfTI image, (X, Y, Z)."""
    import nibabel

    return nibabel.Nifti1Image(np.asarray(array).T, reversed_axes(geometry.affine), dtype=array.dtype)


def as_itk(array: NDArray, geometry: Geometry) -> Any:
    """A (Z, Y, X) array as SimpleITK's image."""
    from swinssl.imageio.itk_image import itk_image

    return itk_image(array, geometry)


def _is_nibabel(image: object) -> bool:
    module = sys.modules.get("nibabel.spatialimages")
    return module is not None and isinstance(image, module.SpatialImage)


def _is_itk(image: object) -> bool:
    module = sys.modules.get("SimpleITK")
    return module is not None and isinstance(image, module.Image)


def _volume_of_nibabel(image: Any, name: Path) -> tuple[Volume, tuple[str, ...]]:
    import nibabel

    shape = spatial_shape(name, image.shape)
    remarks: tuple[str, ...] = ()
    if isinstance(image, nibabel.Nifti1Pair):  # NIfTI-2 derives from it
        from swinssl.imageio.nifti import header_of

        saved = type(image)(image.dataobj, image.affine, image.header)
        saved.update_header()  # as on saving
        header = header_of(name, saved.header)
        geometry = header.geometry
        remarks = tuple(f"{name}: {r.message}. {r.remedy}" for r in header.remarks if r.kind in CONTRADICTIONS)
    else:
        geometry = Geometry(shape, checked_affine(name, reversed_axes(np.asarray(image.affine, np.float64))))
    voxels = _numbers(_stored(image.dataobj), str(name))
    return Volume(voxels.reshape(shape[::-1], order="F").T[None], geometry), remarks


def _stored(data: Any) -> NDArray:
    """The voxels of a nibabel image; of a file's as this package reads them, rounded once."""
    from swinssl.imageio.nifti import scaled

    if not hasattr(data, "get_unscaled"):
        return np.asanyarray(data)
    voxels = np.asarray(data.get_unscaled())
    slope, inter = data.slope, data.inter
    if np.ndim(slope):  # of each volume, in formats of other programs
        return np.asanyarray(data)
    return scaled(voxels.astype(voxels.dtype.newbyteorder("="), copy=False), float(slope), float(inter))


def _volume_of_itk(image: Any, name: Path) -> Volume:
    import SimpleITK as sitk

    from swinssl.imageio.itk_image import described

    _, geometry = described(name, image, components=image.GetNumberOfComponentsPerPixel())
    return Volume(sitk.GetArrayFromImage(image).reshape(geometry.shape)[None], geometry)


def _numbers(array: ArrayLike, name: str) -> NDArray:
    """The array in native byte order, booleans as uint8."""
    try:
        voxels = np.asanyarray(array)
    except (TypeError, ValueError):
        voxels = np.asanyarray(None)
    if voxels.dtype == bool:
        return voxels.view(np.uint8)
    if voxels.dtype.kind not in "iuf" or voxels.dtype.itemsize > 8:
        what = f"has voxels of the type {voxels.dtype}" if voxels.ndim else f"is a {type(array).__name__}"
        remedy = "Give an array of whole numbers or floats, an image of nibabel or SimpleITK, or a path."
        raise ImageFault(Path(name), "voxel_type", what, remedy)
    return voxels.astype(voxels.dtype.newbyteorder("="), copy=False)


def _three_sizes(spacing: Sequence[float] | None, name: str) -> tuple[float, float, float]:
    try:
        z, y, x = (float(mm) for mm in (() if spacing is None else spacing))
    except (TypeError, ValueError):
        z = y = x = 0.0
    if not all(0 < mm < float("inf") for mm in (z, y, x)):
        raise UserError(f"{name}: spacing is {spacing!r}. Pass three sizes (z, y, x) in mm, such as (2.5, 1.0, 1.0).")
    return z, y, x
