"""Tests of two groups: against scipy, against counting every possibility, and at the edges."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from swinssl.evaluation.statistics.unpaired_tests import mann_whitney, shift, shift_interval, smallest_unpaired_p


def groups(m, n, seed, *, apart=0.5):
    rng = np.random.default_rng(seed)
    return rng.normal(apart, 1, m), rng.normal(0, 1, n)


@pytest.mark.parametrize(("m", "n"), [(1, 1), (3, 5), (12, 8), (30, 30)])
def test_without_ties_p_is_scipys_exact_one(m, n):
    a, b = groups(m, n, m)
    assert mann_whitney(a, b) == pytest.approx(stats.mannwhitneyu(a, b, method="exact").pvalue)


@pytest.mark.parametrize("seed", range(4))
def test_with_ties_p_counts_every_choice_of_a_group(seed):
    values = np.random.default_rng(seed).integers(0, 4, 10).astype(float)
    ranks = stats.rankdata(values)
    sums = np.array([ranks[list(chosen)].sum() for chosen in itertools.combinations(range(10), 4)])
    observed = ranks[:4].sum()
    expected = min(1.0, 2 * min((sums <= observed).mean(), (sums >= observed).mean()))
    assert mann_whitney(values[:4], values[4:]) == pytest.approx(expected)


def test_many_patients_are_scipys_normal_approximation_and_near_the_exact_p():
    a, b = groups(40, 30, 2)
    assert mann_whitney(a, b) == stats.mannwhitneyu(a, b, method="asymptotic").pvalue
    assert mann_whitney(a, b) == pytest.approx(stats.mannwhitneyu(a, b, method="exact").pvalue, rel=0.1)


@pytest.mark.parametrize(("m", "n"), [(1, 3), (3, 3), (4, 4), (10, 20)])
def test_no_p_is_smaller_than_the_smallest(m, n):
    assert mann_whitney(np.arange(m) + 100.0, np.arange(n)) == pytest.approx(smallest_unpaired_p(m, n))


def test_the_shift_is_the_median_of_all_differences_and_moves_with_a_group():
    a, b = groups(9, 7, 3)
    assert shift(a, b) == pytest.approx(np.median([x - y for x in a for y in b]))
    assert shift(a + 2, b) == pytest.approx(shift(a, b) + 2)
    assert shift(b, a) == pytest.approx(-shift(a, b))


def test_nineteen_of_twenty_intervals_hold_the_shift():
    held = 0
    for seed in range(60):
        low, high = shift_interval(*groups(12, 15, seed, apart=1.0))
        held += low <= 1.0 <= high
    # Few patients cost some per cent; three standard errors of 60 trials.
    assert 0.85 <= held / 60 <= 1


def test_two_patients_have_no_interval():
    assert shift_interval([0.1, 0.2], [0.1, 0.2, 0.3]) is None


def test_nothing_is_no_group():
    with pytest.raises(ValueError, match="one finite value a patient"):
        mann_whitney([], [0.1])
