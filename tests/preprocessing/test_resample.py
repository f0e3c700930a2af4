"""Resampling against nnU-Net's definition, written here once more with skimage, scipy and batchgenerators."""

from __future__ import annotations

import numpy as np
import pytest
from batchgenerators.augmentations.utils import resize_segmentation
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.transform import resize

from swinssl.preprocessing.axis_operator import apply_along, apply_to_planes
from swinssl.preprocessing.resample import resample_image, resample_label, resampled_shape, separate_z_axis

# (old shape, new shape): up, down, both, primes, few slices, one voxel, one axis unchanged, sizes past one band of 64.
SHAPES = [
    ((12, 15, 18), (24, 30, 36)),
    ((24, 30, 36), (12, 15, 18)),
    ((17, 23, 31), (29, 11, 37)),
    ((2, 40, 40), (5, 33, 47)),
    ((1, 9, 14), (4, 20, 7)),
    ((9, 14, 1), (3, 5, 6)),
    ((13, 20, 22), (13, 31, 22)),
    ((6, 70, 150), (7, 190, 67)),
    ((10, 11, 12), (1, 1, 1)),
]
ALONG = [None, 0, 1, 2]


def reference_resample(array, new_shape, *, resize_fn, axis, order_z):
    """Spec 1.5: slice by slice in plane with `resize_fn`, then along `axis` by map_coordinates; else all at once."""
    if axis is None:
        return resize_fn(array, new_shape)
    moved = np.moveaxis(array, axis, 0)
    plane = [n for i, n in enumerate(new_shape) if i != axis]
    stack = np.stack([resize_fn(piece, plane) for piece in moved])
    if len(stack) != new_shape[axis]:
        rows = (np.arange(new_shape[axis]) + 0.5) * (len(stack) / new_shape[axis]) - 0.5
        grid = np.meshgrid(rows, *(np.arange(n) for n in plane), indexing="ij")
        stack = ndimage.map_coordinates(stack, grid, order=order_z, mode="nearest")
    return np.moveaxis(stack, 0, axis)


def reference_image(array, new_shape, *, order, axis=None, order_z=0):
    def spline(part, shape):
        return resize(part, shape, order, mode="edge", anti_aliasing=False, preserve_range=True, clip=True)

    wide = array.astype(np.float64)
    return reference_resample(wide, new_shape, resize_fn=spline, axis=axis, order_z=order_z)


def reference_label(codes, new_shape, *, axis=None):
    def indicator(part, shape):
        return resize_segmentation(part, shape, order=1)

    return reference_resample(codes, new_shape, resize_fn=indicator, axis=axis, order_z=0)


def noise(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def blobs(shape, labels, seed=0, smooth=1.5):
    """A label map with curved boundaries where two and more labels meet."""
    rng = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(rng.normal(size=shape), smooth, mode="nearest") for _ in range(labels)]
    return np.argmax(fields, axis=0).astype(np.uint8)


class TestImage:
    @pytest.mark.parametrize(("old", "new"), SHAPES)
    @pytest.mark.parametrize("order", [0, 1, 3])
    def test_equals_skimage_to_float32_rounding(self, old, new, order):
        array = noise((2, *old))
        expected = [reference_image(channel, new, order=order) for channel in array]
        found = resample_image(array, new, order=order)
        assert found.dtype == np.float32
        assert np.abs(found - expected).max() <= 2e-6 * np.ptp(array)

    @pytest.mark.parametrize(("old", "new"), SHAPES)
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_separate_axis_equals_nnunet(self, old, new, axis):
        array = noise(old)
        expected = reference_image(array, new, order=3, axis=axis)
        found = resample_image(array[None], new, order=3, separate_z_axis=axis)[0]
        assert np.abs(found - expected).max() <= 2e-6 * np.ptp(array)

    @pytest.mark.parametrize("order_z", [1, 3])
    def test_order_along_the_separate_axis(self, order_z):
        array = noise((7, 12, 15))
        expected = reference_image(array, (16, 20, 9), order=3, axis=0, order_z=order_z)
        found = resample_image(array[None], (16, 20, 9), order=3, separate_z_axis=0, order_z=order_z)[0]
        assert np.abs(found - expected).max() <= 2e-6 * np.ptp(array)

    @settings(max_examples=40, deadline=None)
    @given(
        old=st.tuples(*[st.integers(1, 21)] * 3),
        new=st.tuples(*[st.integers(1, 21)] * 3),
        axis=st.sampled_from(ALONG),
    )
    def test_any_shape(self, old, new, axis):
        array = noise(old)
        expected = reference_image(array, new, order=3, axis=axis) if old != new else array
        found = resample_image(array[None], new, separate_z_axis=axis)[0]
        assert np.abs(found - expected).max() <= 3e-6 * max(np.ptp(array), 1)

    def test_identical_shape_changes_nothing(self):
        array = noise((2, 5, 6, 7))
        for axis in ALONG:
            assert np.array_equal(resample_image(array, (5, 6, 7), separate_z_axis=axis), array)

    def test_stays_inside_the_range_of_each_channel(self):
        step = np.zeros((2, 8, 8, 8), np.float32)
        step[0, 4:] = 1000.0
        step[1, 4:] = 1.0
        found = resample_image(step, (20, 20, 20))
        assert found[0].min() == 0 and found[0].max() == 1000.0
        assert found[1].min() == 0 and found[1].max() == 1.0

    def test_does_not_change_its_input(self):
        array = noise((1, 6, 7, 8))
        kept = array.copy()
        for axis in ALONG:
            resample_image(array, (6, 9, 10), separate_z_axis=axis)
        assert np.array_equal(array, kept)

    def test_another_order_is_refused(self):
        with pytest.raises(ValueError, match="spline order 2"):
            resample_image(noise((1, 4, 4, 4)), (5, 5, 5), order=2)


class TestLabel:
    @pytest.mark.parametrize(("old", "new"), SHAPES)
    @pytest.mark.parametrize("axis", ALONG)
    def test_equals_batchgenerators(self, old, new, axis):
        codes = blobs(old, labels=6)
        assert np.array_equal(resample_label(codes, new, separate_z_axis=axis), reference_label(codes, new, axis=axis))

    @settings(max_examples=60, deadline=None)
    @given(old=st.tuples(*[st.integers(1, 16)] * 3), new=st.tuples(*[st.integers(1, 16)] * 3), seed=st.integers(0, 99))
    def test_any_shape_and_noise(self, old, new, seed):
        # Noise has a boundary in every cell, and even factors tie often; ties hang on the last bit of float64.
        codes = np.random.default_rng(seed).integers(0, 9, old).astype(np.uint8)
        assert np.array_equal(resample_label(codes, new), reference_label(codes, new))

    def test_three_labels_below_one_half_leave_no_hole(self):
        # The middle of four labels in a plane: each has a quarter, so a threshold of one half would find none.
        codes = np.array([[[1, 2], [3, 4]]], np.uint8)
        found = resample_label(np.repeat(codes, 2, axis=0), (1, 1, 1))
        assert found.item() == 4  # a tie, and the nearest voxel is the upper one

    def test_ties_without_the_nearest_go_to_the_smallest_and_outside_counts_as_smallest(self):
        cell = np.array([3, 1, 1, 1, 2, 2, 2, 3], np.uint8).reshape(2, 2, 2)
        assert resample_label(cell, (1, 1, 1)).item() == 1
        outside = np.where(cell == 2, 255, cell).astype(np.uint8)
        assert resample_label(outside, (1, 1, 1)).item() == 255

    def test_uint16_codes(self):
        codes = blobs((9, 10, 11), labels=4).astype(np.uint16) * 20000
        found = resample_label(codes, (13, 8, 15))
        assert found.dtype == np.uint16
        assert np.array_equal(found, reference_label(codes, (13, 8, 15)))

    def test_order_zero_takes_the_nearest(self):
        codes = blobs((7, 8, 9), labels=5)
        assert np.array_equal(
            resample_label(codes, (10, 5, 9), order=0), resize_segmentation(codes, (10, 5, 9), order=0)
        )

    def test_slabs_do_not_show(self, monkeypatch):
        codes = blobs((20, 21, 22), labels=5)
        whole = resample_label(codes, (31, 18, 25))
        monkeypatch.setattr("swinssl.preprocessing.label_vote.VOXELS_AT_ONCE", 1000)
        assert np.array_equal(resample_label(codes, (31, 18, 25)), whole)


@pytest.mark.parametrize(
    ("spacing", "new_spacing", "force", "axis"),
    [
        ((5, 1, 1), (2, 1, 1), None, 0),  # current spacing decides
        ((3, 1, 1), (1, 1, 1), None, None),  # a factor of exactly 3 is not more than 3
        ((1, 1, 1), (1, 1, 3.1), None, 2),  # else the new one
        ((1, 4, 1), (5, 1, 1), None, 1),  # current before new
        ((4, 4, 1), (5, 1, 1), None, None),  # two axes equally coarse, and the new spacing is not asked
        ((2, 1, 1), (1, 1, 1), True, 0),
        ((1, 1, 1), (5, 1, 1), True, None),  # three equally coarse
        ((9, 1, 1), (9, 1, 1), False, None),
    ],
)
def test_separate_axis_rule(spacing, new_spacing, force, axis):
    assert separate_z_axis(spacing, new_spacing, force=force) == axis


@pytest.mark.parametrize(
    ("shape", "spacing", "new_spacing", "expected"),
    [
        ((36, 50, 35), (1, 1, 1), (1, 1, 1), (36, 50, 35)),
        ((5, 5, 5), (1, 1, 1), (2, 2, 2), (2, 2, 2)),  # 2.5 rounds to the even 2, as Python and nnU-Net do
        ((1, 10, 10), (1, 1, 1), (5, 3, 0.5), (1, 3, 20)),  # never less than one voxel
    ],
)
def test_resampled_shape(shape, spacing, new_spacing, expected):
    assert resampled_shape(shape, spacing, new_spacing) == expected


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize(("length", "size"), [(5, 5), (1, 4), (7, 1), (40, 90), (160, 130), (200, 30)])
@pytest.mark.parametrize("at_once", [1, 16, 500])
def test_planes_that_come_a_few_at_a_time_give_the_same_to_the_bit(length, size, order, at_once):
    array = np.random.default_rng(0).normal(size=(length, 5, 7)).astype(np.float32)
    asked = []

    def parts():
        for start in range(0, length, at_once):
            asked.append(start)
            yield array[start : start + at_once]

    out = np.full((size, 5, 7), np.nan, np.float32)
    apply_to_planes(parts(), length, order=order, out=out)
    np.testing.assert_array_equal(out, apply_along(array, 0, size, order=order))
    assert asked == list(range(0, length, at_once))  # to the end, for the range of the values
