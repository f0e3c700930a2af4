"""check, plan and preprocess from Python: what they give, that they print nothing, and where progress goes."""

from __future__ import annotations

import json

import pytest
from support.toy_dataset import write_raw

import swinssl

NAME = "Dataset009_Ball"


@pytest.fixture
def root(tmp_path):
    write_raw(tmp_path / "raw" / NAME)
    return tmp_path


def test_from_raw_to_stored_without_a_word(root, capsys):
    seen = []
    report = swinssl.check("9", root=root, progress=lambda *said: seen.append(said))
    assert report.count("error") == 0 and len(report.raw.cases) == 6
    assert seen[-1] == ("checking", 6, 6)

    options = swinssl.PlanOptions(preset="tiny")
    assert not swinssl.plan("9", root=root, options=options, device="cpu", dry_run=True).folder.exists()
    planned = swinssl.plan("9", root=root, options=options, device="cpu")
    assert planned.folder == root / "preprocessed" / NAME and planned.plans.network.preset == "tiny"
    assert (planned.changes, planned.stale_cases, planned.stale_models) == ([], 0, [])
    assert swinssl.read_plan("9", root=root).plans == planned.plans

    rehearsal = swinssl.preprocess("9", root=root, dry_run=True)
    assert len(rehearsal.as_json()["would_preprocess"]) == 6 and not (planned.folder / "cases").exists()
    done = swinssl.preprocess("9", root=root)
    assert [case.status for case in done.cases] == ["done"] * 6 and done.failed == {}
    assert [case.status for case in swinssl.preprocess("9", root=root).cases] == ["current"] * 6
    assert swinssl.read_plan("9", root=root).raw_changes == []
    write_raw(root / "raw" / NAME, cases=7)
    assert any("ball_6" in line for line in swinssl.read_plan("9", root=root).raw_changes)
    assert capsys.readouterr() == ("", "")


def test_the_commands_give_the_same(root, typed):
    said = json.loads(typed("plan", NAME, "--root", root, "--json", "--dry-run").out)
    planned = swinssl.plan(NAME, root=root, dry_run=True)
    plans = planned.plans.model_dump(mode="json")
    for each in (said["plans"], plans):
        del each["reasons"]  # they name the memory that is free now
    assert said["plans"] == plans
    assert said["changes"] == planned.changes and said["stale_models"] == planned.stale_models


def test_a_failed_case_is_told_and_costs_no_other(root):
    swinssl.plan("9", root=root)
    image = min((root / "raw" / NAME / "imagesTr").iterdir())
    image.write_bytes(image.read_bytes()[:-20])
    done = swinssl.preprocess("9", root=root)
    (reason,) = done.failed.values()
    assert image.name in reason and sum(case.status == "done" for case in done.cases) == 5


def test_refusals(root):
    with pytest.raises(swinssl.UserError, match="Dataset001_None: no such raw data set"):
        swinssl.check("Dataset001_None", root=root)
    with pytest.raises(swinssl.UserError, match=r"part=\(3, 2\): expected \(i, n\)"):
        swinssl.preprocess("9", root=root, part=(3, 2))
    with pytest.raises(swinssl.UserError, match=r"no plans here\. Run swinssl_plan"):
        swinssl.preprocess("9", root=root)
