"""swinssl_preprocess and swinssl_plan_and_preprocess as typed: files, table, parts, what a second run leaves alone."""

from __future__ import annotations

import json

import pytest
from support.raw_folders import make_raw

from swinssl.preprocessing.store import IMAGE, REFERENCES, PreprocessedDataset

CASES = ("case_0", "case_1", "case_2")


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """Three CT cases in the workspace's raw folder, as data set 7."""
    monkeypatch.setenv("SWINSSL_ROOT", str(tmp_path))
    return make_raw(tmp_path / "raw" / "Dataset007_Toy")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "preprocessed" / "Dataset007_Toy"


@pytest.fixture
def planned(raw, typed):
    assert typed("plan", "7", "--device", "cpu").code == 0


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def stored(folder):
    return PreprocessedDataset.open(folder).case_ids


@pytest.mark.usefixtures("planned")
class TestPreprocess:
    @pytest.mark.parametrize("workers", [0, 2])
    def test_stores_every_case_and_shows_what_became_of_the_structures(self, folder, typed, workers):
        done = typed("preprocess", "7", "--workers", workers)
        assert done.code == 0
        rows = {words[0]: words[1:] for line in done.out.splitlines() if (words := line.split())}
        # The grid stays 3 x 1 x 1 mm: 3 x 79 and 3 x 18 voxels, none lost.
        assert rows["liver"] == ["3", "237", "237", "-"] and rows["tumour"] == ["3", "54", "54", "-"]
        assert f"3 preprocessed, 0 current, 0 failed; 0.0 MB in {folder}" in done.out
        assert done.out.splitlines()[-1] == "next: swinssl_train 7 --fold 0"
        assert stored(folder) == CASES
        assert {path.name for path in (folder / REFERENCES).iterdir()} == {f"{case}.nii.gz" for case in CASES}

    def test_a_second_run_leaves_what_is_current_and_mends_what_is_damaged(self, folder, typed):
        typed("preprocess", "7")
        before = contents(folder)
        assert "0 preprocessed, 3 current, 0 failed" in typed("preprocess", "7").out
        assert contents(folder) == before
        damaged = folder / "cases" / "case_1" / IMAGE
        damaged.write_bytes(damaged.read_bytes()[:-1])
        assert "1 preprocessed, 2 current, 0 failed" in typed("preprocess", "7").out
        assert stored(folder) == CASES

    def test_another_grid_makes_every_case_anew(self, folder, typed):
        typed("preprocess", "7")
        typed("plan", "7", "--device", "cpu", "--spacing", "3", "2", "2")
        assert "3 preprocessed, 0 current" in typed("preprocess", "7").out

    def test_parts_make_up_the_whole(self, folder, typed):
        first = typed("preprocess", "7", "--part", "1/2").out
        assert "2 preprocessed, 0 current, 0 failed" in first
        assert first.endswith("next: the other parts; 1 cases of 7 are still to be preprocessed\n")
        assert stored(folder) == ("case_0", "case_2")
        assert "1 preprocessed, 0 current, 0 failed" in typed("preprocess", "7", "--part", "2/2").out
        assert stored(folder) == CASES

    def test_json_stands_alone_on_stdout(self, typed):
        report = json.loads(typed("preprocess", "7", "--json").out)
        assert [(case["case_id"], case["status"]) for case in report["cases"]] == [(case, "done") for case in CASES]
        assert report["cases"][0]["voxels_after"] == {"liver": 79, "tumour": 18}
        assert report["orphans"] == [] and report["cases"][0]["vanished"] == []

    def test_dry_run_counts_and_writes_nothing(self, folder, typed):
        before = contents(folder)
        done = typed("preprocess", "7", "--dry-run")
        assert done.out == f"nothing written (would preprocess 3 of 3 cases into {folder})\n"
        assert contents(folder) == before
        typed("preprocess", "7", "--part", "1/3")
        assert "would preprocess 2 of 3 cases" in typed("preprocess", "7", "--dry-run").out
        report = json.loads(typed("preprocess", "7", "--dry-run", "--json").out)
        assert report == {
            "folder": str(folder),
            "would_preprocess": ["case_1", "case_2"],
            "current": ["case_0"],
            "would_fail": {},
        }

    def test_a_bad_case_is_named_and_the_others_are_done(self, raw, folder, typed, caplog):
        truncated = raw / "imagesTr" / "case_1_0000.nii.gz"
        truncated.write_bytes(truncated.read_bytes()[:200])
        done = typed("preprocess", "7")
        assert done.code == 2
        assert done.error == (
            "1 of 3 cases failed: case_1. Fix them or take them out of the raw data set, then rerun the command; it "
            "skips what is done."
        )
        assert "2 preprocessed, 0 current, 1 failed" in done.out
        # The reason is said once, when the case fails.
        assert caplog.text.count(str(truncated)) == 1 and str(truncated) not in done.out
        assert stored(folder) == ("case_0", "case_2")
        report = typed("preprocess", "7", "--json")
        assert report.code == 2
        assert [case["status"] for case in json.loads(report.out)["cases"]] == ["current", "failed", "current"]

    def test_a_case_that_left_the_raw_data_set_is_pointed_out(self, raw, typed):
        typed("preprocess", "7")
        (raw / "imagesTr" / "case_2_0000.nii.gz").unlink()
        (raw / "labelsTr" / "case_2.nii.gz").unlink()
        done = typed("preprocess", "7")
        assert done.code == 0 and "also has case_2, no longer in the raw data set" in done.out

    @pytest.mark.parametrize(
        ("flags", "words"),
        [
            ("--part 3/2", "--part 3/2: expected I/N with 1 <= I <= N"),
            ("--part half", "--part half: expected I/N"),
            ("--cluster tcp://host:8786", "or add --insecure-cluster where the network is yours alone."),
            ("--codec zip", "--codec zip: unknown. Choose one of lz4, lz4hc, zstd."),
        ],
    )
    def test_wrong_flags_are_refused_before_any_work(self, folder, typed, flags, words):
        before = contents(folder)
        done = typed("preprocess", "7", *flags.split())
        assert done.code == 2 and words in done.error
        assert contents(folder) == before


@pytest.mark.usefixtures("raw")
class TestWithoutAPlan:
    def test_says_to_plan_first(self, folder, typed):
        done = typed("preprocess", "7")
        assert done.code == 2 and f"{folder}: no plans here. Run swinssl_plan" in done.error
        assert not folder.exists()


class TestPlanAndPreprocess:
    def test_does_both(self, raw, folder, typed):
        done = typed("plan_and_preprocess", "7", "--device", "cpu", "--workers", "0")
        assert done.code == 0 and done.out.startswith("Dataset007_Toy: 3 cases measured; recipe auto\n")
        assert "3 preprocessed, 0 current, 0 failed" in done.out
        assert done.out.splitlines()[-1] == "next: swinssl_train 7 --fold 0"
        assert stored(folder) == CASES
        again = typed("plan_and_preprocess", "7", "--device", "cpu").out
        assert "3 cases measured before, unchanged" in again and "0 preprocessed, 3 current" in again

    def test_json_stands_alone_on_stdout(self, raw, folder, typed):
        report = json.loads(typed("plan_and_preprocess", "7", "--device", "cpu", "--json").out)
        assert report["plans"] == json.loads((folder / "swinsslPlans.json").read_text())
        assert [case["status"] for case in report["preprocessing"]["cases"]] == ["done"] * 3

    def test_dry_run_writes_nothing(self, raw, folder, typed):
        done = typed("plan_and_preprocess", "7", "--device", "cpu", "--dry-run")
        assert done.code == 0 and done.out.count("nothing written (") == 2 and not folder.exists()
        report = json.loads(typed("plan_and_preprocess", "7", "--device", "cpu", "--dry-run", "--json").out)
        assert report["preprocessing"]["would_preprocess"] == [*CASES]
        assert report["plans"]["spacing"] == [3.0, 1.0, 1.0] and not folder.exists()

    def test_images_without_labels_are_made_ready_for_pretraining(self, tmp_path, folder, monkeypatch, typed):
        monkeypatch.setenv("SWINSSL_ROOT", str(tmp_path))
        make_raw(tmp_path / "raw" / "Dataset007_Toy", labelled=False)
        done = typed("plan_and_preprocess", "7", "--device", "cpu")
        assert done.code == 0 and done.out.splitlines()[-1].startswith("next: no case has labels")
        assert stored(folder) == CASES and not (folder / REFERENCES).exists()
