"""Requirements on the grid of an image: three dimensions, a possible position in space, a size that fits in memory."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from swinssl.core.errors import UserError
from swinssl.core.geometry import Shape
from swinssl.core.machine import free_memory
from swinssl.core.text import dimensions
from swinssl.imageio.image_fault import ImageFault

LIMIT_VARIABLE = "SWINSSL_MAX_VOXELS"
DEFAULT_LIMIT = 2**31
# Deflate compresses at most 1032 to 1, and an empty label map of a large CT reaches that. Above 2^29 voxels (2048
# slices of 512 x 512), such a ratio is treated as a decompression bomb.
BOMB_VOXELS, BOMB_RATIO = 2**29, 500
# Volume of a voxel divided by the product of its edges; below this the axes are coplanar.
FLAT = 1e-6
# Voxels from a nanometre to ten metres, at most ten kilometres from the origin; far beyond, sizes in voxels overflow.
LEAST_SPACING_MM, MOST_SPACING_MM, MOST_ORIGIN_MM = 1e-6, 1e4, 1e7
SPLIT_REMEDY = (
    "Split it: one file per channel, named CASE_0000, CASE_0001 and so on. `swinssl_convert msd FOLDER` does so for a "
    "task of the Medical Segmentation Decathlon."
)
AFFINE_REMEDY = "Correct the header's spacing and orientation, or convert the image from its source again."


def spatial_shape(path: Path, dims: Sequence[int]) -> Shape:
    """The (z, y, x) shape of a header's dimensions.

    Args:
        dims: x first, as files have them; further dimensions of 1 are allowed.

    Raises:
        ImageFault: a dimension is not positive, a slice alone, or several volumes.
    """
    listed = dimensions(dims)
    if not dims or min(dims) < 1:
        found = f"the header has impossible dimensions ({listed or 'none'})"
        raise ImageFault(path, "not_an_image", found, "Copy or export the file again.")
    spatial = [n for n in dims[:3] if n > 1]
    if len(spatial) < 3:
        found = f"is a 2D image ({listed} voxels); swinssl segments 3D volumes"
        raise ImageFault(path, "not_3d", found, "Stack the slices of a scan into one volume.")
    if math.prod(dims[3:]) > 1:
        found = f"has {math.prod(dims[3:])} volumes or components ({listed}); expected one volume per file"
        raise ImageFault(path, "not_3d", found, SPLIT_REMEDY)
    x, y, z = dims[:3]
    return z, y, x


def checked_affine(path: Path, affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """The affine, if a grid can lie so.

    Raises:
        ImageFault: an entry is not finite, a size or the origin is absurd, or the axes span no volume.
    """
    if not np.isfinite(affine).all():
        raise ImageFault(path, "affine", "the header's affine has entries that are NaN or infinite", AFFINE_REMEDY)
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    spacing = dimensions(edges, ".4g")
    if edges.max() > MOST_SPACING_MM or 0 < edges.min() < LEAST_SPACING_MM:
        found = f"the header has voxels of {spacing} mm along z, y, x, which no scanner produces"
        raise ImageFault(path, "affine", found, AFFINE_REMEDY)
    if np.abs(affine[:3, 3]).max() > MOST_ORIGIN_MM:
        found = f"the header's origin is {np.abs(affine[:3, 3]).max():.4g} mm away"
        raise ImageFault(path, "affine", found, AFFINE_REMEDY)
    if edges.min() <= 0 or abs(np.linalg.det(affine[:3, :3] / np.where(edges > 0, edges, 1))) < FLAT:
        found = f"the header's affine is singular (voxels of {spacing} mm along z, y, x span no volume)"
        raise ImageFault(path, "affine", found, AFFINE_REMEDY)
    return affine


def check_size(path: Path, shape: Sequence[int], itemsize: int, *, stored_bytes: int | None = None) -> None:
    """Refuse an image that is larger than allowed or than the free memory.

    The limit is 2^31 voxels; the environment's SWINSSL_MAX_VOXELS sets another, and then no ratio counts as a bomb.

    Args:
        shape: (z, y, x), what the header claims.
        itemsize: bytes a voxel.
        stored_bytes: compressed size on disk; None where it is not compressed.

    Raises:
        ImageFault: of the kind `too_large`.
    """
    voxels = math.prod(shape)
    asked, limit = _asked_limit(), voxel_limit()
    claim = f"the header claims {dimensions(shape)} voxels"
    remedy = f"If the image is genuine, set {LIMIT_VARIABLE}={voxels}; otherwise copy or export the file again."
    if voxels > limit:
        raise ImageFault(path, "too_large", f"{claim}, more than the limit of {limit}", remedy)
    if asked is None and stored_bytes is not None and voxels > BOMB_VOXELS:
        ratio = voxels * itemsize / max(stored_bytes, 1)
        if ratio > BOMB_RATIO:
            found = f"{claim} in a file of {stored_bytes / 1e6:.3g} MB, {ratio:.0f} times smaller than the voxels"
            raise ImageFault(path, "too_large", found, remedy)
    needed, free = voxels * itemsize, free_memory()
    if needed > free:
        found = f"{claim}, {needed / 1e9:.3g} GB; {free / 1e9:.3g} GB of memory are free"
        raise ImageFault(path, "too_large", found, "Crop or resample the image, or use a machine with more memory.")


def voxel_limit() -> int:
    """The most voxels that an image may have: `DEFAULT_LIMIT`, or what the environment's SWINSSL_MAX_VOXELS sets."""
    asked = _asked_limit()
    return DEFAULT_LIMIT if asked is None else asked


def _asked_limit() -> int | None:
    text = os.environ.get(LIMIT_VARIABLE)
    if not text:
        return None
    if not text.strip().isdecimal():
        raise UserError(f"{LIMIT_VARIABLE}={text}: expected a whole number of voxels, such as {DEFAULT_LIMIT}.")
    return int(text)
