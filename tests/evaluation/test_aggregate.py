"""Sums over cases: what counts where, what does not, and what a reader is told about it."""

from __future__ import annotations

import numpy as np
import pytest
from support.made_results import ORGAN, TUMOUR, evaluation, metrics

from swinssl.evaluation.aggregate import make_report, remarks

FOUND, MISSED, INVENTED, NEITHER = metrics(8, 2, 2), metrics(0, 0, 5), metrics(0, 5, 0), metrics(0)


def organs(*found):
    return evaluation(*({"organ": m} for m in found))


class TestAverages:
    def test_mean_and_median_by_hand(self):
        report = make_report(organs(metrics(9, 1, 1, hd95=1), metrics(5, 5, 5, hd95=2), metrics(8, 2, 2, hd95=9)))
        averages = report.structures[0].averages
        assert (averages["Dice"].n, averages["Dice"].mean, averages["Dice"].median) == (3, pytest.approx(2.2 / 3), 0.8)
        assert (averages["HD95_mm"].mean, averages["MSD_mm"].median) == (4, 0.5)
        low, high = averages["Dice"].interval
        assert 0.5 <= low < 2.2 / 3 < high <= 0.9

    def test_volume_errors_cancel_with_their_sign_and_add_up_without(self):
        report = make_report(organs(metrics(10, 5, 0), metrics(5, 0, 5)))
        averages = report.structures[0].averages
        assert averages["volume_error_ml"].mean == pytest.approx(0)
        assert averages["absolute_volume_error_percent"].mean == pytest.approx(50)

    def test_a_structure_that_neither_map_has_counts_nowhere(self):
        with_it, without = make_report(organs(FOUND, FOUND, NEITHER)), make_report(organs(FOUND, FOUND))
        for name in ("Dice", "HD95_mm", "NSD_2mm", "volume_error_ml"):
            assert with_it.structures[0].averages[name] == without.structures[0].averages[name]
        assert with_it.structures[0].both_empty == ("c",)

    def test_a_missed_structure_scores_zero_and_has_no_distance(self):
        one = make_report(organs(FOUND, MISSED, INVENTED)).structures[0]
        assert (one.false_negative, one.false_positive) == (("b",), ("c",))
        assert (one.averages["Dice"].n, one.averages["Dice"].mean) == (3, pytest.approx(0.8 / 3))
        assert (one.averages["NSD_2mm"].n, one.averages["HD95_mm"].n) == (3, 1)

    def test_nothing_measured_has_no_number(self):
        one = make_report(organs(NEITHER, NEITHER)).structures[0]
        assert one.averages["Dice"].n == 0 and one.averages["Dice"].mean is None and one.worst_case is None

    def test_cases_in_which_it_was_not_annotated_do_not_count(self):
        report = make_report(
            evaluation({"organ": FOUND, "tumour": FOUND}, {"organ": MISSED}, structures=(ORGAN, TUMOUR))
        )
        assert [(one.annotated, one.averages["Dice"].mean) for one in report.structures] == [(2, 0.4), (1, 0.8)]

    def test_the_foreground_mean_is_over_structures(self):
        """Not over all pairs of case and structure: a rare structure counts as much as a common one."""
        cases = [{"organ": metrics(1)}, {"organ": metrics(1)}, {"organ": metrics(1), "tumour": metrics(1, 1, 1)}]
        report = make_report(evaluation(*cases, structures=(ORGAN, TUMOUR)))
        assert (report.dice.n, report.dice.mean, report.dice.median) == (3, pytest.approx(0.75), 1.0)
        assert report.dice.interval is not None and report.dice.interval[0] <= 0.75 <= report.dice.interval[1]

    def test_the_worst_case(self):
        assert make_report(organs(FOUND, metrics(2, 5, 5), FOUND)).structures[0].worst_case == "b"


class TestLesions:
    def test_lesions_are_summed_over_cases(self):
        counts = [(4, 3, 5, 3), (0, 0, 1, 0), (2, 2, 2, 2)]
        cases = evaluation(*({"tumour": metrics(5, lesions=c)} for c in counts), structures=(TUMOUR,))
        lesions = make_report(cases).structures[0].lesions
        assert (lesions.total.reference, lesions.total.found) == (6, 5)
        assert (lesions.total.sensitivity, lesions.total.precision) == (pytest.approx(5 / 6), pytest.approx(5 / 8))
        assert lesions.false_per_case == pytest.approx(1.0)
        for interval, value in ((lesions.sensitivity_interval, 5 / 6), (lesions.precision_interval, 5 / 8)):
            assert interval[0] <= value <= interval[1]

    def test_nothing_found_anywhere_is_zero_and_sure(self):
        cases = evaluation(*[{"tumour": metrics(0, 0, 5, lesions=(2, 0, 0, 0))}] * 4, structures=(TUMOUR,))
        lesions = make_report(cases).structures[0].lesions
        assert (lesions.total.f1, lesions.f1_interval, lesions.sensitivity_interval) == (0, (0, 0), (0, 0))
        assert lesions.total.precision is lesions.precision_interval is None

    def test_organs_have_none(self):
        assert make_report(organs(FOUND)).structures[0].lesions is None


class TestRanking:
    def test_worst_and_median_case(self):
        made = organs(*(metrics(tp, 10 - tp, 10 - tp) for tp in (9, 2, 7, 5)), NEITHER)
        assert [case.case_id for case in made.ranked] == ["b", "d", "c", "a"]
        assert (made.worst.case_id, made.median.case_id) == ("b", "d")

    def test_a_case_is_ranked_by_its_mean_over_structures(self):
        made = evaluation(
            {"organ": metrics(9, 1, 1), "tumour": MISSED}, {"organ": metrics(5, 5, 5)}, structures=(ORGAN, TUMOUR)
        )
        assert [case.dice for case in made.ranked] == [pytest.approx(0.45), 0.5]
        assert made.ranked[0].worst_structure == "tumour"

    def test_without_any_dice_there_is_none(self):
        assert organs(NEITHER).worst is None and organs(NEITHER).median is None


class TestRemarks:
    def lines(self, made):
        return remarks(made, make_report(made))

    def test_few_cases_are_said_to_be_few(self):
        assert "only 1 case: too few for an interval" in self.lines(organs(FOUND))[0]
        assert "only 4 cases: the intervals are rough" in self.lines(organs(FOUND, FOUND, FOUND, metrics(7, 1, 1)))[0]
        assert self.lines(organs(*[FOUND] * 10)) == []

    def test_empty_maps_are_named_and_counted(self):
        lines = self.lines(organs(*[FOUND] * 8, MISSED, INVENTED, NEITHER))
        assert lines == [
            "organ: in neither map in 1 case (k): nothing to measure there.",
            "organ: missed in 1 case (i): Dice 0 there; HD95 and MSD are over the other 8.",
            "organ: predicted but not in the reference in 1 case (j): Dice 0 there; HD95 and MSD are over the other 8.",
        ]

    def test_partial_annotation_is_said(self):
        made = evaluation(*[{"organ": FOUND}] * 9, {}, structures=(ORGAN,))
        assert self.lines(made) == ["organ: annotated in 9 of 10 cases; the others do not count."]


def test_intervals_of_skewed_scores_stay_among_the_scores():
    rng = np.random.default_rng(0)
    made = organs(*(metrics(int(tp), 100 - int(tp), 0) for tp in 100 - rng.exponential(8, 20).clip(0, 90)))
    average = make_report(made).structures[0].averages["Dice"]
    assert 0 < average.interval[0] < average.mean < average.interval[1] < 1
