"""The largest component alone: against another implementation, whatever the order that voxels are stored in."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.measure import label as components_of

from swinssl.inference.postprocessing import keep_largest


def blobs(seed, shape=(20, 24, 28)):
    """A map of three labels in many pieces."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.0)
    return np.digitize(noise, np.quantile(noise, [0.5, 0.75, 0.9])).astype(np.uint8)


def kept(label_map, *groups):
    cleaned = label_map.copy()
    keep_largest(cleaned, groups)
    return cleaned


def largest_of(mask):
    """By scikit-image, all of equally large ones."""
    parts = components_of(mask, connectivity=3)
    sizes = np.bincount(parts[parts > 0], minlength=2)
    return np.isin(parts, np.flatnonzero(sizes == sizes.max()))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("group", [(1,), (3,), (2, 3), (1, 2, 3), (3, 77)])
def test_keeps_what_another_implementation_finds_largest(seed, group):
    label_map = blobs(seed)
    mask = np.isin(label_map, group)
    np.testing.assert_array_equal(kept(label_map, group), np.where(mask & ~largest_of(mask), 0, label_map))


def test_a_second_group_sees_what_the_first_left():
    label_map = blobs(5)
    assert not np.array_equal(kept(label_map, (1, 2, 3), (3,)), kept(label_map, (3,), (1, 2, 3)))
    np.testing.assert_array_equal(kept(label_map, (1, 2, 3), (3,)), kept(kept(label_map, (1, 2, 3)), (3,)))


def test_voxels_that_share_a_corner_are_connected():
    label_map = np.zeros((6, 6, 6), np.uint8)
    label_map[1, 1, 1] = label_map[2, 2, 2] = label_map[3, 3, 3] = 4
    label_map[5, 5, 0] = label_map[5, 4, 0] = 4
    cleaned = kept(label_map, (4,))
    assert cleaned[2, 2, 2] == 4 and cleaned.sum() == 12


@pytest.mark.parametrize("turned", [lambda a: a[::-1], lambda a: a[:, ::-1, ::-1], lambda a: a.transpose(2, 0, 1)])
def test_does_not_depend_on_how_voxels_are_stored(turned):
    label_map = blobs(1)
    label_map[label_map == 3] = 0
    label_map[0, 0, 0] = label_map[-1, -1, -1] = 3  # equally large
    np.testing.assert_array_equal(turned(kept(label_map, (3,), (1,))), kept(turned(label_map), (3,), (1,)))
    assert (kept(label_map, (3,)) == 3).sum() == 2


def test_values_that_are_not_there_and_empty_maps_are_left_alone():
    label_map = np.zeros((3, 4, 5), np.uint16)
    assert not kept(label_map, (1,), (2, 3)).any()
    label_map[1, 2, 3] = 60_000
    np.testing.assert_array_equal(kept(label_map, (60_000,), (5,)), label_map)
