"""Folds and few-shot subsets: whole groups, spread structures, the same everywhere and every time."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swinssl.core.errors import UserError
from swinssl.dataset.splits import (
    Fold,
    fold_of,
    load_or_make_splits,
    make_splits,
    read_splits,
    shots_subset,
    stratified_folds,
    stratified_order,
)


def cases(number, *, rare=0.1, seed=0):
    """Cases that all have an organ, half of them a tumour, and few something rare."""
    draw = random.Random(seed)
    shares = {"organ": 1.0, "tumour": 0.5, "rare": rare}
    return {f"case_{i:03d}": tuple(s for s, p in shares.items() if draw.random() < p) for i in range(number)}


def count(structure, ids, structures):
    return sum(structure in structures[case] for case in ids)


EXPECTED_FOLDS = [
    ("case_006", "case_007", "case_011"),
    ("case_001", "case_004", "case_008"),
    ("case_002", "case_009"),
    ("case_003", "case_005"),
    ("case_000", "case_010"),
]


class TestFolds:
    @settings(max_examples=50, deadline=None)
    @given(st.integers(2, 60), st.integers(0, 5), st.integers(0, 3))
    def test_every_case_validates_once_and_sizes_differ_by_one(self, number, data_seed, seed):
        structures = cases(number, seed=data_seed)
        folds = make_splits(structures, seed=seed)
        assert len(folds) == min(5, number)
        assert sorted(case for fold in folds for case in fold.val) == sorted(structures)
        sizes = [len(fold.val) for fold in folds]
        assert max(sizes) - min(sizes) <= 1
        for fold in folds:
            assert sorted((*fold.train, *fold.val)) == sorted(structures)

    def test_rare_structures_are_spread(self):
        """Five of a hundred cases have it: one in each fold. Chance alone does that in 4 % of divisions."""
        structures = {f"c{i:03d}": ("organ", "rare") if i < 5 else ("organ",) for i in range(100)}
        for seed in range(5):
            folds = stratified_folds(structures, folds=5, seed=seed)
            assert [count("rare", fold, structures) for fold in folds] == [1] * 5

    @settings(max_examples=50, deadline=None)
    @given(st.integers(2, 60), st.integers(1, 12), st.integers(0, 3))
    def test_groups_stay_together(self, number, patients, seed):
        structures = cases(number)
        groups = {case: f"p{i % patients}" for i, case in enumerate(structures)}
        folds = stratified_folds(structures, folds=5, seed=seed, groups=groups)
        assert len(folds) == min(5, patients, number) and sorted(c for f in folds for c in f) == sorted(structures)
        homes = {}
        for i, fold in enumerate(folds):
            for case in fold:
                assert homes.setdefault(groups[case], i) == i

    def test_the_same_on_every_platform(self):
        """Written down once; a change makes old and new runs of a data set incomparable."""
        folds = stratified_folds(cases(12), folds=5, seed=0)
        assert folds == EXPECTED_FOLDS

    def test_order_of_the_cases_does_not_matter(self):
        structures = cases(30)
        turned = dict(reversed(structures.items()))
        assert make_splits(structures) == make_splits(turned) != make_splits(structures, seed=1)

    def test_few_cases(self):
        assert {*make_splits({"a": (), "b": ()})} == {Fold(("a",), ("b",)), Fold(("b",), ("a",))}
        assert make_splits({"a": ("organ",)}) == (Fold(("a",), ("a",)),)
        one_patient = make_splits({"a": (), "b": ()}, groups={"a": "p", "b": "p"})
        assert one_patient == (Fold(("a", "b"), ("a", "b")),)


class TestFile:
    def write(self, folder, *folds):
        (folder / "splits_final.json").write_text(json.dumps([{"train": t, "val": v} for t, v in folds]))

    def test_is_made_once_and_kept(self, tmp_path):
        folds = load_or_make_splits(tmp_path, structures=cases(10))
        content = json.loads((tmp_path / "splits_final.json").read_text())
        assert content == [{"train": list(f.train), "val": list(f.val)} for f in folds]
        changed = dict.fromkeys(cases(10), ())
        assert load_or_make_splits(tmp_path, structures=changed) == folds == read_splits(tmp_path / "splits_final.json")

    def test_someones_file_counts(self, tmp_path):
        self.write(tmp_path, (["a", "b"], ["c"]), (["c"], ["a"]))
        structures = dict.fromkeys("abc", ())
        assert fold_of(tmp_path, "0", structures=structures) == (("a", "b"), ("c",))
        assert fold_of(tmp_path, "1", structures=structures) == (("c",), ("a",))
        assert fold_of(tmp_path, "all", structures=structures) == (("a", "b", "c"), ())

    def test_nnunets_file(self, shared_data):
        path = shared_data.parent / "spec" / "nnunet_ref" / "splits_final.json"
        if not path.is_file():
            pytest.skip("no reference file here")
        folds = read_splits(path)
        assert len(folds) == 5 and all(not {*fold.train} & {*fold.val} for fold in folds)

    @pytest.mark.parametrize("fold", ["2", "-1", "x", "", "0.5"])
    def test_no_such_fold(self, tmp_path, fold):
        with pytest.raises(UserError, match=r"folds 0 to 1. Choose one of them, or all"):
            fold_of(tmp_path, fold, structures={"a": (), "b": ()})

    @pytest.mark.parametrize(
        ("folds", "words"),
        [
            ([(["a", "b"], ["case"])], r"not in the data set: 1 \(case\).*Did you mean cases"),
            ([(["a", "b"], ["b"])], "b on both sides"),
            ([(["a"], ["cases"]), (["cases"], ["b", "b"])], "fold 1 names b twice"),
            ([([], ["a"])], "no training case"),
            ([(["a"], ["b"])], "group p on both sides"),
        ],
    )
    def test_what_does_not_fit(self, tmp_path, folds, words):
        self.write(tmp_path, *folds)
        with pytest.raises(UserError, match=words) as refused:
            load_or_make_splits(tmp_path, structures={"a": (), "b": (), "cases": ()}, groups={"a": "p", "b": "p"})
        assert str(tmp_path / "splits_final.json") in str(refused.value)

    @pytest.mark.parametrize("content", ["{}", "[]", '[{"train": ["a"]}]', '[{"train": "a", "val": []}]', "[", "[1]"])
    def test_not_of_the_form(self, tmp_path, content):
        (tmp_path / "splits_final.json").write_text(content)
        with pytest.raises(UserError, match="Expected is"):
            load_or_make_splits(tmp_path, structures={"a": ()})

    def test_one_case_may_validate_on_itself(self, tmp_path):
        assert fold_of(tmp_path, "0", structures={"a": ()}) == (("a",), ("a",))
        assert fold_of(tmp_path, "0", structures={"a": ()}) == (("a",), ("a",))  # and again, from the file

    def test_cases_that_no_fold_has_are_mentioned(self, tmp_path, caplog):
        self.write(tmp_path, (["a"], ["b"]))
        load_or_make_splits(tmp_path, structures={"a": (), "b": (), "new": ()})
        assert "cases that no fold has: 1 (new)" in caplog.text

    def test_no_labelled_case(self, tmp_path):
        with pytest.raises(UserError, match="no case has labels"):
            load_or_make_splits(tmp_path, structures={})


class TestShots:
    def subset(self, folder, shots, *, number=40, seed=0, fold="0"):
        structures = cases(number)
        return shots_subset(folder, tuple(structures), shots, seed=seed, fold=fold, structures=structures)

    def test_are_nested(self, tmp_path):
        for seed in range(4):
            five, ten, twenty = (self.subset(tmp_path, n, seed=seed) for n in (5, 10, 20))
            assert five == ten[:5] and ten == twenty[:10] and len({*twenty}) == 20

    def test_are_kept(self, tmp_path):
        first = self.subset(tmp_path, 5)
        assert self.subset(tmp_path, 5, seed=1) != first
        kept = json.loads((tmp_path / "splits_shots.json").read_text())
        assert kept.keys() == {"fold_0"} and kept["fold_0"].keys() == {"seed_0", "seed_1"}
        assert kept["fold_0"]["seed_0"][:5] == list(first) == list(self.subset(tmp_path, 5))
        self.subset(tmp_path, 3, fold="all")
        assert json.loads((tmp_path / "splits_shots.json").read_text()).keys() == {"fold_0", "fold_all"}

    @pytest.mark.parametrize("seed", range(5))
    def test_have_every_structure_from_the_start_and_its_share_after(self, seed):
        structures = cases(60, rare=0.1)
        order = stratified_order(structures, seed=seed)
        assert {s for case in order[:2] for s in structures[case]} == {"organ", "tumour", "rare"}
        for shots in (10, 20, 40):
            share = count("tumour", structures, structures) / 60 * shots
            assert abs(count("tumour", order[:shots], structures) - share) <= 1.5

    @pytest.mark.parametrize("shots", [0, 41])
    def test_no_such_number(self, tmp_path, shots):
        with pytest.raises(UserError, match="has 40 training cases"):
            self.subset(tmp_path, shots)

    def test_other_training_cases_than_before(self, tmp_path):
        self.subset(tmp_path, 5)
        with pytest.raises(UserError, match="orders other cases than"):
            self.subset(tmp_path, 5, number=41)

    @pytest.mark.parametrize("content", ["[]", '{"fold_0": 3}', '{"fold_0": {"seed_0": 3}}', "{"])
    def test_not_of_the_form(self, tmp_path, content):
        (tmp_path / "splits_shots.json").write_text(content)
        with pytest.raises(UserError, match="Delete it"):
            self.subset(tmp_path, 5)
