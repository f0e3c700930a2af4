"""NRRD and MetaImage: SimpleITK understands the header, the voxels are read and verified here.

SimpleITK takes a damaged compressed stream for an image and says nothing, so voxels are not left to it, except in
encodings that nobody uses for images (text).
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinssl.core import files
from swinssl.imageio.grid_rules import AFFINE_REMEDY, check_size, checked_affine, spatial_shape
from swinssl.imageio.image_fault import HeaderRemark, ImageFault
from swinssl.imageio.volume import Geometry, reversed_axes
from swinssl.imageio.voxel_place import VoxelPlace, voxel_place
from swinssl.imageio.voxel_stream import GET_ANEW, open_voxels

SIGNATURE_WITHIN = 4096
# ITK's world (left, posterior, superior) to ours and NIfTI's (right, anterior, superior).
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class _Header:
    geometry: Geometry
    dtype: np.dtype
    place: VoxelPlace | None
    reader: Any


def read_geometry(path: Path) -> Geometry:
    """The grid of a `.nrrd`, `.mha` or `.mhd`; no voxel is read.

    Raises:
        ImageFault: the file is missing, empty or of another format, not 3D, too large, or has an impossible affine.
    """
    return _read_header(path).geometry


def read(path: Path) -> tuple[NDArray, Geometry]:
    """The voxels of a `.nrrd`, `.mha` or `.mhd`, read to the end of the file and verified; their type stays.

    Returns:
        (Z, Y, X) in native byte order, and the grid.

    Raises:
        ImageFault: as `read_geometry`, or the voxels are cut off, damaged or followed by others.
    """
    header = _read_header(path)
    shape, place = header.geometry.shape, header.place
    if place is None:
        with _itk_errors(path):
            import SimpleITK as sitk

            return sitk.GetArrayFromImage(header.reader.Execute()).reshape(shape), header.geometry
    dtype = header.dtype.newbyteorder(">" if place.big_endian else "<")
    if place.at_end:
        voxel_bytes = int(np.prod(shape)) * dtype.itemsize
        place = replace(place, start=max(0, place.path.stat().st_size - voxel_bytes))
    with open_voxels(place.path, encoding=place.encoding, start=place.start) as stream:
        voxels = stream.read_array(shape, dtype)
        stream.finish()
    return voxels, header.geometry


def header_remarks(path: Path) -> tuple[HeaderRemark, ...]:
    """Nothing: these headers place an image once."""
    return ()


def write(path: Path, array: NDArray, geometry: Geometry, *, target: Path) -> None:
    """Write a `.nrrd`, `.mha` or `.mhd`, compressed; the voxels of an `.mhd` go to a `.zraw` beside it."""
    import SimpleITK as sitk

    image = itk_image(array, geometry)
    # In a folder of its own: an .mhd names the file of its voxels after itself.
    with tempfile.TemporaryDirectory(prefix=files.PREFIX, dir=target.parent, ignore_cleanup_errors=True) as folder:
        written = Path(folder) / target.name
        sitk.WriteImage(image, str(written), useCompression=True)
        for beside in Path(folder).iterdir():  # those voxels; they must be there before their header is
            if beside != written:
                beside.replace(target.parent / beside.name)
        written.replace(path)


def itk_image(array: NDArray, geometry: Geometry) -> Any:
    """A (Z, Y, X) array on its grid, as SimpleITK's image."""
    import SimpleITK as sitk

    affine = LPS_TO_RAS @ reversed_axes(geometry.affine)
    spacing = np.array(geometry.spacing[::-1])
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    return image


def _read_header(path: Path) -> _Header:
    place = _place(path)
    with _itk_errors(path):
        import SimpleITK as sitk

        reader = sitk.ImageFileReader()
        reader.SetImageIO("NrrdImageIO" if path.name.lower().endswith(".nrrd") else "MetaImageIO")
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
    dtype, geometry = described(path, reader, components=reader.GetNumberOfComponents())
    check_size(path, geometry.shape, dtype.itemsize, stored_bytes=_compressed_bytes(place))
    return _Header(geometry, dtype, place, reader)


def described(path: Path, image: Any, *, components: int) -> tuple[np.dtype, Geometry]:
    """Voxel type and grid of a SimpleITK image, or of a reader that has read a header.

    Args:
        path: the file that messages name.
        components: numbers in a voxel.

    Raises:
        ImageFault: voxels are no plain numbers, the image is not 3D, or its affine is impossible.
    """
    dtype = _voxel_types().get(image.GetPixelID())
    if dtype is None:
        found = "has voxels that are not plain numbers (colour or complex)"
        raise ImageFault(path, "voxel_type", found, "Convert it to whole numbers or float32.")
    dimensions = image.GetDimension()
    shape = spatial_shape(path, (*image.GetSize(), *((components,) if components > 1 else ())))
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(dimensions, dimensions)[:3, :3] * image.GetSpacing()[:3]
    affine[:3, 3] = image.GetOrigin()[:3]
    return dtype, Geometry(shape, checked_affine(path, reversed_axes(LPS_TO_RAS @ affine)))


def _place(path: Path) -> VoxelPlace | None:
    """Where the voxels are; finds what is missing, empty or of another format before SimpleITK prints about it."""
    with open_voxels(path, encoding="raw") as stream:
        start = stream.read(min(stream.stored, SIGNATURE_WITHIN))
    nrrd = path.name.lower().endswith(".nrrd")
    if not (start.startswith(b"NRRD") if nrrd else b"NDims" in start):
        raise ImageFault(path, "not_an_image", f"is not a {path.suffix} file", GET_ANEW)
    return voxel_place(path)


def _compressed_bytes(place: VoxelPlace | None) -> int | None:
    if place is None or place.encoding == "raw":
        return None
    return place.path.stat().st_size - place.start


@contextlib.contextmanager
def _itk_errors(path: Path) -> Iterator[None]:
    """SimpleITK's complaints in one line."""
    try:
        yield
    except RuntimeError as error:
        reason = [line.strip() for line in str(error).splitlines() if line.strip()][-1]
        if "direction" in reason.lower():
            raise ImageFault(path, "affine", "its axes are not at right angles", AFFINE_REMEDY) from None
        found = f"is not a readable {path.suffix} file ({reason})"
        raise ImageFault(path, "not_an_image", found, GET_ANEW) from None


@cache
def _voxel_types() -> dict[int, np.dtype]:
    """numpy's type of each of SimpleITK's; a vector of one component is a number."""
    import SimpleITK as sitk

    names = {f"{sign}Int{bits}": f"{sign}Int{bits}".lower() for sign in ("", "U") for bits in (8, 16, 32, 64)}
    names |= {"Float32": "float32", "Float64": "float64"}
    return {
        getattr(sitk, f"sitk{kind}{name}"): np.dtype(numpy_name)
        for name, numpy_name in names.items()
        for kind in ("", "Vector")
    }
