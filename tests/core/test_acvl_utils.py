"""What swinssl takes from acvl-utils, and the differences that docs/dependencies.md names."""

from __future__ import annotations

import blosc2
import numpy as np
import pytest
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from acvl_utils.morphology.morphology_helper import remove_all_but_largest_component
from scipy import ndimage

from swinssl.inference.postprocessing import keep_largest


@pytest.mark.parametrize("kind", ["numpy", "blosc2", "torch"])
def test_crop_and_pad_gives_the_padded_array(kind: str) -> None:
    """500 windows of 2D to 4D arrays, of all axes or the last ones; 0 is the padding of an image."""
    rng = np.random.default_rng(7)
    wrap = {"numpy": lambda a: a, "blosc2": lambda a: blosc2.asarray(a), "torch": torch.from_numpy}[kind]
    outside = 0
    for trial in range(500):
        dimensions = 2 + trial % 3
        shape = tuple(rng.integers(3, 12, dimensions).tolist())
        array = rng.integers(1, 100, shape).astype(np.int16)
        cropped = int(rng.integers(max(2, dimensions - 1), dimensions + 1))
        lead = dimensions - cropped
        size = rng.integers(1, 15, cropped)
        start = np.array([rng.integers(-s - 3, n + 4) for s, n in zip(size, shape[lead:], strict=True)])
        window = [[int(a), int(a + s)] for a, s in zip(start, size, strict=True)]
        found = np.asarray(crop_and_pad_nd(wrap(array), window, 0))
        expected = array
        for axis, (first, stop) in enumerate(window, start=lead):
            places, length = np.arange(first, stop), shape[axis]
            expected = np.take(expected, places.clip(0, length - 1), axis=axis)
            expected[(slice(None),) * axis + ((places < 0) | (places >= length),)] = 0
        assert np.array_equal(found, expected) and found.dtype == array.dtype
        outside += any(b <= 0 or a >= n for (a, b), n in zip(window, shape[lead:], strict=True))
    assert outside > 20


def test_padding_to_a_shape_puts_the_odd_voxel_after() -> None:
    image = torch.rand(2, 5, 8, 6)
    padded = pad_nd_image(image, (8, 8, 9))
    assert np.array_equal(padded, np.pad(image, [(0, 0), (1, 2), (0, 0), (1, 2)]))
    assert pad_nd_image(image, (5, 7, 6)) is image


@pytest.mark.parametrize("case", ["empty", "one", "tie", "corner", "full", "specks"])
def test_the_largest_component_is_the_same(case: str) -> None:
    mask = np.zeros((9, 10, 11), bool)
    if case in ("one", "tie"):
        mask[1:3, 1:3, 1:3] = True
    if case == "tie":
        mask[5:7, 5:7, 5:7] = mask[8, 9, 10] = True
    if case == "corner":
        mask[0, 0, 0] = mask[1, 1, 1] = mask[5, 5, 5] = True
    if case == "full":
        mask[:] = True
    if case == "specks":
        mask = np.random.default_rng(0).random(mask.shape) < 0.1
    label_map = mask.astype(np.uint8)
    keep_largest(label_map, [[1]])
    assert np.array_equal(label_map.astype(bool), remove_all_but_largest_component(mask))
    if case == "tie":
        assert ndimage.label(label_map)[1] == 2
