"""What a user chooses for one run replaces what was planned."""

from __future__ import annotations

import pytest
from support.stored_cases import make_plans

from swinssl.core.errors import UserError
from swinssl.training.config import TrainingConfig
from swinssl.training.effective_plans import effective_plans

PLANS = make_plans(mirror_axes=(0, 1))


@pytest.mark.parametrize(("wish", "axes"), [("none", ()), ("all", (0, 1, 2)), ("z,y", (0, 1)), ("X", (2,))])
def test_mirror_overrules_the_plan(wish, axes):
    assert effective_plans(PLANS, TrainingConfig(mirror=wish)).training.mirror_axes == axes
    assert effective_plans(PLANS, TrainingConfig()).training.mirror_axes == PLANS.training.mirror_axes


@pytest.mark.parametrize("wish", ["", "zz", "left", "z y", "w"])
def test_mirror_of_unknown_axes_is_refused(wish):
    with pytest.raises(UserError, match="expected all, none, or axes"):
        effective_plans(PLANS, TrainingConfig(mirror=wish))


def test_the_reason_of_what_the_user_chose_is_that_it_was_asked_for():
    asked = effective_plans(PLANS, TrainingConfig(lr=0.003, batch_size=3, decoder="light"))
    changed = {row for row in asked.reasons if asked.reasons[row] != PLANS.reasons.get(row)}
    assert changed == {"learning rate", "batch", "network"}
    assert {asked.reasons[row] for row in changed} == {"as asked"}
