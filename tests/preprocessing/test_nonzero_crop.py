"""The mask of an image's content, against scipy's hole filling, and the box around it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from swinssl.preprocessing import nonzero_crop as module
from swinssl.preprocessing.nonzero_crop import crop_box, nonzero_mask


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.7, 0.95])
def test_mask_is_the_union_of_channels_with_holes_filled(share: float) -> None:
    image = (np.random.default_rng(0).random((2, 12, 15, 9)) < share / 2).astype(np.float32)
    expected = ndimage.binary_fill_holes((image != 0).any(axis=0))
    np.testing.assert_array_equal(nonzero_mask(image), expected)


def test_a_hole_that_reaches_the_border_stays_open() -> None:
    image = np.zeros((1, 7, 7, 7))
    image[0, 1:6, 1:6, 1:6] = -3.0
    image[0, 3, 3, 3] = 0  # enclosed
    image[0, 3:, 2, 2] = 0  # a channel to the outside
    mask = nonzero_mask(image)
    assert mask[3, 3, 3] and not mask[4, 2, 2]


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_an_image_of_one_value_has_the_whole_box(value: float) -> None:
    mask = nonzero_mask(np.full((1, 3, 4, 5), value))
    assert mask.all() == (value != 0) and mask.any() == (value != 0)
    assert crop_box(mask) == (slice(0, 3), slice(0, 4), slice(0, 5))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_a_few_zeros_are_linked_to_the_same_holes(seed: int, turned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    draws = np.random.default_rng(seed)
    image = np.ones((1, 12, 15, 9))
    for _ in range(25):  # short lines of zeros, some of which touch each other or the border
        start, axis = draws.integers(0, image.shape[1:]), draws.integers(3)
        line = [slice(int(s), int(s) + 1) for s in start]
        line[axis] = slice(int(start[axis]), int(start[axis]) + 4)
        image[0, *line] = 0
    image = image.transpose(0, 3, 1, 2)[:, :, ::-1] if turned else image
    expected = ndimage.binary_fill_holes(image[0] != 0)
    assert not expected.all() and (expected != (image[0] != 0)).any()
    monkeypatch.setattr(module, "FEW", 1.0)
    np.testing.assert_array_equal(nonzero_mask(image), expected)
    monkeypatch.setattr(module, "FEW", 0.0)
    np.testing.assert_array_equal(nonzero_mask(image), expected)
