"""From a patch's place to the tensors that a step sees: read, padded, augmented. Threads may share all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swinssl.core.geometry import Shape
from swinssl.core.rng import KeyedRng
from swinssl.preprocessing.plans import Plans
from swinssl.preprocessing.store import PreprocessedCase
from swinssl.training.augmentation import batchgenerators_recipe
from swinssl.training.augmentation.pipeline import Augmentation, apply, draw_augmentation
from swinssl.training.sampling.sampler import Patch, tumour_codes

AugmentationName = Literal["default", "batchgenerators", "none"]


def load_patch(
    case: PreprocessedCase, patch: Patch, *, plans: Plans, rng: KeyedRng, augmentation: AugmentationName
) -> tuple[Tensor, Tensor]:
    """The image and label of a patch, augmented.

    What lies beyond the volume is 0 in the image, as in the sliding window at prediction, and `outside_code` in the
    label. Where the patch was drawn to show tumour, or none, and rotation or zoom would change that, they are left out.

    Args:
        case: the case that `patch` lies in; annotated.
        rng: of the sample; the same key gives the same patch.
        augmentation: `default` (own, nnU-Net's recipe), `batchgenerators` (nnU-Net v1's) or `none`.

    Returns:
        (C, *patch_size) float32 and (*patch_size) label codes, uint8 (int32 where there are over 253 structures).
    """
    image, label = _augmented(case, patch, plans, rng, augmentation, spatial=True)
    if patch.shows_tumour is not None and shows(label, tumour_codes(plans.labels)) != patch.shows_tumour:
        image, label = _augmented(case, patch, plans, rng, augmentation, spatial=False)
    return image, label


def shows(label: Tensor, codes: Sequence[int]) -> bool:
    """Whether any voxel of the label has one of `codes`."""
    return any(bool((label == code).any()) for code in codes)


def read_window(
    case: PreprocessedCase, start: Shape, size: Shape, *, outside: int
) -> tuple[NDArray[np.float32], NDArray]:
    """The (C, *size) image and the (*size) label of a window that may extend beyond the volume, in part or whole.

    Args:
        start: first voxel (z, y, x) on the stored grid; may be negative.
        outside: label code beyond the volume.
    """
    return case.image_window(start, size), _signed(case.label_window(start, size, outside=outside))


def _augmented(
    case: PreprocessedCase,
    patch: Patch,
    plans: Plans,
    rng: KeyedRng,
    augmentation: AugmentationName,
    *,
    spatial: bool,
) -> tuple[Tensor, Tensor]:
    channels, outside = len(plans.channel_names), plans.labels.outside_code
    mirror_axes = plans.training.mirror_axes

    def read(size: Shape) -> tuple[NDArray[np.float32], NDArray]:
        z, y, x = (s - (n - p) // 2 for s, n, p in zip(patch.start, size, plans.patch_size, strict=True))
        return read_window(case, (z, y, x), size, outside=outside)

    if augmentation == "batchgenerators":
        image, label = batchgenerators_recipe.augment(
            rng,
            *read(batchgenerators_recipe.read_size(plans.patch_size, plans.spacing)),
            patch_size=plans.patch_size,
            spacing=plans.spacing,
            mirror_axes=mirror_axes,
            outside=outside,
            spatial=spatial,
        )
        return torch.from_numpy(image), torch.from_numpy(label)
    drawn = Augmentation(plans.patch_size)
    if augmentation == "default":
        drawn = draw_augmentation(
            rng, patch_size=plans.patch_size, channels=channels, mirror_axes=mirror_axes, spacing=plans.spacing
        )
    if not spatial:
        drawn = replace(drawn, spatial=None)
    image, label = read(drawn.read_size)
    with torch.no_grad():
        return apply(drawn, torch.from_numpy(image), torch.from_numpy(label))


def _signed(label: NDArray) -> NDArray:
    """uint16 codes as int32: torch has few operations for uint16."""
    return label if label.dtype == np.uint8 else label.astype(np.int32)
