"""Augmentation of a patch with nnU-Net's recipe: drawn once, before anything is read; applied as often as wanted.

Because the parameters come first, only what they need is read: the patch itself where neither rotation nor zoom was
drawn (64 % of the draws), else the box that the rotated and zoomed patch covers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from swinssl.core.geometry import Shape
from swinssl.core.rng import KeyedRng
from swinssl.training.augmentation.intensity import (
    Blur,
    Brightness,
    Contrast,
    Gamma,
    IntensityChange,
    LowResolution,
    Noise,
)
from swinssl.training.augmentation.spatial import SpatialChange, rotation

Range = tuple[float, float]

ROTATION_DEGREES, IN_PLANE_DEGREES = 30.0, 180.0
# A patch or a voxel this much longer than its shortest edge is rotated and zoomed slice by slice only.
ANISOTROPY = 3.0


@dataclass(frozen=True)
class Augmentation:
    """The drawn changes of one patch, in the order in which they are applied.

    Args:
        patch_size: voxels (z, y, x) of the patch.
        spatial: rotation and zoom, or None.
        intensity: changes of the intensities.
        mirrored: array axes (0 z, 1 y, 2 x) that are turned round at the end.
    """

    patch_size: Shape
    spatial: SpatialChange | None = None
    intensity: tuple[IntensityChange, ...] = ()
    mirrored: tuple[int, ...] = ()

    @property
    def read_size(self) -> Shape:
        """Voxels (z, y, x) to read, about the patch's centre: `start - (read_size - patch_size) / 2` on, an integer."""
        return self.patch_size if self.spatial is None else self.spatial.read_size


@dataclass(frozen=True)
class PatchForm:
    """What parameters are drawn for.

    Args:
        patch_size: voxels (z, y, x).
        channels: of the image.
        mirror_axes: array axes that may be mirrored.
        spacing: (z, y, x) in mm; a rotation turns millimetres, not voxels.
        flat: the axis across which nothing is interpolated, or None.
        sample: the draws of the sample.
    """

    patch_size: Shape
    channels: int
    mirror_axes: Sequence[int]
    spacing: tuple[float, float, float]
    flat: int | None
    sample: KeyedRng


@dataclass(frozen=True, eq=False)
class LinearMap:
    """Part of the spatial change: a (3, 3) matrix on (z, y, x) offsets in mm, from the patch to its source."""

    matrix: NDArray[np.float64]


@dataclass(frozen=True)
class Mirror:
    """Array axes (0 z, 1 y, 2 x) that are reversed."""

    axes: tuple[int, ...]


Drawn = LinearMap | IntensityChange | Mirror


@dataclass(frozen=True)
class AugmentationEntry:
    """One row of the table.

    Args:
        probability: of the augmentation for a patch.
        draw: called with a generator, the patch's form and `parameters`.
        parameters: ranges and further probabilities, by argument of `draw`.
    """

    probability: float
    draw: Callable[..., Drawn]
    parameters: Mapping[str, Any]


def draw_rotation(rng: np.random.Generator, form: PatchForm, *, degrees: float, in_plane: float) -> LinearMap:
    """Up to `degrees` about each axis; up to `in_plane` about the flat axis alone, if there is one."""
    angles = [0.0, 0.0, 0.0]
    if form.flat is None:
        angles = np.radians(rng.uniform(-degrees, degrees, 3)).tolist()
    else:
        angles[form.flat] = math.radians(rng.uniform(-in_plane, in_plane))
    return LinearMap(rotation((angles[0], angles[1], angles[2])))


def draw_zoom(rng: np.random.Generator, form: PatchForm, *, factors: Range) -> LinearMap:
    """One factor for all axes but the flat one; above 1 the patch shows more of the source."""
    zoom = np.full(3, rng.uniform(*factors))
    if form.flat is not None:
        zoom[form.flat] = 1.0
    return LinearMap(np.diag(zoom))


def draw_noise(rng: np.random.Generator, form: PatchForm, *, sigmas: Range) -> Noise:
    """A standard deviation in standard deviations of the channel."""
    return Noise(float(rng.uniform(*sigmas)), form.sample)


def draw_blur(rng: np.random.Generator, form: PatchForm, *, sigmas: Range, per_channel: float) -> Blur:
    """Three standard deviations in voxels for each channel, which is blurred with probability `per_channel`."""

    def channel() -> tuple[float, float, float] | None:
        if rng.random() >= per_channel:
            return None
        z, y, x = (float(sigma) for sigma in rng.uniform(*sigmas, 3))
        return z, y, x

    return Blur(tuple(channel() for _ in range(form.channels)))


def draw_brightness(rng: np.random.Generator, form: PatchForm, *, factors: Range) -> Brightness:
    """A factor for each channel."""
    return Brightness(_factors(rng, form, factors))


def draw_contrast(rng: np.random.Generator, form: PatchForm, *, factors: Range) -> Contrast:
    """A factor for each channel."""
    return Contrast(_factors(rng, form, factors))


def draw_low_resolution(
    rng: np.random.Generator, form: PatchForm, *, zooms: Range, per_channel: float
) -> LowResolution:
    """A zoom for each channel, which is sampled down with probability `per_channel`."""
    chosen = (float(rng.uniform(*zooms)) if rng.random() < per_channel else None for _ in range(form.channels))
    return LowResolution(tuple(chosen), form.flat)


def draw_gamma(rng: np.random.Generator, form: PatchForm, *, gammas: Range, inverted: bool) -> Gamma:
    """An exponent for each channel."""
    return Gamma(_factors(rng, form, gammas), inverted=inverted)


def draw_mirror(rng: np.random.Generator, form: PatchForm, *, per_axis: float) -> Mirror:
    """Each of the axes that may be mirrored, with probability `per_axis`."""
    return Mirror(tuple(axis for axis in range(3) if rng.random() < per_axis and axis in form.mirror_axes))


# In the order in which they are applied. Each draws from a generator of its own, keyed by its name, so that a new row
# does not shift the draws of the others. Probabilities and ranges: nnU-Net v2, nnUNetTrainer.get_training_transforms
# and its configuration of rotation.
AUGMENTATIONS: dict[str, AugmentationEntry] = {
    "rotation": AugmentationEntry(0.2, draw_rotation, {"degrees": ROTATION_DEGREES, "in_plane": IN_PLANE_DEGREES}),
    "zoom": AugmentationEntry(0.2, draw_zoom, {"factors": (0.7, 1.4)}),
    "noise": AugmentationEntry(0.1, draw_noise, {"sigmas": (0.0, 0.1)}),
    "blur": AugmentationEntry(0.2, draw_blur, {"sigmas": (0.5, 1.0), "per_channel": 0.5}),
    "brightness": AugmentationEntry(0.15, draw_brightness, {"factors": (0.75, 1.25)}),
    "contrast": AugmentationEntry(0.15, draw_contrast, {"factors": (0.75, 1.25)}),
    "low resolution": AugmentationEntry(0.25, draw_low_resolution, {"zooms": (0.5, 1.0), "per_channel": 0.5}),
    "inverted gamma": AugmentationEntry(0.1, draw_gamma, {"gammas": (0.7, 1.5), "inverted": True}),
    "gamma": AugmentationEntry(0.3, draw_gamma, {"gammas": (0.7, 1.5), "inverted": False}),
    "mirror": AugmentationEntry(1.0, draw_mirror, {"per_axis": 0.5}),
}


def draw_augmentation(
    rng: KeyedRng,
    *,
    patch_size: Shape,
    channels: int,
    mirror_axes: Sequence[int],
    spacing: tuple[float, float, float],
) -> Augmentation:
    """Draw every parameter.

    Args:
        rng: of the sample.
        patch_size: voxels (z, y, x).
        channels: of the image.
        mirror_axes: array axes that may be mirrored.
        spacing: (z, y, x) in mm.
    """
    form = PatchForm(patch_size, channels, mirror_axes, spacing, flat_axis(patch_size, spacing), rng)
    generator_of = rng.reusing()
    matrix: NDArray[np.float64] | None = None
    intensity: list[IntensityChange] = []
    mirrored: list[int] = []
    for name, entry in AUGMENTATIONS.items():
        row_rng = generator_of(f"augmentation: {name}")
        if row_rng.random() >= entry.probability:
            continue
        drawn = entry.draw(row_rng, form, **entry.parameters)
        if isinstance(drawn, LinearMap):
            matrix = drawn.matrix if matrix is None else matrix @ drawn.matrix
        elif isinstance(drawn, Mirror):
            mirrored += drawn.axes
        else:
            intensity.append(drawn)
    spatial = None if matrix is None else _in_voxels(matrix, form)
    return Augmentation(patch_size, spatial, tuple(intensity), tuple(mirrored))


def apply(augmentation: Augmentation, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """The augmented patch; the inputs are left as they are.

    Args:
        augmentation: what was drawn.
        image: (C, *read_size) float32, on any device.
        label: (*read_size) codes, on the same device.

    Returns:
        (C, *patch_size) float32 and (*patch_size) codes.
    """
    if augmentation.spatial is not None:
        image, label = augmentation.spatial.warp(image, label)
    for change in augmentation.intensity:
        image = change.apply(image)
    if augmentation.mirrored:
        image = image.flip([axis + 1 for axis in augmentation.mirrored])
        label = label.flip(list(augmentation.mirrored))
    return image, label


def _in_voxels(matrix: NDArray[np.float64], form: PatchForm) -> SpatialChange:
    mm = np.asarray(form.spacing)
    rows = [(float(row[0]), float(row[1]), float(row[2])) for row in matrix * mm / mm[:, None]]
    return SpatialChange((rows[0], rows[1], rows[2]), form.patch_size)


def flat_axis(patch_size: Shape, spacing: tuple[float, float, float]) -> int | None:
    """The axis of few or thick slices across which nothing is interpolated, or None."""
    if max(spacing) > ANISOTROPY * min(spacing):
        return int(np.argmax(spacing))
    if max(patch_size) > ANISOTROPY * min(patch_size):
        return int(np.argmin(patch_size))
    return None


def _factors(rng: np.random.Generator, form: PatchForm, bounds: Range) -> tuple[float, ...]:
    """A factor for each channel: half the draws below 1, half above, uniform on either side."""
    low, high = bounds

    def factor() -> float:
        return float(rng.uniform(low, 1) if rng.random() < 0.5 else rng.uniform(1, high))

    return tuple(factor() for _ in range(form.channels))
