"""The cases of a comparison with few labels: who tests is fixed, nobody is on two sides, every seed draws anew."""

from __future__ import annotations

import pytest
from few_labels import divide

from swinssl.core.errors import UserError
from swinssl.dataset.splits import check_splits

CASES = [f"case_{number:02d}" for number in range(40)]


def test_no_case_is_on_two_sides(tmp_path):
    cases = divide(CASES)
    assert len(cases.test) == 20
    for fold in cases.folds:
        assert len(fold.train) == len(fold.val) == 5
        assert len({*cases.test, *fold.train, *fold.val}) == 30
    check_splits(tmp_path / "splits_final.json", cases.folds, cases=CASES)


def test_members_of_a_seed_are_its_training_cases_cross_validated():
    cases = divide(CASES)
    for seed in (0, 3):
        members = [cases.all_folds[number] for number in cases.numbers_of_members(seed)]
        train = cases.folds[seed].train
        assert [fold.val for fold in members] == [(case,) for case in train]
        assert all({*fold.train, *fold.val} == {*train} and len(fold.train) == 4 for fold in members)
    assert cases.all_folds[:10] == cases.folds and len(cases.all_folds) == 60


def test_the_test_cases_do_not_depend_on_seeds_or_on_who_trains():
    test = divide(CASES).test
    assert divide(CASES, seeds=3).test == divide(CASES, train=2, validation=1).test == test
    assert test not in (tuple(CASES[:20]), tuple(CASES[20:]))


def test_more_seeds_leave_the_first_as_they_are():
    assert divide(CASES, seeds=10).folds[:3] == divide(CASES, seeds=3).folds


def test_every_seed_trains_on_other_cases():
    folds = divide(CASES).folds
    assert len({fold.train for fold in folds}) == len(folds)
    # Drawn, not dealt: together the seeds use all that do not test.
    assert len({case for fold in folds for case in fold.train}) == 20


def test_the_order_in_which_cases_are_found_does_not_matter():
    assert divide(CASES[::-1]) == divide(CASES)


def test_the_division_stays_for_ever():
    """Results are kept over months; a case that changes sides would spoil them."""
    cases = divide(CASES)
    assert cases.test[:5] == ("case_00", "case_01", "case_02", "case_06", "case_09")
    assert cases.folds[0].train == ("case_03", "case_05", "case_23", "case_24", "case_38")


def test_all_others_may_train():
    cases = divide(CASES[:21], validation=0, test=16)
    assert {fold.val for fold in cases.folds} == {()}
    assert len({fold.train for fold in cases.folds}) == 1


def test_too_few_cases_are_refused():
    with pytest.raises(UserError, match="29 cases are too few for 5 to train, 5 to validate and 20 to test"):
        divide(CASES[:29])
