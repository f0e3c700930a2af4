"""NIfTI-1 and NIfTI-2 in a single file: nibabel understands the header, the voxels are read and verified here."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import ArrayLike, NDArray

from swinssl.core.geometry import Shape, Spacing
from swinssl.core.text import dimensions
from swinssl.imageio.grid_rules import AFFINE_REMEDY, check_size, checked_affine, spatial_shape
from swinssl.imageio.image_fault import HeaderRemark, ImageFault
from swinssl.imageio.same_grid import NOTICEABLE_VOXELS
from swinssl.imageio.volume import Geometry, NiftiPlacement, reversed_axes
from swinssl.imageio.voxel_stream import GET_ANEW, VoxelStream, gzip_writer, open_voxels

HEADERS = {348: (nibabel.Nifti1Header, b"n+1\0", 344), 540: (nibabel.Nifti2Header, b"n+2\0", 4)}
# xyzt_units' spatial part: metre, micron; 0 (unknown) is taken for mm, as everybody does.
MM_PER_UNIT = {1: 1000.0, 3: 0.001}
SCANNER_ANATOMY = 1
# Cosines between axes above this are shear, which a quaternion cannot hold; float32 rounds at 1e-7.
SHEAR = 1e-5
# NIfTI-1 counts voxels in int16.
MOST_NIFTI1_VOXELS = 32767
DICOM_EXTENSION = 2
# Header extensions are skipped, but not without end.
MOST_EXTENSION_BYTES = 2**28


# Voxel sizes of sform and pixdim that differ by a larger share contradict each other; rounding gives 1e-4 at most.
SIZE_TOLERANCE = 1e-3
# How much longer than 1 rounding makes a quaternion. NIfTI's own library, and ITK with it, normalise any length.
QUATERNION_ROUNDING = 1e-3


@dataclass(frozen=True, eq=False)
class NiftiHeader:
    """What a header says.

    Args:
        geometry: shape and affine in mm, (z, y, x).
        dtype: of the stored voxels, with their byte order.
        slope, inter: value = stored * slope + inter; None where the stored values are the values.
        placed: whether sform or qform is set; else the place in the patient is a guess.
        forms_apart: how far sform and qform lie apart at the worst corner, in voxels; 0 where only one is set, infinite
            where the qform is no rotation.
        sform_sizes: voxel sizes of the sform in mm, (z, y, x); None where it is not set.
        pixdim_sizes: those of pixdim in mm, (z, y, x).
        unscaled_sform: whether the sform has directions without sizes, so that those of pixdim are used.
        mm_per_unit: 1 where lengths are in mm (or of unknown unit).
        names_patient: whether it has a field that may hold identifying text (db_name, a DICOM extension).
    """

    geometry: Geometry
    dtype: np.dtype
    slope: float | None
    inter: float | None
    placed: bool
    forms_apart: float
    sform_sizes: Spacing | None
    pixdim_sizes: Spacing
    unscaled_sform: bool
    mm_per_unit: float
    names_patient: bool

    @property
    def remarks(self) -> tuple[HeaderRemark, ...]:
        """What is odd about it, the worst first: the one place that decides, for every command."""
        remarks = []
        if self.sform_sizes is not None and _contradict(self.sform_sizes, self.pixdim_sizes):
            sform, pixdim = (dimensions(s, ".4g") for s in (self.sform_sizes, self.pixdim_sizes))
            if self.unscaled_sform:
                used = "pixdim is used, since the sform has directions without sizes"
            else:
                used = "the sform is used, as NIfTI says"
            message = f"the sform has voxels of {sform} mm, pixdim has {pixdim} mm (z, y, x); {used}"
            remedy = "Correct the wrong one; ITK, and so nnU-Net, uses pixdim; nibabel uses the sform."
            remarks.append(HeaderRemark("sizes", message, remedy))
        elif self.forms_apart > NOTICEABLE_VOXELS:
            message = f"sform and qform differ by {self.forms_apart:.2g} voxels at the worst corner; the sform is used"
            if self.forms_apart == float("inf"):
                message = "the qform is not a rotation; the sform is used"
            remedy = "Correct the wrong one; other programs may use the qform."
            remarks.append(HeaderRemark("forms", message, remedy))
        if not self.placed:
            message = "the header says neither how the image is oriented nor where it lies (sform and qform code 0)"
            remedy = "Convert it from its source again; left and right are only assumed."
            remarks.append(HeaderRemark("unplaced", message, remedy))
        if self.mm_per_unit != 1:
            message = f"lengths are in units of {self.mm_per_unit:g} mm; they are converted"
            remarks.append(HeaderRemark("units", message, "No action needed; many other programs read them as mm."))
        if self.names_patient:
            message = "the header has a field that may name the patient (db_name or a DICOM extension)"
            remedy = "Remove it before you share the file; swinssl never copies it."
            remarks.append(HeaderRemark("patient", message, remedy))
        return tuple(remarks)


def read_header(path: Path) -> NiftiHeader:
    """The header of a `.nii` or `.nii.gz`; no voxel is read.

    Raises:
        ImageFault: the file is missing or empty, no NIfTI, not 3D, too large, or has an impossible affine.
    """
    with open_voxels(path) as stream:
        return _read_header(stream)


def read(path: Path) -> tuple[NDArray, Geometry]:
    """The voxels of a `.nii` or `.nii.gz`, read to the end of the file and verified.

    Integers stay what they are where no scaling applies; scaled ones become float32, or float64 where they have more
    than 16 bits. NaN stays NaN.

    Returns:
        (Z, Y, X) in native byte order, and the grid.

    Raises:
        ImageFault: as `read_geometry`, or the voxels are cut off, damaged or followed by others.
    """
    with open_voxels(path) as stream:
        header = _read_header(stream)
        voxels = stream.read_array(header.geometry.shape, header.dtype)
        stream.finish()
    return scaled(voxels, header.slope, header.inter), header.geometry


def read_geometry(path: Path) -> Geometry:
    """The grid of a `.nii` or `.nii.gz`; raises as `read_header`."""
    return read_header(path).geometry


def header_remarks(path: Path) -> tuple[HeaderRemark, ...]:
    """What is odd about the header of a `.nii` or `.nii.gz`; raises as `read_header`."""
    return read_header(path).remarks


def write(path: Path, array: NDArray, geometry: Geometry, *, target: Path) -> None:
    """Write a `.nii` or `.nii.gz`; a grid that was read from a NIfTI file is placed by the same fields, to the bit."""
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
        squeeze, end = gzip_writer() if target.name.lower().endswith(".gz") else (lambda piece: piece, lambda: b"")
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


def _read_header(stream: VoxelStream) -> NiftiHeader:
    path, raw = stream.path, parse_header(stream)
    header = header_of(path, raw)
    stored_bytes = None if stream.encoding == "raw" else stream.stored
    check_size(path, header.geometry.shape, header.dtype.itemsize, stored_bytes=stored_bytes)
    return replace(header, names_patient=_names_patient(raw, skip_to_voxels(stream, raw)))


def header_of(path: Path, raw: Any) -> NiftiHeader:
    """What a header of nibabel's says, texts that may name a patient apart; it is tidied in place.

    Args:
        path: the file that messages name.
    """
    dims = raw["dim"].tolist()
    shape = spatial_shape(path, dims[1 : dims[0] + 1] if 1 <= dims[0] <= 7 else [])
    dtype = voxel_type(path, raw)
    slope, inter = _scaling(path, raw)
    mm_per_unit = MM_PER_UNIT.get(int(raw["xyzt_units"]) & 7, 1.0)
    placement = _placement(raw)
    affine, forms_apart, unscaled_sform = _affine(path, raw, shape, mm_per_unit)
    geometry = Geometry(shape, affine, placement)
    sform_sizes = np.linalg.norm(raw.get_sform()[:3, :3], axis=0) if int(raw["sform_code"]) > 0 else None
    return NiftiHeader(
        geometry=geometry,
        dtype=dtype,
        slope=slope,
        inter=inter,
        placed=int(raw["sform_code"]) > 0 or int(raw["qform_code"]) > 0,
        forms_apart=forms_apart,
        sform_sizes=None if sform_sizes is None else _zyx(sform_sizes * mm_per_unit),
        unscaled_sform=unscaled_sform,
        pixdim_sizes=_zyx(np.asarray(raw["pixdim"][1:4], np.float64) * mm_per_unit),
        mm_per_unit=mm_per_unit,
        names_patient=False,
    )


def parse_header(stream: VoxelStream) -> Any:
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
        found = "is not a single-file NIfTI (it may be Analyze, or have its voxels in an .img file)"
        raise ImageFault(stream.path, "not_an_image", found, "Convert it to .nii.gz.")
    return kind(content, endianness=endianness, check=False)


def voxel_type(path: Path, raw: Any) -> np.dtype:
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


def _placement(raw: Any) -> NiftiPlacement | None:
    """The fields as stored; None where one is no number, so that they cannot be kept."""
    pixdim = raw["pixdim"][:4].tolist()
    qform = [float(raw[f"{name}_{axis}"]) for name, axes in (("quatern", "bcd"), ("qoffset", "xyz")) for axis in axes]
    sform = [value for axis in "xyz" for value in raw[f"srow_{axis}"].tolist()]
    if not np.isfinite([*pixdim, *qform, *sform]).all():
        return None
    return NiftiPlacement(
        version=1 if int(raw["sizeof_hdr"]) == 348 else 2,
        pixdim=(pixdim[0], pixdim[1], pixdim[2], pixdim[3]),
        xyzt_units=int(raw["xyzt_units"]),
        qform_code=int(raw["qform_code"]),
        qform=tuple(qform),
        sform_code=int(raw["sform_code"]),
        sform=tuple(sform),
    )


def _affine(path: Path, raw: Any, shape: Shape, mm_per_unit: float) -> tuple[NDArray[np.float64], float, bool]:
    """The affine that counts, (z, y, x) in mm; `NiftiHeader.forms_apart`; and `NiftiHeader.unscaled_sform`.

    The sform counts if it is set, else the qform, else nibabel's guess. An sform whose axes are unit vectors beside a
    pixdim that says otherwise has directions without sizes (published so with ACDC): the sizes are then pixdim's.
    """
    _tidy(raw)
    sform, _ = raw.get_sform(coded=True)
    if sform is None:
        try:
            first = raw.get_best_affine()
        except (HeaderDataError, ValueError) as error:
            raise ImageFault(path, "affine", f"the header's quaternion is invalid ({error})", AFFINE_REMEDY) from None
        return checked_affine(path, _in_mm(first, mm_per_unit)), 0.0, False
    sizes, pixdim = np.linalg.norm(sform[:3, :3], axis=0), np.asarray(raw["pixdim"][1:4], np.float64)
    if unscaled := _lacks_scales(sizes, pixdim):
        sform[:3, :3] *= pixdim / sizes
    first = checked_affine(path, _in_mm(sform, mm_per_unit))
    try:
        qform, _ = raw.get_qform(coded=True)
        if qform is None:
            return first, 0.0, unscaled
        other = checked_affine(path, _in_mm(qform, mm_per_unit))
    except (HeaderDataError, ValueError, ImageFault):  # it is not used
        return first, float("inf"), unscaled
    return first, Geometry(shape, first).corner_displacement(Geometry(shape, other)), unscaled


def _tidy(raw: Any) -> None:
    """Repair what some writers do to a header, as NIfTI's own library does."""
    raw["pixdim"][1:4] = np.abs(raw["pixdim"][1:4])  # must not be negative
    if raw["pixdim"][0] not in (-1, 1):
        raw["pixdim"][0] = 1
    names = ("quatern_b", "quatern_c", "quatern_d")
    length = float(np.sqrt(sum(float(raw[name]) ** 2 for name in names)))
    if 1 < length <= 1 + QUATERNION_ROUNDING:
        for name in names:
            raw[name] = float(raw[name]) / length


def _contradict(sform_sizes: ArrayLike, pixdim_sizes: ArrayLike) -> bool:
    """Whether the voxel sizes of sform and pixdim differ by more than rounding."""
    sizes, pixdim = np.asarray(sform_sizes), np.asarray(pixdim_sizes)
    return not bool(np.all(np.abs(sizes - pixdim) <= SIZE_TOLERANCE * sizes))


def _lacks_scales(sform_sizes: ArrayLike, pixdim_sizes: ArrayLike) -> bool:
    """Whether an sform has unit axes where pixdim has possible sizes that are others."""
    sizes, pixdim = np.asarray(sform_sizes), np.asarray(pixdim_sizes)
    possible = bool(np.all(np.isfinite(pixdim) & (pixdim > 0)))
    return possible and _contradict(sizes, pixdim) and bool(np.all(np.abs(sizes - 1) <= SIZE_TOLERANCE))


def _zyx(sizes: NDArray[np.float64]) -> Spacing:
    x, y, z = (float(size) for size in sizes)
    return z, y, x


def _in_mm(affine: NDArray[np.float64], mm_per_unit: float) -> NDArray[np.float64]:
    scale = np.array([mm_per_unit] * 3 + [1.0])[:, None]
    return reversed_axes(np.asarray(affine, np.float64) * scale)


def skip_to_voxels(stream: VoxelStream, raw: Any) -> bytes:
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


def scaled(voxels: NDArray, slope: float | None, inter: float | None) -> NDArray:
    """The values of stored voxels, computed in float64 and rounded once; themselves where nothing scales them."""
    if slope is None or inter is None or (slope, inter) == (1, 0):
        return voxels
    small = voxels.dtype.itemsize <= 2 or voxels.dtype == np.float32
    values = np.empty(voxels.shape, np.float32 if small else np.float64)
    for plane, stored in zip(values, voxels, strict=True):
        plane[...] = stored.astype(np.float64) * slope + inter
    return values
