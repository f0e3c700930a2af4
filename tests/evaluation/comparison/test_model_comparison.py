"""Comparing several models: families of tests, what is named, gaps, convergence, and few patients."""

from __future__ import annotations

import json

import pytest
from support.made_scores import drawn, table

from swinssl.core.errors import UserError
from swinssl.evaluation.comparison.convergence import read_curve
from swinssl.evaluation.comparison.model_comparison import ALL, compare_models
from swinssl.evaluation.comparison.organ_groups import read_groups
from swinssl.evaluation.comparison.performance_gap import performance_gaps
from swinssl.evaluation.comparison.score_table import ScoreTable
from swinssl.evaluation.comparison.study import make_study
from swinssl.evaluation.statistics.paired_tests import holm

LEVELS = {"scratch": 0.6, "smit": 0.612, "simmim": 0.606, "rotation": 0.602}


@pytest.fixture(scope="module")
def scores():
    return drawn(LEVELS)


def by_name(comparison):
    return {(one.compared.first, one.compared.second, one.scope.name): one for one in comparison.tests}


def test_the_named_comparison_is_first_and_raw_and_two_families_are_corrected(scores):
    found = compare_models(scores, named=["smit:scratch"], reference="scratch")
    first, *others = found.tests
    assert (first.compared.first, first.compared.second, first.scope.name) == ("smit", "scratch", ALL)
    assert first.prespecified and first.corrected is None and first.p == first.compared.p
    on_all = [one for one in others if one.scope.is_all]
    assert [one.compared.first for one in on_all] == ["simmim", "rotation"]
    assert [one.corrected for one in on_all] == pytest.approx(holm([one.compared.p for one in on_all]))
    single = [one for one in others if not one.scope.is_all]
    assert len(single) == 3 * 2
    assert [one.corrected for one in single] == pytest.approx(holm([one.compared.p for one in single]))


def test_a_structure_can_be_named(scores):
    found = compare_models(scores, named=["smit:scratch:left"], reference="scratch")
    assert by_name(found)["smit", "scratch", "left"].corrected is None
    assert by_name(found)["smit", "scratch", ALL].corrected is not None


def test_every_pair_is_compared_once_and_the_named_one_as_it_was_named(scores):
    pairs = [key[:2] for key in by_name(compare_models(scores, named=["scratch:smit"])) if key[2] == ALL]
    assert len(pairs) == 6 and len({frozenset(pair) for pair in pairs}) == 6
    assert pairs[0] == ("scratch", "smit") and ("rotation", "simmim") in pairs


def test_a_group_is_the_mean_of_its_structures(scores):
    found = compare_models(scores, groups={"both": ["left", "right"]})
    one = by_name(found)
    assert one["smit", "scratch", "both"].compared.mean == pytest.approx(one["smit", "scratch", ALL].compared.mean)


def test_of_a_single_structure_nothing_is_tested_twice():
    found = compare_models(drawn(LEVELS, structures=("tumour",)))
    assert [scope.name for scope in found.scopes] == [ALL]


def test_under_six_pairs_it_says_that_none_can_be_significant():
    found = compare_models(drawn({"a": 0.3, "b": 0.9}, cases=5))
    assert any("with 5 pairs (b and a) no p can fall below 0.062" in note for note in found.notes)
    assert not any("Too few" in note for note in compare_models(drawn({"a": 0.3, "b": 0.9}, cases=6)).notes)


def test_different_patients_are_compared_as_groups():
    ct, mr = drawn({"ct": 0.8}, name="c"), drawn({"mr": 0.5}, name="m", cases=9)
    (one, *_) = compare_models(type(ct)((*ct.scores, *mr.scores)), paired=False).tests
    assert not one.compared.paired and one.compared.n == 9 and one.compared.p < 0.001


def test_what_is_not_comparable_is_said():
    scores = table(("a", 0, "x", "s", 0.5), ("b", 1, "x", "s", 0.5))
    notes = compare_models(scores, named=["a:b"]).notes
    assert "Named, but without a patient and a seed in common: a and b." in notes


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("smit", "expected A:B"),
        ("smti:scratch", "Did you mean"),
        ("smit:smit", "against itself"),
        ("smit:scratch:x", "no structure"),
    ],
)
def test_a_name_that_is_wrong_is_answered_with_the_right_ones(scores, named, said):
    with pytest.raises(UserError, match=said):
        compare_models(scores, named=[named])


def test_a_single_model_is_nothing_to_compare():
    with pytest.raises(UserError, match="nothing to compare"):
        compare_models(drawn({"a": 0.5}))


def test_the_gap_is_to_the_best_of_the_task():
    gaps = performance_gaps({("smit", "5"): 0.6, ("smit", "many"): 0.8, ("scratch", "5"): 0.4})
    assert gaps == pytest.approx({("smit", "5"): -25, ("smit", "many"): 0, ("scratch", "5"): -50})


def test_the_paper_s_groups_are_found_in_any_spelling():
    amos = "spleen,right kidney,gall bladder,esophagus,postcava,left adrenal gland,bladder,prostate/uterus,Liver"
    groups = read_groups(["paper", "mine=spleen,bladder"], amos.split(","))
    assert groups == {
        "large": ("spleen", "right kidney", "Liver"),
        "GI": ("esophagus",),
        "small": ("gall bladder", "left adrenal gland"),
        "vessels": ("postcava",),
        "pelvic": ("bladder", "prostate/uterus"),
        "mine": ("spleen", "bladder"),
    }
    with pytest.raises(UserError, match="no structure 'splen'"):
        read_groups(["x=splen"], ["spleen"])


def test_convergence_is_the_first_step_at_95_per_cent_of_the_last_dice(tmp_path):
    scores = {100: 0.2, 200: 0.7, 300: 0.77, 400: 0.75, 500: 0.8}
    lines = [json.dumps({"step": s, "loss": 1 / s, "validation_score": v}) for s, v in scores.items()]
    lines.insert(1, json.dumps({"step": 150, "loss": 0.5}))
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + '\n{"step": 600, "lo')
    curve = read_curve(f"smit={tmp_path}")
    assert (curve.model, curve.steps_to_converge) == ("smit", 300)
    assert len(curve.loss) == 6 and len(curve.scores) == 5
    with pytest.raises(UserError, match="cannot be read"):
        read_curve(f"smit={tmp_path / 'none'}")


def test_settings_with_other_models_are_compared_as_far_as_they_go():
    lung = drawn({"scratch": 0.5, "smit": 0.6}, task="lung", structures=("tumour",))
    organs = drawn({"scratch": 0.5, "simmim": 0.6}, task="organs")
    alone = drawn({"smit": 0.9}, task="liver")
    scores = ScoreTable((*lung.scores, *organs.scores, *alone.scores))
    study = make_study(scores, named=["smit:scratch", "simmim:scratch:left"], reference="smit")
    named = {
        name: [(one.compared.first, one.scope.name) for one in own.tests if one.prespecified]
        for name, own in study.settings.items()
    }
    assert named == {"lung": [("smit", ALL)], "organs": [("simmim", "left")]}
    with pytest.raises(UserError, match="no model 'smti'"):
        make_study(scores, named=["smti:scratch"])
    with pytest.raises(UserError, match="--against me: no such model"):
        make_study(scores, reference="me")
