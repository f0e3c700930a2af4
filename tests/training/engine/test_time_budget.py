"""Minutes become steps: estimates stay hidden until speed is known, and the schedule ends within its time."""

from __future__ import annotations

import pytest

from swinssl.training.engine.progress import Length, Progress
from swinssl.training.engine.time_budget import SLOW_STEPS, STEPS_TO_MEASURE, TimeBudget


def budget(*, minutes=1.0, steps=None, validation_cost=0.0, closing_cost=0.0):
    length = Length(steps=steps, expected=steps or 1000, steps_per_epoch=10, minutes=minutes)
    return TimeBudget(
        length, validation_cost=validation_cost, closing_cost=closing_cost, validation_interval=10, agree=lambda n: n
    )


def run(made, seconds_per_step):
    """Steps to the end, and the totals that were known on the way."""
    progress, totals = Progress(total=made.length.expected), []
    while not progress.is_over:
        progress.step += 1
        made.correct(progress, lambda: progress.step * seconds_per_step)
        totals.append(made.known_total(progress))
    return progress.step, totals


def test_the_run_ends_within_its_minutes_and_no_estimate_is_shown_before_speed_is_measured():
    steps, totals = run(budget(), 0.5)
    assert 115 <= steps <= 120
    unmeasured = STEPS_TO_MEASURE + SLOW_STEPS - 1
    assert totals[:unmeasured] == [None] * unmeasured and totals[-1] == steps


def test_validation_and_what_follows_the_run_are_part_of_its_minutes():
    steps, _ = run(budget(validation_cost=5.0, closing_cost=20.0), 0.5)
    # Of 120 steps' time, the last validation and the closing take 25. The earlier validations took no time here.
    assert 93 <= steps <= 95


def test_a_number_of_steps_is_an_upper_limit():
    assert run(budget(steps=30), 0.5)[0] == 30
    assert run(budget(steps=30, minutes=None), 100.0)[0] == 30


@pytest.mark.parametrize(("minutes", "extended"), [(1.0, False), (2.0, True)])
def test_a_finished_run_continues_only_under_a_longer_limit(minutes, extended):
    progress = Progress(step=120, total=120, seconds=60.0, minutes=1.0, ended=True)
    budget(minutes=minutes).resume(progress)
    assert progress.ended is not extended
    assert progress.total == (240 if extended else 120)


def test_patience_that_is_used_up_keeps_a_finished_run_finished():
    length = Length(steps=100, expected=100, steps_per_epoch=10, patience=3)
    made = TimeBudget(length, validation_cost=0, closing_cost=0, validation_interval=10, agree=lambda n: n)
    progress = Progress(step=40, total=100, ended=True, not_better=3)
    made.resume(progress)
    assert progress.ended and progress.total == 100
