"""The table of transfer.py, from made rows: who is paired with whom, what is corrected, and when nothing counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from transfer_rows import Row, read_rows, scores_of
from transfer_table import make_table

from swinssl.evaluation.comparison.paired_comparison import compare_pairs

STRUCTURES = ("left", "right")
RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"


def rows_of(init, level, *, cases=20, seeds=(0, 1, 2), rng=0, spread=0.02):
    """Each case has a difficulty that all inits share, and its own scatter."""
    shared, own = np.random.default_rng(99), np.random.default_rng(rng)
    hard = shared.normal(0, 0.05, cases)
    rows = []
    for seed in seeds:
        for case in range(cases):
            dice = {name: level + hard[case] + own.normal(0, spread) for name in STRUCTURES}
            rows.append(Row(init, seed, 100, 3.0, f"case_{case:02d}", dice, float(np.mean(list(dice.values())))))
    return rows


def compare(rows, first, second):
    return compare_pairs(scores_of(rows), first, second)


def case_means(rows, init, seeds):
    return scores_of(rows).unit_means(init, seeds=[str(seed) for seed in seeds])


def line_of(text, init):
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {init} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def column(text, init, name):
    return line_of(text, init)[line_of(text, "init").index(name)]


def test_pairs_are_test_cases_averaged_over_structures_and_seeds():
    rows = rows_of("smit", 0.7, rng=1) + rows_of("scratch", 0.6, rng=2)
    one = compare(rows, "smit", "scratch")
    assert len(one.differences) == 20
    by_hand = [
        np.mean([r.mean for r in rows if (r.init, r.case) == ("smit", case)])
        - np.mean([r.mean for r in rows if (r.init, r.case) == ("scratch", case)])
        for case in sorted({r.case for r in rows})
    ]
    assert one.differences == pytest.approx(by_hand)
    assert one.p == pytest.approx(stats.wilcoxon(by_hand, method="exact").pvalue)


def test_only_seeds_that_both_have_are_compared():
    """A seed's training cases make a difference of their own, which is nobody's merit."""
    rows = rows_of("smit", 0.7, seeds=(0, 1)) + rows_of("scratch", 0.6, seeds=(1, 2))
    assert compare(rows, "smit", "scratch").seeds == ("1",)
    assert compare(rows, "smit", "nnunet") is None


def test_a_case_without_a_number_in_one_seed_is_no_pair():
    rows = rows_of("smit", 0.7, cases=3)
    rows[0] = Row("smit", 0, 100, 3.0, "case_00", dict.fromkeys(STRUCTURES), None)
    assert list(case_means(rows, "smit", (0, 1, 2))) == ["case_01", "case_02"]


def test_the_named_comparison_stands_raw_and_the_others_are_corrected():
    rows = rows_of("scratch", 0.6)
    for number, (init, level) in enumerate([("smit", 0.606), ("simmim", 0.606), ("rotation", 0.61)], start=1):
        rows += rows_of(init, level, rng=number)
    text = make_table(rows, title="made")
    raw = {init: compare(rows, init, "scratch").p for init in ("smit", "simmim", "rotation")}
    low, high = sorted(("simmim", "rotation"), key=raw.get)
    assert column(text, "smit", "p") == f"{raw['smit']:.2g}"
    assert column(text, low, "p") == f"{min(1, 2 * raw[low]):.2g}"
    assert column(text, high, "p") == f"{min(1, max(raw[high], 2 * raw[low])):.2g}"


def test_means_and_spread_are_over_test_cases():
    rows = rows_of("scratch", 0.6)
    means = list(case_means(rows, "scratch", (0, 1, 2)).values())
    text = make_table(rows, title="made")
    assert column(text, "scratch", "mean (SD)") == f"{np.mean(means):.3f} ({np.std(means, ddof=1):.3f})"
    assert column(text, "scratch", "left") == f"{np.mean([r.dice['left'] for r in rows]):.3f}"
    assert column(text, "scratch", "pairs") == "-"


def test_under_the_floor_no_p_is_shown_and_no_goal_is_reached():
    text = make_table(rows_of("scratch", 0.2) + rows_of("smit", 0.5, rng=1), title="made")
    assert "No comparison counts: scratch is at 0.2" in text
    assert column(text, "smit", "p") == "-"
    assert "reached" not in text
    assert "which does not count" in text


def test_a_goal_is_judged_over_five_draws_by_mean_and_interval():
    five = {"seeds": (0, 1, 2, 3, 4)}
    rows = rows_of("scratch", 0.6, **five)
    goal = "Goal, smit - scratch >= 0.03 over 5 draws:"
    good = make_table(rows + rows_of("smit", 0.65, rng=1, **five), title="made")
    assert f"{goal} reached." in good
    little = rows + rows_of("smit", 0.615, rng=1, **five)
    assert compare(little, "smit", "scratch").is_shown and f"{goal} not reached." in make_table(little, title="made")
    # On average 0.05 again, by two draws of five: the pairs are sure of these trainings, the draws of nothing.
    uneven = rows + [row for seed in range(5) for row in rows_of("smit", 0.6 + 0.125 * (seed < 2), seeds=(seed,))]
    assert compare(uneven, "smit", "scratch").p < 0.001 and f"{goal} not reached." in make_table(uneven, title="made")
    few = make_table(rows_of("scratch", 0.6) + rows_of("smit", 0.65, rng=1), title="made")
    assert f"{goal} not judged, with 3 of them." in few


def test_a_peer_under_the_floor_is_compared_with_nothing():
    text = make_table(rows_of("scratch", 0.6) + rows_of("smit", 0.7) + rows_of("nnunet", 0.04, rng=4), title="made")
    assert "smit against nnunet: does not count. nnunet is at 0.0" in text and "against nnunet, per" not in text
    assert "reached" not in text


def test_a_peer_and_what_is_no_proposal_are_not_the_best_of_ours():
    rows = rows_of("scratch", 0.6) + rows_of("nnunet", 0.65, rng=1)
    rows += rows_of("resenc", 0.8, rng=2) + rows_of("zeroed", 0.8, rng=3)
    assert "Best of ours against nnunet, per minute at this budget: scratch" in make_table(rows, title="made")


def test_few_pairs_are_called_few():
    few = make_table(rows_of("scratch", 0.6, cases=4) + rows_of("smit", 0.7, cases=4, rng=1), title="made")
    assert "Too few pairs: 4, where 16 were asked for. With 4 no p can fall below 0.12" in few
    more = make_table(rows_of("scratch", 0.6, cases=10) + rows_of("smit", 0.7, cases=10, rng=1), title="made")
    assert "Too few pairs: 10" in more and "no p can fall" not in more
    assert "Too few" not in make_table(rows_of("scratch", 0.6) + rows_of("smit", 0.7, rng=1), title="made")


def test_what_could_be_seen_at_all_is_said():
    """Four of five experiments whose true difference is the one named are significant."""
    rng = np.random.default_rng(5)
    rows = rows_of("scratch", 0.6, seeds=(0,)) + rows_of("smit", 0.6, seeds=(0,), rng=1)
    detectable = compare(rows, "smit", "scratch").detectable
    spread = np.std(compare(rows, "smit", "scratch").differences, ddof=1)
    found = [stats.ttest_1samp(rng.normal(detectable, spread, 20), 0).pvalue < 0.05 for _ in range(1000)]
    assert 0.7 < np.mean(found) < 0.85
    assert f"a mean difference of {detectable:.3f} four times in five" in make_table(rows, title="made")


def test_seeds_that_are_missing_are_named():
    rows = rows_of("scratch", 0.6) + rows_of("smit", 0.7, rng=1) + rows_of("simmim", 0.7, seeds=(0,), rng=2)
    assert "smit 0, 1, 2; simmim 0" in make_table(rows, title="made")


def test_without_scratch_or_without_anything_it_says_so():
    assert "No cell is done." in make_table([], title="made")
    assert "scratch is not done" in make_table(rows_of("smit", 0.7), title="made")


def test_the_committed_tables_come_out_again():
    """A change of the statistics must not change what is published unseen."""
    for name in ("transfer_101", "transfer_202"):
        text = (RESULTS / f"{name}.md").read_text()
        title, *facts = [line for line in text.partition("| init |")[0].splitlines() if line]
        assert make_table(read_rows(RESULTS / f"{name}.csv"), title=title.removeprefix("## "), facts=facts) == text
