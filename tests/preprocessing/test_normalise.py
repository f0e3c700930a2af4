"""Normalisation schemes against their formulas."""

from __future__ import annotations

import numpy as np
import pytest

from swinssl.preprocessing.normalise import normalise
from swinssl.preprocessing.plans import Intensity

WINDOW = Intensity(scheme="window", low=-175, high=250)
PERCENTILE = Intensity(scheme="percentile", low=5, high=95)
ZSCORE = Intensity(scheme="zscore")


def channel(values):
    return np.array(values, np.float32).reshape(1, 1, 1, -1)


def normalised(*arguments, **options):
    """All planes of all channels."""
    return np.stack([own[:] for own in normalise(*arguments, **options)])


def test_window_clips_and_scales():
    found = normalised(channel([-1000, -175, 37.5, 250, 3000]), [WINDOW])
    assert found.ravel().tolist() == [0, 0, 0.5, 1, 1]


@pytest.mark.parametrize(
    ("zeros", "counted"),
    [(50, "non-zero"), (5, "non-zero"), (4, "all"), (0, "all")],  # of 100 voxels
)
def test_percentiles_leave_out_the_void_where_there_is_one(zeros, counted):
    values = np.concatenate([np.zeros(zeros), np.linspace(100, 300, 100 - zeros)])
    low, high = np.percentile(values[zeros:] if counted == "non-zero" else values, [5, 95])
    found = normalised(channel(values), [PERCENTILE]).ravel()
    assert np.allclose(found, np.clip((values - low) / (high - low), 0, 1), atol=1e-6)


def test_zscore_with_a_large_mean_keeps_its_digits():
    values = 1e6 + np.arange(1000) % 7
    found = normalised(channel(values), [ZSCORE]).ravel().astype(np.float64)
    assert np.allclose(found, (values - values.mean()) / values.std(), atol=1e-5)


def test_inside_the_mask_only():
    values = np.array([0, 0, 10, 20, 30, 0.0])
    mask = np.array([0, 0, 1, 1, 1, 1], bool).reshape(1, 1, -1)
    found = normalised(channel(values), [Intensity(scheme="zscore", inside_mask=True)], mask=mask).ravel()
    inside = values[2:]
    expected = np.array([0, 0, *((inside - inside.mean()) / inside.std())])
    assert np.allclose(found, expected, atol=1e-6)
    assert (found[:2] == 0).all()


@pytest.mark.parametrize("value", [0.0, 5.0, -1000.0, 1.7e6])
@pytest.mark.parametrize("how", [PERCENTILE, ZSCORE, Intensity(scheme="percentile", low=5, high=95, inside_mask=True)])
def test_constant_image_becomes_zero(value, how):
    mask = np.full((1, 1, 8), value != 0)
    found = normalised(channel([value] * 8), [how], mask=mask)
    assert (found == 0).all()


def test_few_bright_voxels_among_equal_ones_are_kept():
    values = np.full(200, 7.0)
    values[3] = 9.0
    found = normalised(channel(values), [PERCENTILE]).ravel()
    assert found[3] == 1 and (np.delete(found, 3) == 0).all()


def test_channels_have_their_own_schemes_and_the_input_stays():
    image = np.stack([np.full((2, 2, 2), 250.0), np.arange(8.0).reshape(2, 2, 2)]).astype(np.float32)
    kept = image.copy()
    found = normalised(image, [WINDOW, Intensity(scheme="none")])
    assert (found[0] == 1).all() and np.array_equal(found[1], image[1])
    assert np.array_equal(image, kept) and not np.shares_memory(found, image)


def test_every_scheme_but_zscore_and_none_ends_in_the_unit_interval():
    image = np.random.default_rng(0).normal(size=(2, 4, 5, 6)).astype(np.float32) * 1e5
    found = normalised(image, [WINDOW, PERCENTILE])
    assert found.min() == 0 and found.max() == 1


def test_a_missing_mask_is_a_mistake():
    with pytest.raises(ValueError, match="non-zero mask"):
        normalised(channel([1, 2]), [Intensity(scheme="zscore", inside_mask=True)])


def test_planes_asked_for_a_few_at_a_time_are_those_of_the_whole():
    image = np.random.default_rng(0).normal(100, 40, (1, 9, 4, 5)).astype(np.int16)
    mask = image[0] > 90
    (own,) = normalise(image, [Intensity(scheme="zscore", inside_mask=True)], mask=mask)
    assert np.array_equal(np.concatenate([own[:4], own[4:]]), own[:])
    assert np.array_equal(own[np.array([7, 2, 2])], own[:][[7, 2, 2]])
    assert (own[:][~mask] == 0).all() and own[:].dtype == np.float32
