"""Paired tests: against scipy, against counting every possibility, and at the edges."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from swinssl.evaluation.statistics.paired_tests import (
    hodges_lehmann,
    hodges_lehmann_interval,
    holm,
    paired_wilcoxon,
    smallest_p,
)


def drawn(n, seed, *, shift=0.3):
    return np.random.default_rng(seed).normal(shift, 1, n)


@pytest.mark.parametrize("n", [1, 4, 9, 20, 45])
@pytest.mark.parametrize("seed", range(3))
def test_without_ties_p_is_scipys_exact_one(n, seed):
    differences = drawn(n, seed)
    assert paired_wilcoxon(differences) == pytest.approx(stats.wilcoxon(differences, method="exact").pvalue)


@pytest.mark.parametrize("seed", range(5))
def test_with_ties_p_counts_every_choice_of_signs(seed):
    differences = np.random.default_rng(seed).integers(-3, 4, 11).astype(float)
    kept = differences[differences != 0]
    ranks = stats.rankdata(np.abs(kept))
    observed = ranks[kept > 0].sum()
    sums = np.array([ranks[list(signs)].sum() for signs in itertools.product([False, True], repeat=len(kept))])
    expected = min(1.0, 2 * min((sums <= observed).mean(), (sums >= observed).mean()))
    assert paired_wilcoxon(differences) == pytest.approx(expected)


def test_p_does_not_depend_on_who_is_first():
    differences = drawn(15, 7)
    assert paired_wilcoxon(differences) == pytest.approx(paired_wilcoxon(-differences))


def test_many_cases_come_near_the_normal_approximation():
    differences = drawn(300, 8, shift=0.1)
    theirs = stats.wilcoxon(differences, method="approx").pvalue
    assert paired_wilcoxon(differences) == pytest.approx(theirs, rel=0.02)


def test_cases_that_are_equal_say_nothing():
    assert paired_wilcoxon([0.0, 0.0, 0.0]) == 1.0
    assert paired_wilcoxon([0.0, 1, 2, 3, 4, 5, 6]) == paired_wilcoxon([1, 2, 3, 4, 5, 6])


@pytest.mark.parametrize("n", [1, 5, 6, 20])
def test_no_p_is_smaller_than_the_smallest(n):
    assert paired_wilcoxon(np.arange(1, n + 1)) == pytest.approx(smallest_p(n))


def test_under_the_null_hypothesis_one_test_in_twenty_is_significant():
    p = [paired_wilcoxon(drawn(12, seed, shift=0)) for seed in range(600)]
    # The exact test's size at 12 cases is 0.0425; three standard errors of 600 trials.
    assert 0.0425 - 0.025 < np.mean(np.array(p) < 0.05) < 0.0425 + 0.025


@pytest.mark.parametrize("n", [1, 2, 7, 16])
def test_the_estimate_is_the_median_of_all_means_of_two(n):
    differences = drawn(n, n)
    means = [(a + b) / 2 for a, b in itertools.combinations_with_replacement(differences, 2)]
    assert hodges_lehmann(differences) == pytest.approx(np.median(means))


def test_one_odd_case_hardly_moves_the_estimate():
    differences = np.full(15, 0.02)
    differences[3] = -5
    assert hodges_lehmann(differences) == pytest.approx(0.02)


def test_the_interval_resamples_cases():
    """Every resample's estimate, computed from the cases written out, gives the interval's quantiles."""
    differences = drawn(12, 5)
    low, high = hodges_lehmann_interval(differences)
    rng = np.random.default_rng(0)
    found = [hodges_lehmann(rng.choice(differences, 12)) for _ in range(2000)]
    # BCa moves the plain quantiles a little; both scatter.
    tolerance = 0.3 * np.std(found)
    assert (low, high) == pytest.approx(tuple(np.quantile(found, [0.025, 0.975])), abs=tolerance)
    assert low < hodges_lehmann(differences) < high


def test_two_cases_have_no_interval():
    assert hodges_lehmann_interval([0.1, 0.2]) is None


def test_holm_corrects_the_smallest_most():
    # By hand: 0.01 * 4, 0.02 * 3, 0.03 * 2 (not below the one before), 0.5 * 1; in the order given.
    assert holm([0.02, 0.5, 0.01, 0.03]) == pytest.approx((0.06, 0.5, 0.04, 0.06))


def test_holm_of_one_test_changes_nothing_and_none_exceeds_one():
    assert holm([0.03]) == (0.03,)
    assert holm([0.6, 0.9]) == (1.0, 1.0)
    assert holm([]) == ()


@pytest.mark.parametrize("differences", [[], [0.1, float("nan")], [[0.1, 0.2]]])
def test_what_is_no_row_of_differences_is_refused(differences):
    with pytest.raises(ValueError, match="one finite difference a case"):
        paired_wilcoxon(differences)
