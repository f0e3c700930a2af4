"""`postprocessing.json`: what is written comes back, and what does not fit the model is refused in words."""

from __future__ import annotations

import json

import pytest

from swinssl.core.errors import UserError
from swinssl.dataset.labels import LabelSet
from swinssl.inference.postprocessing import POSTPROCESSING_FILE, Postprocessing, Trial

ORGANS = LabelSet(names=("liver", "spleen"), values=((1,), (2,)))
REGIONS = LabelSet(names=("whole", "core"), values=((1, 2), (2,)), regions=True, region_order=(1, 2))


def trial(*structures):
    return Trial(structures=structures, before=0.5, after=0.75, better=3, worse=1, cases=5)


DECIDED = Postprocessing(
    least_gain=0.001,
    applied=(trial("liver", "spleen"), trial("spleen")),
    rejected=(trial("liver"),),
    fold_sha256={"0": "aa", "1": "bb"},
)


def test_comes_back_as_it_was_written(tmp_path):
    assert Postprocessing.read(tmp_path, ORGANS) is None
    DECIDED.write(tmp_path)
    assert Postprocessing.read(tmp_path, ORGANS) == DECIDED
    assert DECIDED.groups == (("liver", "spleen"), ("spleen",))
    Postprocessing(least_gain=0.001).write(tmp_path)
    assert Postprocessing.read(tmp_path, REGIONS).groups == ()


def test_a_file_of_0_1_0_is_read_as_measured_on_validation_cases(tmp_path):
    old = DECIDED.model_dump(mode="json")
    del old["measured_on"]
    old_file = tmp_path / "clean_up.json"
    old_file.write_text(json.dumps({**old, "version": 1}))
    upgraded = Postprocessing.read(tmp_path, ORGANS)
    assert upgraded == DECIDED and upgraded.measured_on == "validation cases"
    upgraded.write(tmp_path)
    assert not old_file.exists() and Postprocessing.read(tmp_path, ORGANS) == DECIDED


def test_a_broken_file_of_0_1_0_is_named(tmp_path):
    (tmp_path / "clean_up.json").write_text("{")
    with pytest.raises(UserError, match=r"clean_up\.json: .*not valid JSON"):
        Postprocessing.read(tmp_path, ORGANS)


@pytest.mark.parametrize(
    ("now", "fits"),
    [({"0": "aa", "1": "bb"}, True), ({"1": "bb"}, True), ({"0": "aa", "1": "cc"}, False), ({"all": "dd"}, True)],
)
def test_knows_which_weights_it_was_measured_with(now, fits):
    assert DECIDED.is_of(now) == fits


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 3}, "version 3; this swinssl reads version 2"),
        ({"measured_on": "test cases"}, "measured_on: Input should be"),
        ({"applied": [{**trial("kidney").model_dump()}]}, "the model has no structure 'kidney'; it has liver, spleen"),
        ({"applied": [{**trial("liver").model_dump(), "after": 1.5}]}, r"applied\.0\.after"),
        ({"applied": [{**trial("liver").model_dump(), "structures": []}]}, r"applied\.0\.structures"),
        ({"run": "rm"}, "run: Extra inputs"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, change, message):
    (tmp_path / POSTPROCESSING_FILE).write_text(json.dumps({**DECIDED.model_dump(mode="json"), **change}))
    with pytest.raises(UserError, match=rf"postprocessing\.json: .*{message}.*Delete it"):
        Postprocessing.read(tmp_path, ORGANS)


def test_regions_are_not_cleaned(tmp_path):
    Postprocessing(least_gain=0.001, applied=(trial("core"),)).write(tmp_path)
    with pytest.raises(UserError, match="post-processes regions, which overlap"):
        Postprocessing.read(tmp_path, REGIONS)
