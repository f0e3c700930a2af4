"""Network plans are data: they survive JSON, and a mistyped preset is answered with the nearest."""

from __future__ import annotations

import pytest

from swinssl.core.errors import UserError
from swinssl.networks.network_plan import PRESETS, NetworkPlan, encoder_preset


@pytest.mark.parametrize("name", PRESETS)
def test_a_plan_survives_json(name):
    plan = NetworkPlan(preset=name, encoder=encoder_preset(name), decoder="light", norm="instance")
    assert NetworkPlan.model_validate_json(plan.model_dump_json()) == plan


@pytest.mark.parametrize(("typed", "meant"), [("smit69", "smit96"), ("tinny", "tiny"), ("smit-s", "smits")])
def test_a_mistyped_preset_is_answered_with_the_nearest(typed, meant):
    with pytest.raises(UserError, match=rf"--preset {typed}: unknown\. Did you mean {meant}\?"):
        encoder_preset(typed)


def test_a_preset_like_no_other_is_answered_with_all():
    with pytest.raises(UserError, match="Choose one of tiny, small, smit96, smit128, smits, smitp"):
        encoder_preset("xyz")
