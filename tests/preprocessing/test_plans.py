"""Plans as a file: warnings beside the reasons, and plans of version 1."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.stored_cases import make_plans

from swinssl.core.errors import UserError
from swinssl.preprocessing.plans import PLANS_VERSION, Plans, PlanWarning
from swinssl.training.engine.run_description import sha256_of_decisions

WARNING = PlanWarning(decision="memory", message="training takes 9 GB of memory, more than the 8 GB available")
PLANS = make_plans(patch_size=(32, 32, 32))


def test_warnings_are_written_read_and_shown_with_their_severity(tmp_path: Path) -> None:
    note = PlanWarning(decision="encoder", severity="note", message="a learnt spacing 2 mm (plan: 1 mm)")
    plans = make_plans(patch_size=(32, 32, 32), warnings=(WARNING, note))
    plans.write(tmp_path / "swinsslPlans.json")
    assert Plans.read(tmp_path) == plans
    assert [str(warning) for warning in plans.warnings] == [
        "warning: training takes 9 GB of memory, more than the 8 GB available",
        "note: a learnt spacing 2 mm (plan: 1 mm)",
    ]


def test_warnings_decide_nothing() -> None:
    plain, warned = make_plans(), make_plans(warnings=(WARNING,))
    assert plain.prediction_sha256 == warned.prediction_sha256
    assert plain.preprocessing_key == warned.preprocessing_key
    assert sha256_of_decisions(plain) == sha256_of_decisions(warned)


def test_notes_in_the_reasons_of_version_1_become_warnings(tmp_path: Path) -> None:
    content = PLANS.model_dump(mode="json", exclude={"warnings"})
    content["version"] = 1
    content["reasons"] = {
        "intensity": "CT: the paper's window. NOTE: 2 of 20 cases differ. NOTE: look | MR: percentiles. NOTE: third",
        "patch": "as asked",
    }
    path = tmp_path / "swinsslPlans.json"
    path.write_text(json.dumps(content))
    plans = Plans.read(path)
    assert plans.version == PLANS_VERSION == 2
    assert plans.reasons == {"intensity": "CT: the paper's window | MR: percentiles", "patch": "as asked"}
    assert [warning.message for warning in plans.warnings] == ["2 of 20 cases differ", "look", "third"]
    assert {warning.decision for warning in plans.warnings} == {"intensity"}
    assert plans.prediction_sha256 == PLANS.prediction_sha256


@pytest.mark.parametrize("version", [0, 3, None])
def test_other_versions_are_refused(tmp_path: Path, version: int | None) -> None:
    path = tmp_path / "swinsslPlans.json"
    path.write_text(json.dumps(make_plans().model_dump(mode="json") | {"version": version}))
    with pytest.raises(UserError, match=f"plans version {version}; this swinssl reads version 2"):
        Plans.read(path)
