"""How far results agree with an order that others found."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from support.made_scores import drawn

from swinssl.core.errors import UserError
from swinssl.evaluation.comparison.expected_order import ExpectedOrder, agreement_with
from swinssl.evaluation.comparison.score_table import ScoreTable
from swinssl.evaluation.comparison.study import make_study
from swinssl.evaluation.comparison.study_files import report, summary
from swinssl.evaluation.statistics.rankings import order_probabilities, score_matrix

TABLE = drawn({"a": 0.6, "b": 0.61, "c": 0.9})


def test_an_order_is_written_with_signs_and_read_back():
    order = ExpectedOrder.parse("smit>simmim > ibot = dino>scratch")
    assert order.levels == (("smit",), ("simmim",), ("ibot", "dino"), ("scratch",))
    assert str(order) == "smit > simmim > ibot = dino > scratch"
    assert order.among({"smit", "dino", "scratch"}).levels == (("smit",), ("dino",), ("scratch",))


@pytest.mark.parametrize("text", ["", "smit", "smit=dino", "smit>", "smit>dino>smit", "smit>>dino"])
def test_what_is_no_order_is_refused(text):
    with pytest.raises(UserError, match="each model once"):
        ExpectedOrder.parse(text)


def test_pairs_have_the_order_probabilities_and_rho_is_scipys():
    one = score_matrix(TABLE)
    found = agreement_with(ExpectedOrder.parse("c>a>b"), one)
    share, place = order_probabilities(one), {name: i for i, name in enumerate(one.models)}
    assert {(p.better, p.worse): p.probability for p in found.pairs} == {
        (x, y): share[place[x], place[y]] for x, y in (("c", "a"), ("c", "b"), ("a", "b"))
    }
    means = [one.values[:, place[name]].mean() for name in "cab"]
    assert found.rho == pytest.approx(stats.spearmanr([3, 2, 1], means).statistic)
    low, high = found.interval
    assert low <= found.rho <= high


def test_models_of_a_level_are_no_pair_and_count_as_ties():
    one = score_matrix(TABLE)
    found = agreement_with(ExpectedOrder.parse("c>a=b"), one)
    assert {(p.better, p.worse) for p in found.pairs} == {("c", "a"), ("c", "b")}
    means = one.values.mean(axis=0)
    assert found.rho == pytest.approx(stats.spearmanr([1, 1, 2], means).statistic)


def test_two_models_have_a_probability_and_no_rho_and_one_has_nothing():
    one = score_matrix(TABLE)
    found = agreement_with(ExpectedOrder.parse("c>a>other"), one)
    assert [(p.better, p.worse) for p in found.pairs] == [("c", "a")] and found.rho is None
    assert agreement_with(ExpectedOrder.parse("other>c"), one) is None


def test_a_study_says_which_pair_is_the_least_probable():
    study = make_study(TABLE, expected=ExpectedOrder.parse("a>b>c"))
    line = summary(study)[-1]
    assert "expected order (a > b > c)" in line and "here: a above b, 0%" in line
    (own,) = report(study)["expected_order"].values()
    assert len(own["pairs"]) == 3 and own["spearman_rho"] == pytest.approx(study.expected[""].rho)
    assert np.isfinite(own["spearman_rho"])


def test_a_model_outside_the_order_takes_no_seeds_away():
    """The first seed has another order than the mean of both, and the fourth model has the first seed only."""
    first, second = drawn({"a": 0.6, "b": 0.7, "c": 0.9}), drawn({"a": 0.8, "b": 0.7, "c": 0.9}, seeds=(1,))
    few = drawn({"d": 0.2})
    order = ExpectedOrder.parse("c>a>b")
    alone, with_few = (
        make_study(ScoreTable(scores), expected=order).expected[""]
        for scores in (first.scores + second.scores, first.scores + second.scores + few.scores)
    )
    assert alone == with_few
    assert make_study(first, expected=order).expected[""] != alone


def test_a_model_that_nobody_has_is_named():
    with pytest.raises(UserError, match="no model 'd'"):
        make_study(TABLE, expected=ExpectedOrder.parse("a>d"))
