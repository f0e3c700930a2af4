"""A list of volumes typed where a raw data set is: the same as a folder with the same images, all the way."""

from __future__ import annotations

import json

import psutil
import pytest
from support.raw_folders import GRID, ct, make_raw

from swinssl.cli.command import run_typed
from swinssl.cli.pretrain import pretrain_command
from swinssl.imageio.writer import write_volume

COARSE = ("--preset", "tiny", "--decoder", "light", "--spacing", 3, 2, 2, "--patch", 32, 32, 32)
PLAN = ("--device", "cpu", "--workers", 0, *COARSE)
SHORT = ("--steps", "2", "--batch-size", "2", "--device", "cpu", "--precision", "fp32", "--readers", "0")


@pytest.fixture
def folder(tmp_path):
    """Three CT volumes without labels, as a data set called `scans`."""
    return make_raw(tmp_path / "scans", labelled=False, numbered=False)


@pytest.fixture
def scans(folder, tmp_path, monkeypatch):
    """The same volumes as a list of the same name; the folder in which one is has nothing else."""
    here = tmp_path / "here"
    here.mkdir()
    images = sorted((folder / "imagesTr").iterdir(), reverse=True)
    lines = ["# channel: CT", images[0], *(f"../{image.relative_to(tmp_path)}" for image in images[1:])]
    (here / "scans.txt").write_text("\n".join(map(str, lines)))
    monkeypatch.setenv("SWINSSL_ROOT", str(tmp_path / "root"))
    monkeypatch.chdir(here)
    return here / "scans.txt"


def contents(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_equals_a_folder_with_the_same_images(folder, scans, typed, tmp_path, monkeypatch):
    class Memory:
        available = 8 * 10**9

    monkeypatch.setattr(psutil, "virtual_memory", Memory)  # which plans name, and other programs change
    for dataset, root in ((folder, tmp_path / "of folder"), (scans, tmp_path / "of list")):
        assert typed("plan_and_preprocess", dataset, *PLAN, "--root", root).code == 0
    of_folder, of_list = (contents(tmp_path / name) for name in ("of folder", "of list"))
    assert {name.split("/")[-1] for name in of_list} >= {"dataset_fingerprint.json", "image.b2nd", "properties.json"}
    description = json.loads(of_folder.pop("preprocessed/scans/dataset.json"))
    assert json.loads(of_list.pop("preprocessed/scans/dataset.json")) == description
    measured = [json.loads(its.pop("preprocessed/scans/dataset_fingerprint.json")) for its in (of_list, of_folder)]
    assert [facts["swinssl"].pop("source") for facts in measured] == [str(scans), str(folder)]
    assert measured[0] == measured[1]
    assert of_list == of_folder


def test_all_the_way_to_an_encoder(folder, scans, typed, tmp_path, capsys):
    done = typed("check", "scans.txt", "--workers", 0)
    assert done.code == 0 and done.out.startswith("scans: 3 cases; channels: CT; no structures\n")
    assert done.out.splitlines()[-1] == "next: swinssl_plan_and_preprocess scans.txt"
    assert "next: swinssl_preprocess scans.txt" in typed("plan", "scans.txt", *PLAN).out
    assert "3 preprocessed, 0 current, 0 failed" in typed("preprocess", "scans.txt", "--workers", 0).out
    assert "3 current, 0 failed" in typed("plan_and_preprocess", scans, *PLAN).out

    simmim = pretrain_command("simmim")
    run_typed(simmim, ["scans.txt", *SHORT])
    run = tmp_path / "root" / "results" / "pretraining" / "simmim__scans"
    assert f"encoder: {run / 'encoder.safetensors'}" in capsys.readouterr().out
    described = json.loads((run / "run.json").read_text())
    assert described["volumes"] == [f"scans/case_{number}" for number in range(3)]
    assert len({*map(str, described["image_sha256"].values())}) == 3
    run_typed(simmim, ["scans", *SHORT, "--dry-run"])  # by its name, now that it is preprocessed
    assert "volumes: 3 of scans" in capsys.readouterr().out

    for dataset in ("scans.txt", "scans"):
        assert "no case has labels" in typed("train", dataset, "--device", "cpu", *SHORT[:2]).error
    assert [path.name for path in scans.parent.iterdir()] == ["scans.txt"]
    assert {path.name for path in folder.iterdir()} == {"dataset.json", "imagesTr"}


def test_another_line_leaves_what_is_stored(scans, typed, tmp_path):
    typed("plan_and_preprocess", "scans.txt", *PLAN)
    write_volume(tmp_path / "other" / "case_0.nrrd", ct(99), GRID)
    scans.write_text(scans.read_text() + f"\n{tmp_path / 'other' / 'case_0.nrrd'}\n")
    assert "1 preprocessed, 3 current, 0 failed" in typed("plan_and_preprocess", "scans.txt", *PLAN).out
    stored = tmp_path / "root" / "preprocessed" / "scans" / "cases"
    assert sorted(path.name for path in stored.iterdir()) == ["case_0", "case_1", "case_2", "other__case_0"]


def test_a_damaged_volume_is_listed_and_fails_alone(folder, scans, typed, caplog):
    typed("plan_and_preprocess", "scans.txt", *PLAN)
    damaged = folder / "imagesTr" / "case_1.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:-20])
    found = typed("check", "scans.txt", "--json", "--workers", 0)
    (row,) = json.loads(found.out)
    assert (found.code, row["code"], row["file"]) == (2, "E204", "../scans/imagesTr/case_1.nii.gz")
    planned = typed("plan", "scans.txt", *PLAN)
    assert planned.code == 0 and f"Run swinssl_check {scans} for the complete list" in caplog.text
    assert "1 of 3 cases failed: case_1" in typed("preprocess", "scans.txt", "--workers", 0).error


@pytest.mark.parametrize("step", ["plan", "preprocess", "plan_and_preprocess"])
def test_a_bad_line_is_refused_before_anything_is_done(scans, typed, tmp_path, step):
    scans.write_text(f"{scans.read_text()}\n{tmp_path}\n")
    done = typed(step, "scans.txt")
    assert done.code == 2 and f"{tmp_path}: is a folder (line 5 of scans.txt). List the images" in done.error
    assert not (tmp_path / "root").exists()
