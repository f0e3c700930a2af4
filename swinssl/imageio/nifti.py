"""NIfTI-1 and NIfTI-2 in a single file: nibabel understands the header, the voxels are read and verified here."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from swinssl.imageio.grid_rules import AFFINE_REMEDY, check_size, checked_affine, spatial_shape
from swinssl.imageio.image_fault import ImageFault
from swinssl.imageio.volume import Geometry, reversed_axes
from swinssl.imageio.voxel_stream import GET_ANEW, VoxelStream, open_voxels

HEADERS = {348: (nibabel.Nifti1Header, b"n+1\0", 344), 540: (nibabel.Nifti2Header, b"n+2\0", 4)}
# xyzt_units' spatial part: metre, micron; 0 (unknown) is taken for mm, as everybody does.
MM_PER_UNIT = {1: 1000.0, 3: 0.001}
DICOM_EXTENSION = 2
# Header extensions are skipped, but not without end.
MOST_EXTENSION_BYTES = 2**28


@dataclass(frozen=True, eq=False)
class NiftiHeader:
    """What a header says.

    Args:
        geometry: shape and affine in mm, (z, y, x).
        dtype: of the stored voxels, with their byte order.
        slope, inter: value = stored * slope + inter; None where the stored values are the values.
        placed: whether sform or qform is set; else the place in the patient is a guess.
        forms_apart: how far sform and qform lie apart at the worst corner, in voxels; 0 where only one is set.
        mm_per_unit: 1 where lengths are in mm (or of unknown unit).
        names_patient: whether it has a field that may hold identifying text (db_name, a DICOM extension).
    """

    geometry: Geometry
    dtype: np.dtype
    slope: float | None
    inter: float | None
    placed: bool
    forms_apart: float
    mm_per_unit: float
    names_patient: bool


def read_nifti_header(path: Path) -> NiftiHeader:
    """The header of a `.nii` or `.nii.gz`; no voxel is read.

    Raises:
        ImageFault: the file is missing or empty, no NIfTI, not 3D, too large, or has an impossible affine.
    """
    with open_voxels(path) as stream:
        return _read_header(stream)


def read_nifti(path: Path) -> tuple[NDArray, Geometry]:
    """The voxels of a `.nii` or `.nii.gz`, read to the end of the file and verified.

    Integers stay what they are where no scaling applies; scaled ones become float32, or float64 where they have more
    than 16 bits. NaN stays NaN.

    Returns:
        (Z, Y, X) in native byte order, and the grid.

    Raises:
        ImageFault: as `read_nifti_header`, or the voxels are cut off, damaged or followed by others.
    """
    with open_voxels(path) as stream:
        header = _read_header(stream)
        voxels = stream.read_array(header.geometry.shape, header.dtype)
        stream.finish()
    return _scaled(voxels, header), header.geometry


def _read_header(stream: VoxelStream) -> NiftiHeader:
    path, raw = stream.path, _parsed(stream)
    dims = raw["dim"].tolist()
    shape = spatial_shape(path, dims[1 : dims[0] + 1] if 1 <= dims[0] <= 7 else [])
    dtype = _voxel_type(path, raw)
    check_size(path, shape, dtype.itemsize, stored_bytes=None if stream.encoding == "raw" else stream.stored)
    slope, inter = _scaling(path, raw)
    mm_per_unit = MM_PER_UNIT.get(int(raw["xyzt_units"]) & 7, 1.0)
    affine, other = _affines(path, raw, mm_per_unit)
    geometry = Geometry(shape, affine)
    return NiftiHeader(
        geometry=geometry,
        dtype=dtype,
        slope=slope,
        inter=inter,
        placed=int(raw["sform_code"]) > 0 or int(raw["qform_code"]) > 0,
        forms_apart=0.0 if other is None else geometry.corner_displacement(Geometry(shape, other)),
        mm_per_unit=mm_per_unit,
        names_patient=_names_patient(raw, _skip_to_voxels(stream, raw)),
    )


def _parsed(stream: VoxelStream) -> Any:
    """nibabel's header of the version that the file says."""
    not_nifti = ImageFault(stream.path, "not_an_image", "is not a NIfTI file", GET_ANEW)
    try:
        start = stream.read(4)
    except ImageFault as fault:
        raise not_nifti if fault.kind == "truncated" and stream.encoding == "raw" else fault from None
    endianness = next((order for order in "<>" if struct.unpack(f"{order}i", start)[0] in HEADERS), None)
    if endianness is None:
        raise not_nifti
    size = struct.unpack(f"{endianness}i", start)[0]
    kind, magic, magic_at = HEADERS[size]
    content = start + stream.read(size - len(start))
    if content[magic_at : magic_at + len(magic)] != magic:
        found = "is not a NIfTI file of one piece (it may be Analyze, or have its voxels in an .img file)"
        raise ImageFault(stream.path, "not_an_image", found, "Convert it to .nii.gz.")
    return kind(content, endianness=endianness, check=False)


def _voxel_type(path: Path, raw: Any) -> np.dtype:
    try:
        dtype: np.dtype = raw.get_data_dtype()
    except (HeaderDataError, KeyError):
        dtype = np.dtype(np.void)
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        found = f"has voxels of the NIfTI type {int(raw['datatype'])} (colour, complex, binary or quadruple)"
        raise ImageFault(path, "voxel_type", found, "Convert it to whole numbers or float32.")
    return dtype


def _scaling(path: Path, raw: Any) -> tuple[float | None, float | None]:
    """NIfTI's: a slope of 0, or one that is no number, says that there is no scaling."""
    try:
        slope, inter = raw.get_slope_inter()
    except HeaderDataError:
        found = f"the header scales by {raw['scl_slope']} and adds {raw['scl_inter']}"
        raise ImageFault(path, "not_an_image", found, "Correct scl_slope and scl_inter.") from None
    return (None, None) if slope is None or (slope, inter) == (1, 0) else (slope, inter or 0.0)


def _affines(path: Path, raw: Any, mm_per_unit: float) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """The affine that counts (sform, else qform, else nibabel's guess), and the qform where both are set; (z, y, x)."""
    raw["pixdim"][1:4] = np.abs(raw["pixdim"][1:4])  # must not be negative, but some writers do it
    if raw["pixdim"][0] not in (-1, 1):
        raw["pixdim"][0] = 1
    sform, _ = raw.get_sform(coded=True)
    if sform is None:
        try:
            first = raw.get_best_affine()
        except (HeaderDataError, ValueError) as error:
            raise ImageFault(path, "affine", f"the header's quaternion is none ({error})", AFFINE_REMEDY) from None
        return checked_affine(path, _in_mm(first, mm_per_unit)), None
    first = checked_affine(path, _in_mm(sform, mm_per_unit))
    try:
        qform, _ = raw.get_qform(coded=True)
        return first, None if qform is None else checked_affine(path, _in_mm(qform, mm_per_unit))
    except (HeaderDataError, ValueError, ImageFault):  # it is not used
        return first, None


def _in_mm(affine: NDArray[np.float64], mm_per_unit: float) -> NDArray[np.float64]:
    scale = np.array([mm_per_unit] * 3 + [1.0])[:, None]
    return reversed_axes(np.asarray(affine, np.float64) * scale)


def _skip_to_voxels(stream: VoxelStream, raw: Any) -> bytes:
    """What lies between header and voxels."""
    size = int(raw["sizeof_hdr"])
    offset = float(raw["vox_offset"]) or size + 4
    if not size + 4 <= offset <= size + MOST_EXTENSION_BYTES:
        raise ImageFault(stream.path, "not_an_image", f"the header puts the voxels at byte {offset:.0f}", GET_ANEW)
    return stream.read(int(offset) - size)


def _names_patient(raw: Any, between: bytes) -> bool:
    if "db_name" in raw.keys() and bytes(raw["db_name"].tobytes()).strip(b"\0 "):  # noqa: SIM118 (not a mapping)
        return True
    at = 4
    while between[:1] not in (b"", b"\0") and at + 8 <= len(between):
        length, code = struct.unpack_from(raw.endianness + "2i", between, at)
        if code == DICOM_EXTENSION:
            return True
        at += max(length, 16)
    return False


def _scaled(voxels: NDArray, header: NiftiHeader) -> NDArray:
    """The values of stored voxels, computed in float64 and rounded once."""
    if header.slope is None or header.inter is None:
        return voxels
    small = voxels.dtype.itemsize <= 2 or voxels.dtype == np.float32
    values = np.empty(voxels.shape, np.float32 if small else np.float64)
    for plane, stored in zip(values, voxels, strict=True):
        plane[...] = stored.astype(np.float64) * header.slope + header.inter
    return values
