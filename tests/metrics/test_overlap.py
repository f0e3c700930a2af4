"""Counts of pairs of labels, against masks compared one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swinssl.metrics import overlap as module
from swinssl.metrics.overlap import Overlap, count_pairs


def by_masks(reference, prediction, members, ignore=None):
    """Mask by mask, as nnU-Net counts."""
    a, b = np.isin(reference, members), np.isin(prediction, members)
    counted = np.ones_like(a) if ignore is None else reference != ignore
    tp, fp, fn, tn = ((x & y & counted).sum() for x, y in ((a, b), (~a, b), (a, ~b), (~a, ~b)))
    return Overlap(int(tp), int(fp), int(fn), int(tn))


def label_maps(seed, highest, dtype=np.uint8, shape=(5, 6, 7)):
    rng = np.random.default_rng(seed)
    # Mostly background, as label maps are.
    reference, prediction = rng.integers(0, highest + 1, (2, *shape)) * (rng.random((2, *shape)) < 0.4)
    return reference.astype(dtype), prediction.astype(dtype)


@given(seed=st.integers(0, 10**6), highest=st.integers(1, 9), dtype=st.sampled_from([np.uint8, np.int16, np.uint32]))
@settings(max_examples=50, deadline=None)
def test_every_structure_counts_as_its_masks_do(seed, highest, dtype):
    reference, prediction = label_maps(seed, highest, dtype)
    pairs = count_pairs(reference, prediction)
    for members in [[value] for value in range(1, highest + 1)] + [[1, highest]]:
        assert pairs.overlap(members) == by_masks(reference, prediction, members)
        assert pairs.overlap(members, ignore=highest) == by_masks(reference, prediction, members, ignore=highest)


def test_slabs_do_not_change_the_counts(monkeypatch):
    reference, prediction = label_maps(3, 6, shape=(11, 9, 8))
    whole = count_pairs(reference, prediction).counts
    monkeypatch.setattr(module, "SLAB_VOXELS", 100)
    assert np.array_equal(count_pairs(reference, prediction).counts, whole)


def test_values_that_are_far_apart_need_no_large_table():
    reference, prediction = (np.array([0, 7, 65535])[array] for array in label_maps(5, 2))
    pairs = count_pairs(reference.astype(np.uint16), prediction.astype(np.uint16))
    assert pairs.values.tolist() == [0, 7, 65535] and pairs.counts.shape == (3, 3)
    assert pairs.overlap([65535]) == by_masks(reference, prediction, [65535])


def test_the_two_may_have_different_types():
    reference, prediction = label_maps(8, 4)
    assert np.array_equal(
        count_pairs(reference, prediction.astype(np.int64)).counts, count_pairs(reference, prediction).counts
    )


def test_what_each_map_has():
    pairs = count_pairs(np.array([[[0, 1, 1]]]), np.array([[[2, 1, 0]]]))
    assert (pairs.reference_values, pairs.prediction_values) == ([0, 1], [0, 1, 2])


def test_dice_and_iou_by_hand():
    overlap = Overlap(tp=6, fp=2, fn=4, tn=88)
    assert (overlap.dice, overlap.iou) == (12 / 18, 6 / 12)
    assert (overlap.n_reference, overlap.n_prediction) == (10, 8)


@pytest.mark.parametrize(("fp", "fn"), [(3, 0), (0, 3)])
def test_one_empty_map_scores_zero(fp, fn):
    assert (Overlap(0, fp, fn, 9).dice, Overlap(0, fp, fn, 9).iou) == (0, 0)


def test_two_empty_maps_have_no_score():
    empty = np.zeros((2, 3, 4), np.uint8)
    overlap = count_pairs(empty, empty).overlap([1])
    assert overlap == Overlap(0, 0, 0, 24) and overlap.dice is None and overlap.iou is None


@pytest.mark.parametrize(
    ("reference", "prediction", "message"),
    [
        (np.zeros((1, 1, 2), np.uint8), np.zeros((1, 1, 3), np.uint8), "shapes differ"),
        (np.zeros((1, 1, 2)), np.zeros((1, 1, 2), np.uint8), "integers"),
        (np.full((1, 1, 2), -1), np.zeros((1, 1, 2), int), "-1"),
    ],
)
def test_what_is_no_label_map_is_refused(reference, prediction, message):
    with pytest.raises(ValueError, match=message):
        count_pairs(reference, prediction)
