"""Lesions one by one: which are found, which are true, by the rule of a tenth."""

from __future__ import annotations

import numpy as np
import pytest
from support.shapes import box

from swinssl.metrics.lesions import LesionCounts, count_lesions

SHAPE = (6, 20, 20)


def boxes(*places):
    return np.any([box(SHAPE, start, size) for start, size in places], axis=0) if places else np.zeros(SHAPE, bool)


A, B, C = ((1, 1, 1), (2, 3, 3)), ((1, 10, 1), (2, 3, 3)), ((3, 12, 12), (2, 4, 4))


@pytest.mark.parametrize(
    ("reference", "prediction", "expected"),
    [
        ([A, B, C], [A, B, C], LesionCounts(3, 3, 3, 3)),
        ([A, B], [A], LesionCounts(2, 1, 1, 1)),
        ([A], [A, B, C], LesionCounts(1, 1, 3, 1)),
        ([A, B], [], LesionCounts(2, 0, 0, 0)),
        ([], [A, B], LesionCounts(0, 0, 2, 0)),
        ([], [], LesionCounts(0, 0, 0, 0)),
    ],
    ids=["all", "one missed", "two false", "none predicted", "none there", "neither"],
)
def test_lesions_are_counted_one_by_one(reference, prediction, expected):
    assert count_lesions(boxes(*reference), boxes(*prediction)) == expected


def test_one_prediction_over_two_lesions_finds_both():
    reference, prediction = boxes(((1, 1, 1), (2, 3, 3)), ((1, 1, 6), (2, 3, 3))), boxes(((1, 1, 1), (2, 3, 8)))
    assert count_lesions(reference, prediction) == LesionCounts(2, 2, 1, 1)


def test_a_lesion_predicted_in_two_pieces_is_found_once_by_two_true_ones():
    reference, prediction = boxes(((1, 1, 1), (2, 3, 8))), boxes(((1, 1, 1), (2, 3, 3)), ((1, 1, 6), (2, 3, 3)))
    assert count_lesions(reference, prediction) == LesionCounts(1, 1, 2, 2)


def test_everything_predicted_finds_all_and_is_false():
    assert count_lesions(boxes(A, B), np.ones(SHAPE, bool)) == LesionCounts(2, 2, 1, 0)


@pytest.mark.parametrize(("voxels", "found"), [(1, 0), (2, 1)])
def test_a_tenth_of_the_lesion_must_be_covered(voxels, found):
    reference = boxes(((1, 1, 1), (1, 1, 20 - 1)))  # 19 voxels: a tenth is 1.9
    prediction = boxes(((1, 1, 1), (1, 1, voxels)))
    assert count_lesions(reference, prediction).found == found


def test_voxels_that_share_a_corner_are_one_lesion():
    assert count_lesions(boxes(((1, 1, 1), (1, 1, 1)), ((2, 2, 2), (1, 1, 1))), boxes()).reference == 1


def test_rates_by_hand():
    counts = LesionCounts(reference=4, found=3, predicted=6, true=3)
    assert (counts.sensitivity, counts.precision, counts.f1) == (0.75, 0.5, pytest.approx(0.6))


@pytest.mark.parametrize(
    ("counts", "rates"),
    [
        (LesionCounts(0, 0, 0, 0), (None, None, None)),
        (LesionCounts(2, 0, 0, 0), (0, None, 0)),
        (LesionCounts(0, 0, 2, 0), (None, 0, 0)),
    ],
)
def test_rates_without_lesions(counts, rates):
    assert (counts.sensitivity, counts.precision, counts.f1) == rates
