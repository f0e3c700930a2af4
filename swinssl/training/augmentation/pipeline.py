"""Augmentation of a patch with nnU-Net's recipe: drawn once, before anything is read; applied as often as wanted.

Because the parameters come first, only what they need is read: the patch itself where neither rotation nor zoom was
drawn (64 % of the draws), else the box that the rotated and zoomed patch covers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
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

# Probabilities and ranges: nnU-Net v2, nnUNetTrainer.get_training_transforms and its configuration of rotation.
ROTATION, ROTATION_DEGREES, IN_PLANE_DEGREES = 0.2, 30.0, 180.0
ZOOM, ZOOMS = 0.2, (0.7, 1.4)
NOISE, NOISE_SIGMAS = 0.1, (0.0, 0.1)
BLUR, BLUR_SIGMAS, BLUR_CHANNEL = 0.2, (0.5, 1.0), 0.5
BRIGHTNESS, BRIGHTNESS_FACTORS = 0.15, (0.75, 1.25)
CONTRAST, CONTRAST_FACTORS = 0.15, (0.75, 1.25)
LOW_RESOLUTION, LOW_RESOLUTION_ZOOMS, LOW_RESOLUTION_CHANNEL = 0.25, (0.5, 1.0), 0.5
INVERTED_GAMMA, GAMMA, GAMMAS = 0.1, 0.3, (0.7, 1.5)
MIRROR = 0.5
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


def draw_augmentation(
    draws: KeyedRng,
    *,
    patch_size: Shape,
    channels: int,
    mirror_axes: Sequence[int],
    spacing: tuple[float, float, float],
) -> Augmentation:
    """Draw every parameter.

    Args:
        draws: of the sample.
        patch_size: voxels (z, y, x).
        channels: of the image.
        mirror_axes: array axes that may be mirrored.
        spacing: (z, y, x) in mm; a rotation turns millimetres, not voxels.
    """
    rng = draws("augmentation")
    flat = flat_axis(patch_size, spacing)
    spatial = _draw_spatial(rng, patch_size, spacing, flat)
    changes: list[IntensityChange] = []

    def with_probability(p: float, draw: Callable[[], IntensityChange]) -> None:
        if rng.random() < p:
            changes.append(draw())

    def factors(bounds: tuple[float, float]) -> tuple[float, ...]:
        return tuple(_around_one(rng, bounds) for _ in range(channels))

    with_probability(NOISE, lambda: Noise(float(rng.uniform(*NOISE_SIGMAS)), draws))
    with_probability(BLUR, lambda: Blur(tuple(_draw_sigmas(rng) for _ in range(channels))))
    with_probability(BRIGHTNESS, lambda: Brightness(factors(BRIGHTNESS_FACTORS)))
    with_probability(CONTRAST, lambda: Contrast(factors(CONTRAST_FACTORS)))
    with_probability(LOW_RESOLUTION, lambda: LowResolution(tuple(_draw_zoom(rng) for _ in range(channels)), flat))
    with_probability(INVERTED_GAMMA, lambda: Gamma(factors(GAMMAS), inverted=True))
    with_probability(GAMMA, lambda: Gamma(factors(GAMMAS), inverted=False))
    mirrored = tuple(axis for axis in range(3) if rng.random() < MIRROR and axis in mirror_axes)
    return Augmentation(patch_size, spatial, tuple(changes), mirrored)


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


def _draw_spatial(
    rng: np.random.Generator, patch_size: Shape, spacing: tuple[float, float, float], flat: int | None
) -> SpatialChange | None:
    rotated, zoomed = rng.random() < ROTATION, rng.random() < ZOOM
    if not (rotated or zoomed):
        return None
    angles = [0.0, 0.0, 0.0]
    if rotated and flat is None:
        angles = np.radians(rng.uniform(-ROTATION_DEGREES, ROTATION_DEGREES, 3)).tolist()
    elif rotated:
        angles[flat] = math.radians(rng.uniform(-IN_PLANE_DEGREES, IN_PLANE_DEGREES))  # type: ignore[index]
    zoom = np.full(3, rng.uniform(*ZOOMS) if zoomed else 1.0)
    if flat is not None:
        zoom[flat] = 1.0
    mm = np.asarray(spacing)
    matrix = rotation((angles[0], angles[1], angles[2])) * (zoom * mm) / mm[:, None]
    rows = [(float(row[0]), float(row[1]), float(row[2])) for row in matrix]
    return SpatialChange((rows[0], rows[1], rows[2]), patch_size)


def flat_axis(patch_size: Shape, spacing: tuple[float, float, float]) -> int | None:
    """The axis of few or thick slices across which nothing is interpolated, or None."""
    if max(spacing) > ANISOTROPY * min(spacing):
        return int(np.argmax(spacing))
    if max(patch_size) > ANISOTROPY * min(patch_size):
        return int(np.argmin(patch_size))
    return None


def _around_one(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    """Half the draws below 1, half above, uniform on either side."""
    low, high = bounds
    return float(rng.uniform(low, 1) if rng.random() < 0.5 else rng.uniform(1, high))


def _draw_sigmas(rng: np.random.Generator) -> tuple[float, float, float] | None:
    if rng.random() >= BLUR_CHANNEL:
        return None
    z, y, x = (float(sigma) for sigma in rng.uniform(*BLUR_SIGMAS, 3))
    return z, y, x


def _draw_zoom(rng: np.random.Generator) -> float | None:
    return float(rng.uniform(*LOW_RESOLUTION_ZOOMS)) if rng.random() < LOW_RESOLUTION_CHANNEL else None
