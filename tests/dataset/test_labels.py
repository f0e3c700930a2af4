"""Codings of label values, and what their names say."""

from __future__ import annotations

import numpy as np
import pytest

from swinssl.dataset.labels import LabelSet

LABELS = LabelSet(names=("a", "b"), values=((3,), (7,)), ignore_value=9)


def test_codes_and_back():
    raw = np.array([0, 3, 7, 9, 3])
    codes = LABELS.encode(raw)
    assert codes.tolist() == [0, 1, 2, LABELS.ignore_code, 1] and codes.dtype == np.uint8
    assert np.array_equal(LABELS.decode(codes), raw)
    assert LABELS.decode(np.array([LABELS.outside_code])).tolist() == [0]


def test_many_values_take_uint16():
    many = LabelSet(names=tuple(f"s{i}" for i in range(300)), values=tuple((i + 1,) for i in range(300)))
    raw = np.arange(301)
    assert many.encode(raw).dtype == np.uint16 and np.array_equal(many.decode(many.encode(raw)), raw)


@pytest.mark.parametrize("raw", [[1], [-1], [10], [3.4], [np.nan], [np.inf], [6.998]])
def test_undeclared_or_fractional_values_are_refused(raw):
    with pytest.raises(ValueError, match="values"):
        LABELS.encode(np.array(raw))


def test_whole_numbers_in_floats_pass():
    assert LABELS.encode(np.array([3.0, 7.0001, 0.0])).tolist() == [1, 2, 0]


def test_output_to_raw():
    assert LABELS.output_to_raw(np.array([0, 1, 2])).tolist() == [0, 3, 7]
    regions = LabelSet(names=("w", "c"), values=((1, 2), (2,)), regions=True, region_order=(1, 2))
    masks = np.array([[1, 1, 0, 0], [0, 1, 1, 0]], bool)
    assert regions.output_to_raw(masks).tolist() == [1, 2, 2, 0]  # the later region overwrites


def test_tumour_like():
    labels = LabelSet(names=("GTV_1", "liver", "lung_tumor", "massive"), values=((1,), (2,), (3,), (4,)))
    assert labels.tumour_like == (True, False, True, False)
