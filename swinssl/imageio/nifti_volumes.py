"""The volumes of a 4D NIfTI as files of their own, with their voxels exactly as they are stored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swinssl.imageio.formats import image_ending
from swinssl.imageio.grid_rules import check_size, spatial_shape
from swinssl.imageio.image_fault import ImageFault
from swinssl.imageio.nifti import parse_header, skip_to_voxels, voxel_type
from swinssl.imageio.voxel_stream import VoxelStream, gzip_writer, open_voxels

# Fields of free text, which may name the patient.
FREE_TEXT = ("descrip", "aux_file", "db_name", "intent_name")


def count_volumes(path: Path) -> int:
    """How many volumes a NIfTI has; its header is read.

    Raises:
        ImageFault: the file is missing, no NIfTI, or of volumes that are not 3D.
    """
    _require_nifti(path)
    with open_voxels(path) as stream:
        return _count(stream, parse_header(stream))


def write_volumes(path: Path, targets: Sequence[Path]) -> None:
    """Write each volume of a NIfTI to a file, gzipped where its name says so; header extensions are left out.

    Raises:
        ImageFault: the file has other volumes than targets, is cut off or damaged; then some targets may be written.
    """
    _require_nifti(path)
    with open_voxels(path) as stream:
        header = parse_header(stream)
        count = _count(stream, header)
        if count != len(targets):
            found = f"has {count} volumes; {len(targets)} are expected"
            raise ImageFault(path, "not_3d", found, "Correct dataset.json, or copy the file again.")
        skip_to_voxels(stream, header)
        block = _of_one_volume(header)
        voxels = math.prod(header["dim"].tolist()[1:4])
        volume = memoryview(bytearray(voxels * voxel_type(path, header).itemsize))
        for target in targets:
            stream.read_into(volume)
            squeeze, end = gzip_writer() if (image_ending(target) or "").endswith(".gz") else (bytes, lambda: b"")
            with open(target, "wb") as file:
                file.write(squeeze(block + bytes(4)))
                file.write(squeeze(volume))
                file.write(end())
        stream.finish()


def _require_nifti(path: Path) -> None:
    if image_ending(path) not in (".nii", ".nii.gz"):
        raise ImageFault(path, "not_an_image", "is not a NIfTI file by its name", "Convert it to .nii.gz.")


def _count(stream: VoxelStream, header: Any) -> int:
    dims = header["dim"].tolist()
    listed = dims[1 : dims[0] + 1] if 1 <= dims[0] <= 7 else []
    shape = spatial_shape(stream.path, listed[:3])
    count = math.prod(listed[3:])
    itemsize = voxel_type(stream.path, header).itemsize
    check_size(stream.path, (count, *shape), itemsize, stored_bytes=None)
    return count


def _of_one_volume(header: Any) -> bytes:
    """The header of a single volume: place, type and scaling as in the whole."""
    single = header.copy()
    single["dim"][0] = 3
    single["dim"][4:] = 1
    single["pixdim"][4:] = 1
    for name in FREE_TEXT:
        if name in single.keys():  # noqa: SIM118 (not a mapping)
            single[name] = b""
    single["vox_offset"] = single.sizeof_hdr + 4
    block: bytes = single.binaryblock
    return block
