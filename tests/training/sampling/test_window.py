"""Where windows may lie, and which of them are free of tumour: against plain loops over every start."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from swinssl.training.sampling.tumour_windows import WindowStarts, least_tumour_starts, lesions, tumour_free_starts
from swinssl.training.sampling.window import start_ranges, start_showing


@pytest.mark.parametrize(
    ("length", "patch", "overhang", "expected"),
    [
        (100, 32, 0.0, (0, 68)),
        (32, 32, 0.0, (0, 0)),
        (20, 32, 0.0, (-12, 0)),  # smaller than the patch: all of the volume is seen, its place is free
        (100, 32, 0.5, (-16, 84)),  # the window's centre stays in the volume
        (20, 32, 0.5, (-16, 4)),
        (4, 32, 0.5, (-28, 0)),
        (100, 32, 0.25, (-8, 76)),
    ],
)
def test_start_range(length, patch, overhang, expected):
    assert start_ranges((length,) * 3, (patch,) * 3, overhang=overhang) == (expected,) * 3


def test_a_voxel_is_shown_at_every_allowed_place_equally_often():
    ranges = start_ranges((60, 60, 60), (16, 16, 16), overhang=0)
    generator = np.random.default_rng(0)
    voxel = (30, 3, 59)  # deep inside, near the lower face, on the upper face
    places = np.array(
        [
            np.subtract(voxel, start_showing(generator, voxel, patch_size=(16, 16, 16), ranges=ranges))
            for _ in range(4000)
        ]
    )
    assert stats.chisquare(np.bincount(places[:, 0], minlength=16)).pvalue > 0.01
    assert set(places[:, 1]) == {0, 1, 2, 3}
    assert set(places[:, 2]) == {15}


def brute_force_counts(mask, patch, ranges):
    padded = {}
    for start in itertools.product(*(range(low, high + 1) for low, high in ranges)):
        window = tuple(slice(max(s, 0), max(s + p, 0)) for s, p in zip(start, patch, strict=True))
        padded[start] = int(mask[window].sum())
    return padded


@pytest.mark.parametrize("overhang", [0.0, 0.25, 0.5])
@pytest.mark.parametrize(
    ("shape", "patch"), [((9, 11, 13), (4, 4, 4)), ((6, 20, 9), (8, 6, 8)), ((5, 5, 5), (8, 8, 8))]
)
def test_tumour_free_and_least_tumour_windows_equal_a_loop_over_all(shape, patch, overhang):
    generator = np.random.default_rng(sum(shape))
    ranges = start_ranges(shape, patch, overhang=overhang)
    for density in (0.0, 0.002, 0.01, 0.1, 1.0):
        mask = generator.random(shape) < density
        counts = brute_force_counts(mask, patch, ranges)
        free = tumour_free_starts(mask, patch, ranges)
        assert members(free) == {start for start, n in counts.items() if n == 0}
        least, starts = least_tumour_starts(mask, patch, ranges)
        assert least == min(counts.values())
        assert members(starts) == {start for start, n in counts.items() if n == least}


def members(starts):
    """Every start of a set, from its runs alone."""
    grid = [high - low + 1 for low, high in starts.ranges]
    lengths = np.diff(starts.counts, prepend=0)
    flat = [f + i for f, n in zip(starts.firsts, lengths, strict=True) for i in range(n)]
    assert len(flat) == len(starts)
    return {
        tuple(int(i) + low for i, (low, _) in zip(np.unravel_index(f, grid), starts.ranges, strict=True)) for f in flat
    }


def test_a_start_set_is_drawn_from_uniformly():
    chosen = np.random.default_rng(3).random((4, 5, 6)) < 0.3
    starts = WindowStarts.of(chosen, ((-2, 1), (0, 4), (3, 8)))
    generator = np.random.default_rng(0)
    drawn = [starts.draw(generator) for _ in range(5000)]
    expected = {(z - 2, y, x + 3) for z, y, x in np.argwhere(chosen).tolist()}
    assert set(drawn) == expected
    every = itertools.product(range(-2, 2), range(5), range(3, 9))
    assert {start for start in every if start in starts} == expected
    counts = [drawn.count(start) for start in sorted(expected)]
    assert stats.chisquare(counts).pvalue > 0.01


def test_lesions_are_the_components_that_touch_by_a_corner():
    mask = np.zeros((8, 9, 10), bool)
    mask[1, 1, 1] = mask[2, 2, 2] = True  # one lesion, by a corner
    mask[5:7, 5:8, 5] = True
    mask[7, 0, 9] = True
    found = [{tuple(map(int, np.unravel_index(i, mask.shape))) for i in lesion} for lesion in lesions(mask)]
    assert sorted(map(len, found)) == [1, 2, 6]
    assert {(1, 1, 1), (2, 2, 2)} in found
    assert set.union(*found) == set(map(tuple, np.argwhere(mask).tolist()))
    assert lesions(np.zeros((3, 3, 3), bool)) == ()
