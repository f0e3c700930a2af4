"""Ranks of models: against scipy, against published numbers, and when nothing may be concluded."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from support.made_scores import drawn, table

from swinssl.evaluation.statistics.rankings import (
    ScoreMatrix,
    critical_difference,
    order_probabilities,
    rank_correlation,
    score_matrix,
)


def made(values, models="abcdefgh"):
    values = np.asarray(values, float)
    return ScoreMatrix(tuple(models[: values.shape[1]]), tuple(map(str, range(len(values)))), values)


@pytest.mark.parametrize("ties", [False, True])
def test_friedman_is_scipys_in_the_form_of_iman_and_davenport(ties):
    values = np.random.default_rng(3).normal(size=(15, 4)) + np.linspace(0, 0.6, 4)
    values = np.round(values * 2) if ties else values
    chi = stats.friedmanchisquare(*values.T).statistic
    expected = stats.f.sf(14 * chi / (15 * 3 - chi), 3, 3 * 14)
    found = critical_difference(made(values))
    assert found.p == pytest.approx(expected)
    assert found.ranks == pytest.approx(stats.rankdata(-values, axis=1).mean(axis=0))


@pytest.mark.parametrize(("models", "q"), [(3, 2.343), (5, 2.728), (8, 3.031)])
def test_the_critical_difference_is_demsars(models, q):
    """q of table 5a in Demsar (2006)."""
    values = np.random.default_rng(1).normal(size=(14, models)) + 3 * np.arange(models)
    expected = q * np.sqrt(models * (models + 1) / (6 * 14))
    assert critical_difference(made(values)).difference == pytest.approx(expected, rel=1e-3)


def test_what_lies_within_the_difference_is_one_clique():
    rng = np.random.default_rng(2)
    values = np.array([3.0, 3.0, 1.0, 1.0]) + rng.normal(0, 0.3, (30, 4))
    assert [set(one) for one in critical_difference(made(values)).cliques] == [{"a", "b"}, {"c", "d"}]


@pytest.mark.parametrize(
    ("shape", "said"), [((20, 2), "2 models"), ((9, 4), "under 10 the test"), ((20, 4), "no model better")]
)
def test_where_it_is_not_permitted_it_says_why(shape, said):
    found = critical_difference(made(np.random.default_rng(0).normal(size=shape)))
    assert said in found.forbidden and found.difference is None and found.cliques == ()


def test_equal_models_are_no_better_than_each_other():
    assert critical_difference(made(np.ones((12, 3)))).p == 1


def test_order_probabilities_are_shares_of_resamples():
    one = score_matrix(drawn({"a": 0.6, "b": 0.61, "c": 0.9}))
    share = order_probabilities(one)
    rng = np.random.default_rng(5)
    picks = rng.integers(20, size=(4000, 20))
    by_hand = (one.values[picks, 1].mean(axis=1) > one.values[picks, 0].mean(axis=1)).mean()
    assert share[1, 0] == pytest.approx(by_hand, abs=0.04)
    assert share[0, 1] + share[1, 0] == pytest.approx(1) and share[2, 0] == 1 and np.isnan(share[1, 1])


def test_equal_models_are_as_likely_one_way_as_the_other():
    assert order_probabilities(made(np.ones((5, 2))))[0, 1] == 0.5


def test_less_distance_is_better():
    scores = table(("a", 0, "x", "s", 0.5), ("b", 0, "x", "s", 0.7))
    far = [
        type(s)(s.model, s.case, s.structure, {"HD95_mm": v}) for s, v in zip(scores.scores, (9.0, 2.0), strict=True)
    ]
    values = score_matrix(type(scores)(tuple(far)), metric="HD95_mm").values
    assert values[0, 1] > values[0, 0]


def test_rho_is_spearmans_of_the_means_and_its_interval_holds_it():
    rng = np.random.default_rng(4)
    levels = np.linspace(0, 1, 6)
    one, two = made(levels + rng.normal(0, 0.5, (20, 6))), made(levels + rng.normal(0, 0.5, (12, 6)))
    rho, (low, high) = rank_correlation(one, two)
    assert rho == pytest.approx(stats.spearmanr(one.values.mean(axis=0), two.values.mean(axis=0)).statistic)
    assert -1 <= low <= rho <= high <= 1
    assert rank_correlation(made(np.ones((3, 2))), made(np.ones((3, 2)))) is None
