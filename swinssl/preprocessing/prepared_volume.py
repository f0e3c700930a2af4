"""From a volume as read to what a network sees: canonical axes, crop, normalised, on the plan's grid.

Preprocessing and prediction both come through here, so a network sees in use what it saw in training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from swinssl.core.errors import UserError
from swinssl.core.geometry import Bounds, Box, Shape, Spacing, bounds_of, whole_box
from swinssl.core.machine import free_memory, give_freed_memory_back
from swinssl.core.text import dimensions
from swinssl.dataset.labels import LabelSet
from swinssl.imageio.grid_rules import voxel_limit
from swinssl.imageio.reader import read_geometry
from swinssl.imageio.volume import Geometry, Volume
from swinssl.preprocessing.case_properties import CaseProperties, InputFile
from swinssl.preprocessing.nonzero_crop import crop_box, nonzero_mask
from swinssl.preprocessing.normalise import normalise
from swinssl.preprocessing.plans import Plans
from swinssl.preprocessing.resample import resample_image, resample_label, resampled_shape, separate_z_axis

# Peak bytes per voxel and channel, on the source grid and on the new one. Measured 12.5 and 13.4 with a label and cubic
# resampling; the rest is for reading.
SOURCE_BYTES, TARGET_BYTES = 18, 14


@dataclass(frozen=True, eq=False)
class PreparedVolume:
    """A volume on the plan's grid and its place in the source grid. All triples are (z, y, x).

    Args:
        image: (C, Z, Y, X) float32.
        label: (Z, Y, X) codes, or None.
        source: the grid of the file as stored.
        crop: [start, stop) per axis in voxels of the canonical source grid.
        cropped_spacing: mm, of the canonical source grid.
        voxels_before: per structure, voxels on the source grid.
        voxels_after: per structure, voxels in `label`.
    """

    image: NDArray[np.float32]
    label: NDArray | None
    source: Geometry
    crop: Bounds
    cropped_spacing: Spacing
    voxels_before: dict[str, int]
    voxels_after: dict[str, int]

    @property
    def shape(self) -> Shape:
        """Voxels of `image`."""
        z, y, x = self.image.shape[1:]
        return z, y, x

    @property
    def spacing(self) -> Spacing:
        """Spacing of `image` in mm: the crop's extent divided by its shape, close but not equal to the plan's."""
        z, y, x = (
            (stop - start) * mm / n
            for (start, stop), mm, n in zip(self.crop, self.cropped_spacing, self.shape, strict=True)
        )
        return z, y, x

    def properties(
        self,
        case_id: str,
        *,
        labels_present: tuple[str, ...] | None = None,
        input_sha256: Mapping[str, str] | None = None,
        input_files: Mapping[str, InputFile] | None = None,
        content_hash: str = "",
    ) -> CaseProperties:
        """What the store keeps of it beside the voxels; counts of structures that nobody annotated are left out."""
        present = set(self.voxels_before) if labels_present is None else set(labels_present)
        return CaseProperties(
            case_id=case_id,
            source_shape=self.source.shape,
            source_affine=tuple(map(tuple, self.source.affine.tolist())),
            source_nifti=self.source.nifti,
            crop=self.crop,
            cropped_spacing=self.cropped_spacing,
            shape=self.shape,
            spacing=self.spacing,
            labels_present=labels_present,
            annotated=self.label is not None,
            voxels_before={name: n for name, n in self.voxels_before.items() if name in present},
            voxels_after={name: n for name, n in self.voxels_after.items() if name in present},
            input_sha256=dict(input_sha256 or {}),
            input_files=dict(input_files or {}),
            content_hash=content_hash,
        )


def prepare(volume: Volume, plans: Plans, *, label: Volume | None = None) -> PreparedVolume:
    """Bring a volume onto the plan's grid. Reads and writes no file and does not modify its arguments.

    Canonical axes, crop to the non-zero voxels, normalise, resample, in that order (nnU-Net's). Background outside the
    non-zero mask becomes `LabelSet.outside_code`.

    Args:
        volume: (C, Z, Y, X) finite; C channels as the plans name them.
        label: (1, Z, Y, X) raw values, all declared, on the same grid.

    Raises:
        ValueError: the channel count or the label's shape does not fit, or a label value is not declared.
        UserError: the plan's grid would have too many voxels.
    """
    if len(volume.array) != len(plans.channel_names):
        raise ValueError(f"{len(volume.array)} channels; the plans have {len(plans.channel_names)}")
    if label is not None and label.geometry.shape != volume.geometry.shape:
        raise ValueError(f"label of {label.geometry.shape} voxels; the image has {volume.geometry.shape}")
    canonical, axes = volume.canonical()
    codes = None if label is None else plans.labels.encode(axes.apply(label.array[0]))
    del label  # who calls may have left it to this function alone
    before = _structure_voxels(codes, plans.labels)

    image, mask, crop = _cropped(canonical.array, plans)
    if codes is not None:
        codes = codes[crop]
        if mask is not None:
            codes[(codes == 0) & ~mask] = plans.labels.outside_code

    spacing, rules = canonical.geometry.spacing, plans.resampling
    new_shape = planned_shape(image.shape[1:], spacing, plans)
    apart = separate_z_axis(spacing, plans.spacing, force=rules.separate_z)
    # Labels first, and memory is released as early as possible: the image is the largest array on the new grid.
    if codes is not None:
        codes = resample_label(codes, new_shape, order=rules.label_order, separate_z_axis=apart, order_z=rules.order_z)
    after = _structure_voxels(codes, plans.labels)
    channels = normalise(image, plans.intensity, mask=mask)
    del mask  # where channels need it they have it
    give_freed_memory_back()
    image = resample_image(channels, new_shape, order=rules.image_order, separate_z_axis=apart, order_z=rules.order_z)
    return PreparedVolume(
        image=image,
        label=codes,
        source=volume.geometry,
        crop=bounds_of(crop),
        cropped_spacing=spacing,
        voxels_before=before,
        voxels_after=after,
    )


def planned_shape(shape: Shape, spacing: Spacing, plans: Plans) -> Shape:
    """Voxels of a canonical grid after resampling to the plan's spacing.

    Raises:
        UserError: more voxels than allowed or than fit into memory; most likely the header's spacing is wrong.
    """
    resampled = resampled_shape(shape, spacing, plans.spacing)
    voxels = math.prod(max(n, patch) for n, patch in zip(resampled, plans.patch_size, strict=True))
    needed, free = len(plans.channel_names) * TARGET_BYTES * voxels, free_memory()
    if voxels > voxel_limit() or needed > free:
        size, planned = (dimensions(triple, ".4g") for triple in (spacing, plans.spacing))
        raise UserError(
            f"{dimensions(shape)} voxels of {size} mm (z, y, x) become {voxels:.3g} voxels at the plan's "
            f"{planned} mm, which take {needed / 1e9:.3g} GB of memory; {free / 1e9:.3g} GB are free and "
            f"{voxel_limit():.3g} voxels are allowed. Correct the header's spacing; if it is right, crop the image."
        )
    return resampled


def shapes_by_header(images: Sequence[Path], plans: Plans) -> tuple[Shape, Shape] | None:
    """Voxels of a case in its file and on the plan's grid, before any crop; None if the case cannot be prepared.

    Args:
        images: files of its channels.
    """
    if not images:
        return None
    try:
        geometry = read_geometry(images[0])
        canonical = geometry.mapped(geometry.canonical_map())
        return canonical.shape, planned_shape(canonical.shape, canonical.spacing, plans)
    except (UserError, OSError):
        return None  # the case will say so itself


def peak_bytes(images: Sequence[Path], plans: Plans) -> int:
    """Peak memory in bytes of reading and preparing a case, by its first header; 0 if it cannot be prepared.

    Args:
        images: files of its channels.
    """
    shapes = shapes_by_header(images, plans)
    if shapes is None:
        return 0
    source, target = shapes
    return len(images) * (SOURCE_BYTES * math.prod(source) + TARGET_BYTES * math.prod(target))


def _cropped(image: NDArray, plans: Plans) -> tuple[NDArray, NDArray[np.bool_] | None, Box]:
    """The image and its non-zero mask inside the crop, and the crop; no mask where the plans need none."""
    whole = whole_box(image.shape[1:])
    if not plans.crop_to_nonzero and not any(how.inside_mask for how in plans.intensity):
        return image, None, whole
    mask = nonzero_mask(image)
    crop = crop_box(mask) if plans.crop_to_nonzero else whole
    return image[(slice(None), *crop)], mask[crop], crop


def _structure_voxels(codes: NDArray | None, labels: LabelSet) -> dict[str, int]:
    if codes is None:
        return {}
    foreground = codes[codes != 0]  # bincount would convert the whole volume to int64
    counts = np.bincount(foreground, minlength=len(labels.raw_values) + 1)
    codes_of = zip(labels.names, labels.structure_codes, strict=True)
    return {name: int(counts[list(members)].sum()) for name, members in codes_of}
