"""What is refused leaves nothing behind; what a dry run says is what the run would do."""

from __future__ import annotations

import json

import pytest
from support.raw_folders import make_raw

REFUSED = {
    "plan, damaged image": ("plan", "8"),
    "plan, no such encoder": ("plan", "7", "--init", "nowhere.safetensors"),
    "plan_and_preprocess, damaged image": ("plan_and_preprocess", "8", "--workers", "0"),
    "preprocess, no plan": ("preprocess", "7"),
    "train, nothing preprocessed": ("train", "7"),
    "predict, no model": ("predict", "-i", "raw/Dataset007_Toy/imagesTr", "-o", "out", "-m", "7"),
    "evaluate, no references": (
        *("evaluate", "--predictions", "raw/Dataset007_Toy/labelsTr", "--references", "nowhere", "--out", "out/deep"),
    ),
    "compare, no scores": ("compare", "bad.csv", "--out", "out/deep"),
    "cka, no encoder": ("cka", "bad.csv", "bad.csv", "--data", "7", "--out", "out/deep"),
    "benchmark, no TOML": ("benchmark", "bad.toml", "--out", "out/deep"),
    "convert, no task": ("convert", "msd", "raw", "--dataset", "9_New"),
    "model, no archive": ("model", "import", "bad.csv"),
}
WITHOUT_ROOT = ("evaluate", "compare")


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_raw(tmp_path / "raw" / "Dataset007_Toy")
    make_raw(tmp_path / "raw" / "Dataset008_Damaged")
    image = sorted((tmp_path / "raw" / "Dataset008_Damaged" / "imagesTr").iterdir())[0]
    image.write_bytes(image.read_bytes()[:200])
    (tmp_path / "bad.csv").write_text("nothing\n")
    (tmp_path / "bad.toml").write_text("[")
    return tmp_path


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_start_leaves_nothing(place, typed, name):
    before = sorted(place.rglob("*"))
    command, *arguments = REFUSED[name]
    root = () if command in WITHOUT_ROOT else ("--root", str(place))
    done = typed(command, *arguments, *root)
    assert done.code == 2 and done.error
    assert sorted(place.rglob("*")) == before


def test_a_dry_run_of_preprocess_counts_what_would_fail_and_exits_as_the_run_would(place, typed):
    where = ("7", "--root", str(place))
    assert typed("plan", *where, "--device", "cpu").code == 0
    image = sorted((place / "raw" / "Dataset007_Toy" / "imagesTr").iterdir())[0]
    image.write_bytes(image.read_bytes()[:200])
    before = sorted(place.rglob("*"))
    done = typed("preprocess", *where, "--dry-run")
    assert done.code == 2 and "would preprocess 2 of 3 cases" in done.out and f"would fail: case_0: {image}" in done.out
    assert sorted(place.rglob("*")) == before
    report = json.loads(typed("preprocess", *where, "--dry-run", "--json").out)
    assert report["would_preprocess"] == ["case_1", "case_2"] and [*report["would_fail"]] == ["case_0"]
    run = typed("preprocess", *where)
    assert run.code == 2 and run.error == done.error


def test_a_plan_made_again_keeps_its_encoder_unless_told_otherwise(place, typed):
    where = ("7", "--root", str(place), "--device", "cpu")
    assert typed("plan", *where, "--init", "tiny_smit_headneck_ct").code == 0
    again = typed("plan", *where, "--mirror", "none")
    assert "encoder: tiny_smit_headneck_ct, as in the plan before (--init scratch plans without" in again.out
    other = typed("plan", *where, "--preset", "small")
    assert other.code == 2 and "plan without the encoder: --init scratch." in other.error
    assert typed("plan", *where, "--preset", "small", "--init", "scratch").code == 0
    plans = json.loads((place / "preprocessed" / "Dataset007_Toy" / "swinsslPlans.json").read_text())
    assert plans["encoder"] is None and plans["network"]["preset"] == "small"
