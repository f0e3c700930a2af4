"""Bootstrap intervals: against scipy's, against the coverage they promise, and at the edges."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from swinssl.evaluation.statistics.bootstrap import bootstrap_interval, ratio_of_sums, two_way_bootstrap


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


def simulated(rng, draws, cases, *, of_draw, of_case, rest):
    """Differences around 0 that vary by draw of the training cases, by test case, and otherwise."""
    shape = (draws, cases)
    by_draw, by_case = rng.normal(size=(draws, 1)), rng.normal(size=(1, cases))
    return of_draw * by_draw + of_case * by_case + rest * rng.normal(size=shape)


class TestTwoWay:
    def test_it_is_a_plain_loop_over_resampled_draws_and_cases(self):
        """An implementation that shares nothing with ours but the formula; draws lack some cases."""
        rng = np.random.default_rng(5)
        values = simulated(rng, 6, 12, of_draw=0.02, of_case=0.03, rest=0.03) + 0.03
        values[0, 3:6] = values[4, :5] = np.nan

        def estimate(rows, columns):
            means = [np.nanmean([values[k, i] for i in columns]) for k in rows]
            return float(np.mean(means))

        every_row, every_column = range(6), range(12)
        some = [(rng.integers(6, size=6), rng.integers(12, size=12)) for _ in range(3000)]
        a = np.var([estimate(rows, every_column) for rows, _ in some])
        c = np.var([estimate(every_row, columns) for _, columns in some])
        v = np.var([estimate(rows, columns) for rows, columns in some])
        big_a, big_c = a * 6 / 5, c * 12 / 11
        error = np.sqrt(v * (big_a + big_c) / (a + c))
        degrees = (big_a + big_c) ** 2 / (big_a**2 / 5 + big_c**2 / 11)
        reach = stats.t.ppf(0.975, degrees) * error
        found, mean = two_way_bootstrap(values), estimate(every_row, every_column)
        assert found.mean == pytest.approx(mean) and (found.draws, found.cases) == (6, 12)
        # Both are of some thousand resamples: a standard error of 2 % or less.
        assert found.standard_error == pytest.approx(error, rel=0.06)
        assert found.interval == pytest.approx((mean - reach, mean + reach), abs=0.12 * reach)

    def test_draws_that_differ_alone_give_students_interval_of_their_means(self):
        means = np.array([0.035, 0.034, 0.047, 0.036, 0.010, 0.007])
        found = two_way_bootstrap(np.repeat(means[:, None], 20, axis=1))
        expected = stats.t.interval(0.95, 5, means.mean(), stats.sem(means))
        assert found.degrees == pytest.approx(5)
        assert found.interval == pytest.approx(expected, abs=0.05 * (expected[1] - expected[0]))

    @pytest.mark.parametrize(
        ("draws", "of_draw", "of_case", "rest"),
        [(3, 0.02, 0.02, 0.04), (5, 0.02, 0.0, 0.04), (5, 0.02, 0.08, 0.02), (8, 0.02, 0.02, 0.0)],
    )
    def test_nineteen_of_twenty_intervals_hold_the_truth(self, draws, of_draw, of_case, rest):
        rng = np.random.default_rng(11)
        trials = 200
        held = 0
        for _ in range(trials):
            values = simulated(rng, draws, 16, of_draw=of_draw, of_case=of_case, rest=rest)
            low, high = two_way_bootstrap(values).interval
            held += low <= 0 <= high
        assert held / trials >= 0.95 - 2.5 * np.sqrt(0.95 * 0.05 / trials)

    def test_cases_alone_would_promise_too_much_where_draws_differ(self):
        rng = np.random.default_rng(2)
        held = 0
        for _ in range(100):
            values = simulated(rng, 5, 20, of_draw=0.03, of_case=0.01, rest=0.01)
            low, high = bootstrap_interval(mean_of(values.mean(axis=0)), 20)
            held += low <= 0 <= high
        assert held < 60

    def test_the_same_values_give_the_same_interval_in_any_order(self):
        values = simulated(np.random.default_rng(4), 5, 9, of_draw=0.02, of_case=0.02, rest=0.02)
        assert two_way_bootstrap(values) == two_way_bootstrap(values)
        assert two_way_bootstrap(values, seed=1).interval != two_way_bootstrap(values).interval
        assert two_way_bootstrap(values, seed=1).mean == two_way_bootstrap(values).mean

    def test_what_cannot_be_resampled_has_no_interval(self):
        assert two_way_bootstrap(np.ones((1, 20))) is None and two_way_bootstrap(np.ones((5, 2))) is None
        assert two_way_bootstrap(np.array([[1.0] * 5, [np.nan] * 5])) is None
        equal = two_way_bootstrap(np.full((3, 5), 0.2))
        assert equal.interval == pytest.approx((0.2, 0.2)) and equal.excludes_zero
