"""Bootstrap intervals: against scipy's, against the coverage they promise, and at the edges."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from swinssl.evaluation.bootstrap import bootstrap_interval, ratio_of_sums


def mean_of(values):
    values = np.asarray(values, float)
    return ratio_of_sums(values, np.ones(len(values)))


@pytest.mark.parametrize("draw", ["normal", "lognormal"])
def test_the_interval_of_a_mean_is_scipys(draw):
    values = getattr(np.random.default_rng(1), draw)(size=30)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", random_state=2)
    ours = bootstrap_interval(mean_of(values), 30)
    # Ends of 2000 resamples scatter by about 4 % of a standard error.
    assert ours == pytest.approx(tuple(theirs.confidence_interval), abs=0.2 * values.std() / np.sqrt(30))


def test_nineteen_of_twenty_intervals_hold_the_truth():
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(300):
        values = rng.normal(size=25)
        low, high = bootstrap_interval(mean_of(values), 25)
        held += low <= 0 <= high
    # 95 % less what 25 cases cost (about 2 %), within three standard errors of 300 trials.
    assert 0.89 <= held / 300 <= 0.98


def test_a_ratio_is_resampled_by_case():
    """Found lesions over all lesions: a case with many counts as much as it has."""
    found, there = np.array([9.0, 1, 0, 1, 2]), np.array([10.0, 1, 1, 2, 2])
    low, high = bootstrap_interval(ratio_of_sums(found, there), 5)
    assert 0 < low < found.sum() / there.sum() < high <= 1


def test_several_ratios_at_once():
    numerators, denominators = np.array([[1.0, 2], [3, 4]]), np.array([[2.0, 2], [2, 2]])
    assert ratio_of_sums(numerators, denominators)(np.array([[1.0, 3]])).tolist() == [[10 / 8, 14 / 8]]


def test_the_same_cases_give_the_same_interval():
    values = [0.8, 0.7, 0.9, 0.85, 0.6]
    assert bootstrap_interval(mean_of(values), 5) == bootstrap_interval(mean_of(values), 5)
    assert bootstrap_interval(mean_of(values), 5, seed=1) != bootstrap_interval(mean_of(values), 5)


@pytest.mark.parametrize("cases", [1, 2])
def test_two_cases_have_no_interval(cases):
    assert bootstrap_interval(mean_of([0.5, 0.9][:cases]), cases) is None


def test_equal_values_have_a_point():
    assert bootstrap_interval(mean_of([0.75] * 6), 6) == (0.75, 0.75)


def test_an_undefined_statistic_has_no_interval():
    assert bootstrap_interval(ratio_of_sums(np.zeros(5), np.zeros(5)), 5) is None
