"""Write an array on a grid. What was read from a NIfTI file and is written as one lies where it lay, to the bit."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinssl.core import files
from swinssl.imageio.endings import required_ending
from swinssl.imageio.volume import Geometry, NiftiPlacement, reversed_axes

# Level 2 of isal writes label maps and CT at 0.1 and 0.3 of SimpleITK's time; its files are 4 % larger for CT.
ISAL_LEVEL, ZLIB_LEVEL = 2, 1
SCANNER_ANATOMY = 1
# Cosines between axes above this are shear, which a quaternion cannot hold; float32 rounds at 1e-7.
SHEAR = 1e-5
# NIfTI-1 counts voxels in int16.
MOST_NIFTI1_VOXELS = 32767


def write_volume(path: Path, array: NDArray, geometry: Geometry) -> None:
    """Write a label map or an image; the ending says the format.

    The file appears whole or not at all, and has nothing in its header but type, shape and place; a NIfTI file that the
    grid comes from gives all fields of the place. The same array gives the same bytes on every run.

    Args:
        path: ending with one of `endings.ENDINGS`.
        array: (Z, Y, X); booleans become uint8, 64-bit integers the smallest type that holds them, float16 float32.
        geometry: its grid, of the same shape.

    Raises:
        UserError: the ending is unknown.
    """
    path = Path(path)
    ending = required_ending(path)
    if array.shape != geometry.shape:
        raise ValueError(f"array {array.shape} does not fit the grid {geometry.shape}")
    array = _in_common_type(array)
    with files.atomic_path(path) as temporary:
        if ending.startswith(".nii"):
            _write_nifti(temporary, array, geometry, compress=ending == ".nii.gz")
        else:
            _write_itk(temporary, array, geometry, path)


def _in_common_type(array: NDArray) -> NDArray:
    """In a type that every program reads, in native byte order."""
    if array.dtype == bool:
        return array.astype(np.uint8)
    if array.dtype == np.float16:
        return array.astype(np.float32)
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8:
        lowest, highest = int(array.min()), int(array.max())
        fitting = (np.iinfo(name) for name in ("u1", "i1", "u2", "i2", "u4", "i4", array.dtype.str))
        return array.astype(next(info.dtype for info in fitting if info.min <= lowest and highest <= info.max))
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _write_nifti(path: Path, array: NDArray, geometry: Geometry, *, compress: bool) -> None:
    import nibabel

    placement = geometry.nifti
    nifti1 = max(array.shape) <= MOST_NIFTI1_VOXELS and (placement is None or placement.version == 1)
    header = (nibabel.Nifti1Header if nifti1 else nibabel.Nifti2Header)()
    header.set_data_dtype(array.dtype)
    header.set_data_shape(array.shape[::-1])
    if placement is None:
        _place(header, geometry)
    else:
        _place_as_read(header, placement)
    header.set_slope_inter(1, 0)
    header["vox_offset"] = header.sizeof_hdr + 4
    with open(path, "wb") as file:
        squeeze, end = gzip_writer() if compress else (lambda piece: piece, lambda: b"")
        file.write(squeeze(header.binaryblock + bytes(4)))
        for plane in array:
            file.write(squeeze(np.ascontiguousarray(plane).data))
        file.write(end())


def _place(header: Any, geometry: Geometry) -> None:
    affine = reversed_axes(geometry.affine)
    header.set_zooms(geometry.spacing[::-1])
    if geometry.shear <= SHEAR:
        header.set_qform(affine, SCANNER_ANATOMY)
    header.set_sform(affine, SCANNER_ANATOMY)
    header.set_xyzt_units("mm")


def _place_as_read(header: Any, placement: NiftiPlacement) -> None:
    """As the file was that the grid comes from, contradictions included: any viewer lays the one over the other."""
    header["pixdim"][:4] = placement.pixdim
    header["xyzt_units"] = placement.xyzt_units
    header["qform_code"], header["sform_code"] = placement.qform_code, placement.sform_code
    fields = ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
    for name, value in zip(fields, placement.qform, strict=True):
        header[name] = value
    for row, name in enumerate(("srow_x", "srow_y", "srow_z")):
        header[name] = placement.sform[4 * row : 4 * row + 4]


def gzip_writer() -> tuple[Callable[[Any], bytes], Callable[[], bytes]]:
    """gzip, from isal if it is installed; without name and time, so that equal content gives equal files."""
    gzip_window = 31
    try:
        from isal import isal_zlib
    except ImportError:
        deflater: Any = zlib.compressobj(ZLIB_LEVEL, zlib.DEFLATED, gzip_window)
    else:
        deflater = isal_zlib.compressobj(ISAL_LEVEL, zlib.DEFLATED, gzip_window)
    return deflater.compress, deflater.flush


def _write_itk(temporary: Path, array: NDArray, geometry: Geometry, path: Path) -> None:
    import SimpleITK as sitk

    from swinssl.imageio.itk_image import LPS_TO_RAS

    affine = LPS_TO_RAS @ reversed_axes(geometry.affine)
    spacing = np.array(geometry.spacing[::-1])
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    # In a folder of its own: an .mhd names the file of its voxels after itself.
    with tempfile.TemporaryDirectory(prefix=files.PREFIX, dir=path.parent, ignore_cleanup_errors=True) as folder:
        written = Path(folder) / path.name
        sitk.WriteImage(image, str(written), useCompression=True)
        for beside in Path(folder).iterdir():  # those voxels; they must be there before their header is
            if beside != written:
                beside.replace(path.parent / beside.name)
        written.replace(temporary)
