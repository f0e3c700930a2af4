"""Two models of a table: who is paired with whom, and the committed benchmark's own numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from support.made_scores import drawn, table

from swinssl.evaluation.comparison.paired_comparison import compare_groups, compare_pairs, signed_with_interval
from swinssl.evaluation.comparison.score_files import read_scores
from swinssl.evaluation.comparison.score_table import ScoreTable
from swinssl.evaluation.statistics.bootstrap import two_way_bootstrap

STUDY = Path(__file__).resolve().parents[3] / "benchmarks" / "studies" / "organs_few_labels"


def test_pairs_are_the_patients_that_both_have():
    scores = table(("a", 0, "x", "s", 0.5), ("a", 0, "y", "s", 0.9), ("b", 0, "y", "s", 0.4), ("b", 0, "z", "s", 0.1))
    one = compare_pairs(scores, "a", "b")
    assert (one.differences, one.n, one.means) == ((0.5,), 1, (0.9, 0.4))
    assert one.p == one.smallest_p == 1 and one.interval is None and one.detectable is None


def test_only_seeds_that_both_have_are_compared():
    scores = table(
        ("a", 0, "x", "s", 0.1),
        ("a", 1, "x", "s", 0.5),
        ("b", 1, "x", "s", 0.4),
        ("b", 2, "x", "s", 0.9),
        ("c", 7, "x", "s", 1),
    )
    assert compare_pairs(scores, "a", "b").seeds == ("1",)
    assert compare_pairs(scores, "a", "b").mean == pytest.approx(0.1)
    assert compare_pairs(scores, "a", "c") is None


def test_numbers_are_those_of_the_tests_on_the_differences():
    one = compare_pairs(drawn({"a": 0.7, "b": 0.65}, seeds=(0, 1)), "a", "b")
    assert one.p == pytest.approx(stats.wilcoxon(one.differences, method="exact").pvalue)
    assert one.mean == pytest.approx(one.means[0] - one.means[1])
    low, high = one.interval
    assert low < one.effect < high
    assert one.typical == f"{one.effect:+.3f} [{low:+.3f}, {high:+.3f}]"


def test_several_draws_are_resampled_with_the_patients_and_one_is_not():
    scores = drawn({"a": 0.7, "b": 0.65}, seeds=(0, 1, 2, 3, 4))
    one = compare_pairs(scores, "a", "b")
    by_seed = [
        compare_pairs(ScoreTable(tuple(s for s in scores.scores if s.seed == str(k))), "a", "b") for k in range(5)
    ]
    assert [list(own) for own in one.by_draw] == [pytest.approx(own.differences) for own in by_seed]
    assert one.over_draws == two_way_bootstrap(np.array(one.by_draw))
    assert one.headline == (one.over_draws.mean, one.over_draws.interval)
    assert one.is_shown == one.over_draws.excludes_zero
    single = by_seed[0]
    assert single.over_draws is None and single.headline == (single.effect, single.interval) and not single.is_shown


def test_a_draw_counts_with_the_patients_that_it_has():
    rows = [
        (model, seed, f"c{i}", "s", level)
        for model, level in (("a", 0.6), ("b", 0.5))
        for seed in (0, 1)
        for i in range(4)
    ]
    one = compare_pairs(table(*(row for row in rows if row[1:3] != (1, "c3"))), "a", "b")
    assert np.isnan(one.by_draw[1][3]) and one.n == 3
    assert (one.over_draws.draws, one.over_draws.cases) == (2, 4)
    assert not one.is_shown  # two draws make no headline


def test_other_patients_are_compared_as_groups():
    scores = table(
        *(("ct", 0, f"c{i}", "s", 0.5 + i / 100) for i in range(6)), *(("mr", 3, f"m{i}", "s", 0.3) for i in range(4))
    )
    one = compare_groups(scores, "ct", "mr")
    values = [0.5 + i / 100 for i in range(6)]
    assert one.p == pytest.approx(one.smallest_p) and one.n == 4
    assert (one.effect, one.mean) == pytest.approx((np.median(values) - 0.3, np.mean(values) - 0.3))


def test_the_committed_study_comes_out_again():
    """The table of its results.md: over draws, mean difference, typical one, raw p and pairs."""
    scores = read_scores([str(STUDY / "scores.csv.gz")])
    text = (STUDY / "results.md").read_text()
    for model in scores.models:
        if model == "scratch":
            continue
        one = compare_pairs(scores, model, "scratch")
        line = next(line for line in text.splitlines() if line.startswith(f"| all structures | {model} | scratch |"))
        assert f"| {one.mean:+.3f} | {one.typical} | {one.p:.2g} |" in line and line.endswith(f"| {one.n} pairs |")
    smit = compare_pairs(scores, "smit", "scratch")
    assert f"{signed_with_interval(*smit.headline)} Dice, smit minus scratch (3 draws" in text
