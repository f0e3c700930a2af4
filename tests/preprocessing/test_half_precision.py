"""Float16 as numpy makes it, bit for bit, but for the numbers that have lost their digits."""

from __future__ import annotations

import numpy as np
import pytest

from swinssl.preprocessing.store import AT_ONCE, LEAST, MOST, is_half_enough, to_half

SMALLEST = 2.0**-14


def is_numpys(values):
    expected = np.where(np.abs(values) < SMALLEST, np.float16(0), values.astype(np.float16))
    found = to_half(values)
    assert found.dtype == np.float16 and found.shape == values.shape
    return np.array_equal(found.view(np.uint16), expected.view(np.uint16))


def test_every_number_of_float16_and_what_lies_just_beside_the_middle_of_two():
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    every = np.sort(every[np.isfinite(every)].astype(np.float32))
    middles = ((every[1:].astype(float) + every[:-1]) / 2).astype(np.float32)
    above, below = (np.nextafter(middles, np.float32(end)) for end in (np.inf, -np.inf))
    assert is_numpys(np.concatenate([every, middles, above, below]))


def test_numbers_of_all_magnitudes():
    exponents = np.random.default_rng(0).uniform(-30, np.log2(MOST), 3 * AT_ONCE + 7)
    assert is_numpys((2.0**exponents).astype(np.float32)) and is_numpys(-(2.0**exponents).astype(np.float32))
    assert is_numpys(np.array([0, -0.0, SMALLEST, -SMALLEST, np.nextafter(np.float32(SMALLEST), 0)], np.float32))


@pytest.mark.parametrize("shape", [(0,), (), (3, 0, 2), (2, 5, 7)])
def test_any_shape_and_order_in_memory(shape):
    values = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    assert is_numpys(values) and is_numpys(values.T)


@pytest.mark.parametrize(
    ("largest", "enough"), [(0, True), (LEAST, True), (MOST, True), (LEAST * 0.99, False), (MOST * 1.01, False)]
)
@pytest.mark.parametrize("sign", [1, -1])
def test_an_image_whose_values_float16_would_spoil_is_no_half(largest, enough, sign):
    """Of 0.001 float16 has ten digits, but of a value a hundred times smaller only a few."""
    assert is_half_enough(np.array([0, sign * largest / 100, sign * largest], np.float32)) is enough


def test_what_becomes_zero_is_less_than_the_largest_value_is_rounded_by():
    spacing = float(np.spacing(np.float16(LEAST)))
    assert spacing / 2 >= SMALLEST
