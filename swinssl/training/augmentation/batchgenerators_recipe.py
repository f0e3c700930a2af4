"""nnU-Net v1's augmentation through batchgenerators (`--augmentation batchgenerators`), seeded by the sample's draws.

The transforms, their order and their constants are those of nnU-Net v1 (nnUNetTrainerV2, `get_moreDA_augmentation`).
They are meant for images of unit standard deviation, so the noise is scaled by that of the patch. They draw from the
process's global generators, so one thread at a time seeds those, applies the transforms and puts the old states back.
"""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinssl.core.geometry import Shape
from swinssl.core.rng import KeyedRng
from swinssl.training.augmentation.pipeline import IN_PLANE_DEGREES, ROTATION_DEGREES, flat_axis
from swinssl.training.augmentation.spatial import rotation

# The least zoom that the region read is made for; v1 draws down to 0.7 and up to 1.4 and pads what it lacks.
LEAST_ZOOM_READ = 0.85

_global_generators = threading.Lock()


def read_size(patch_size: Shape, spacing: tuple[float, float, float]) -> Shape:
    """Voxels (z, y, x) to read, about the patch's centre; the same for every draw.

    The box round the patch turned by the largest angle about each axis in its turn, over the least zoom.
    """
    flat = flat_axis(patch_size, spacing)
    angle = math.radians(ROTATION_DEGREES if flat is None else 45.0)  # in a plane the diagonal is the widest
    axes = range(3) if flat is None else [flat]
    turned = [np.abs(rotation(_about(axis, angle))) @ np.array(patch_size) for axis in axes]
    widest = np.max(turned, axis=0) / LEAST_ZOOM_READ
    if flat is not None:
        widest[flat] = patch_size[flat]
    z, y, x = (p + 2 * math.ceil((float(w) - p) / 2) for w, p in zip(widest, patch_size, strict=True))
    return z, y, x


def augment(
    rng: KeyedRng,
    image: NDArray[np.float32],
    label: NDArray,
    *,
    patch_size: Shape,
    spacing: tuple[float, float, float],
    mirror_axes: Sequence[int],
    outside: int,
    spatial: bool = True,
) -> tuple[NDArray[np.float32], NDArray]:
    """The augmented patch.

    Args:
        rng: of the sample; the same key gives the same patch, whatever other threads do.
        image: (C, *read_size).
        label: (*read_size) codes.
        mirror_axes: array axes that may be mirrored.
        outside: label code of what no source voxel covers; the image is 0 there.
        spatial: False leaves rotation and zoom out.
    """
    from batchgenerators.transforms.abstract_transforms import Compose

    flat = flat_axis(patch_size, spacing)
    # The flat axis first, as v1 has it; its slices become channels while the plane is turned.
    order = [0, 1, 2] if flat is None else [flat, *(axis for axis in range(3) if axis != flat)]
    data = image.transpose(0, *(1 + axis for axis in order))[None].astype(np.float32)
    codes = label.transpose(order)[None, None].astype(np.float32)
    size = tuple(patch_size[axis] for axis in order)
    turn = _spatial_transform(size, flat is not None, outside, probability=0.2 if spatial else 0.0)
    allowed = [order.index(axis) for axis in mirror_axes]
    rest = Compose(_other_transforms(float(image.std()), flat is not None, allowed))
    with _seeded(rng):
        if flat is None:
            turned = turn(data=data, seg=codes)
        else:
            channels, slices = data.shape[1:3]
            plane = turn(data=data.reshape(1, channels * slices, *data.shape[3:]), seg=codes[:, 0])
            turned = {
                "data": plane["data"].reshape(1, channels, slices, *size[1:]),
                "seg": plane["seg"].reshape(1, 1, slices, *size[1:]),
            }
        done = rest(**turned)
    back = np.argsort(order)
    out = done["data"][0].transpose(0, *(1 + back))
    return np.ascontiguousarray(out, np.float32), np.ascontiguousarray(done["seg"][0, 0].transpose(back), label.dtype)


def _spatial_transform(size: tuple[int, ...], flat: bool, outside: int, *, probability: float) -> Any:
    from batchgenerators.transforms.spatial_transforms import SpatialTransform

    degrees = math.radians(IN_PLANE_DEGREES if flat else ROTATION_DEGREES)
    return SpatialTransform(
        size[1:] if flat else size,
        patch_center_dist_from_border=None,
        do_elastic_deform=False,
        angle_x=(-degrees, degrees),
        angle_y=(-degrees, degrees),
        angle_z=(-degrees, degrees),
        scale=(0.7, 1.4),
        border_mode_data="constant",
        border_cval_data=0,
        order_data=3,
        border_mode_seg="constant",
        border_cval_seg=outside,
        order_seg=1,
        random_crop=False,
        p_scale_per_sample=probability,
        p_rot_per_sample=probability,
    )


def _other_transforms(deviation: float, flat: bool, mirror_axes: Sequence[int]) -> list[Any]:
    from batchgenerators.transforms.color_transforms import (
        BrightnessMultiplicativeTransform,
        ContrastAugmentationTransform,
        GammaTransform,
    )
    from batchgenerators.transforms.noise_transforms import GaussianBlurTransform, GaussianNoiseTransform
    from batchgenerators.transforms.resample_transforms import SimulateLowResolutionTransform
    from batchgenerators.transforms.spatial_transforms import MirrorTransform

    transforms = [
        GaussianNoiseTransform(noise_variance=(0, 0.1 * deviation), p_per_sample=0.1),
        GaussianBlurTransform((0.5, 1.0), different_sigma_per_channel=True, p_per_sample=0.2, p_per_channel=0.5),
        BrightnessMultiplicativeTransform(multiplier_range=(0.75, 1.25), p_per_sample=0.15),
        ContrastAugmentationTransform(p_per_sample=0.15),
        SimulateLowResolutionTransform(
            zoom_range=(0.5, 1),
            per_channel=True,
            p_per_channel=0.5,
            order_downsample=0,
            order_upsample=3,
            p_per_sample=0.25,
            ignore_axes=(0,) if flat else None,
        ),
        GammaTransform((0.7, 1.5), invert_image=True, per_channel=True, retain_stats=True, p_per_sample=0.1),
        GammaTransform((0.7, 1.5), invert_image=False, per_channel=True, retain_stats=True, p_per_sample=0.3),
    ]
    return [*transforms, MirrorTransform(tuple(mirror_axes))] if mirror_axes else transforms


@contextmanager
def _seeded(rng: KeyedRng) -> Iterator[None]:
    """The global generators of `random` and numpy at this sample's state, one thread at a time; then as they were."""
    seed = rng("batchgenerators").integers(2**32, size=8, dtype=np.uint32)
    with _global_generators:
        states = random.getstate(), np.random.get_state()
        try:
            random.seed(seed.tobytes())
            np.random.seed(seed)
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


def _about(axis: int, angle: float) -> tuple[float, float, float]:
    z, y, x = (angle if a == axis else 0.0 for a in range(3))
    return z, y, x
