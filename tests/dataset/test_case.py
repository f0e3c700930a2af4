"""Names of cases: one normal form, and what no step of the pipeline could store."""

from __future__ import annotations

import os
import unicodedata

import pytest
from support.raw_folders import make_raw

from swinssl.core.errors import UserError
from swinssl.dataset.case import id_findings, split_channels
from swinssl.dataset.raw_dataset import RawDataset, survey
from swinssl.evaluation.image_search import find_images
from swinssl.evaluation.pairing import label_maps
from swinssl.inference.input_cases import find_cases


def rename(folder, old, new):
    for sub, ending in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
        (folder / sub / (old + ending)).rename(folder / sub / os.fsdecode(new + ending.encode()))


def test_composed_and_decomposed_letters_are_one_name(tmp_path):
    """As on a disk of macOS, and in a zip made there."""
    folder = make_raw(tmp_path / "raw")
    name = "Päd"
    apart = unicodedata.normalize("NFD", name)
    (folder / "imagesTr/case_0_0000.nii.gz").rename(folder / "imagesTr" / f"{apart}_0000.nii.gz")
    (folder / "labelsTr/case_0.nii.gz").rename(folder / "labelsTr" / f"{name}.nii.gz")
    (folder / "groups.csv").write_text(f"case,group\n{apart},1\n", encoding="utf-8")
    case = RawDataset.load(folder).case(name)
    assert case.label is not None and case.label.is_file() and case.images[0].is_file() and case.group == "1"
    assert name in {case.id for case in find_cases([folder / "imagesTr"], ("CT",))}
    assert name in label_maps(folder / "labelsTr") and name in find_images([name], folder / "imagesTr")


@pytest.mark.parametrize("name", [b"p\xe4t", b"con", b"a:b"])
def test_what_check_refuses_every_step_refuses(tmp_path, name):
    folder = make_raw(tmp_path / "raw")
    try:
        rename(folder, "case_0", name)
    except OSError:
        pytest.skip("this file system takes no such name")
    assert [f.code for f in survey(folder)[1] if f.severity == "error"] == ["E109"]
    for step in (
        lambda: RawDataset.load(folder),
        lambda: find_cases([folder / "imagesTr"], ("CT",)),
        lambda: label_maps(folder / "labelsTr"),
    ):
        with pytest.raises(UserError, match="Rename it") as refusal:
            step()
        str(refusal.value).encode("utf-8")  # what is said can be printed


@pytest.mark.parametrize("case_id", ["", ".hidden", " a", "a ", "nul.x", "a/b", "a\x7f", "ä" * 101])
def test_ids_that_cannot_be_stored(case_id):
    assert [finding.code for finding in id_findings([case_id])] == ["E109"]


def test_one_channel_of_several_series_stays_a_channel():
    """Two channels given to a model of one: nothing says that they are two cases."""
    names = ["a_0000", "a_0001", "b_0000", "b_0001"]
    assert split_channels(names, channels=1) == {"a": {0: "a_0000", 1: "a_0001"}, "b": {0: "b_0000", 1: "b_0001"}}


def test_a_pattern_that_never_ends_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("swinssl.dataset.case_tables.PATTERN_SECONDS", 0.5)
    folder = make_raw(tmp_path / "raw", group_pattern="(.+)+(.+)+(.+)+#")
    for i in range(3):
        rename(folder, f"case_{i}", b"a" * 60 + str(i).encode())
    with pytest.raises(UserError, match="Do not repeat what repeats"):
        RawDataset.load(folder)


def test_a_variable_that_leads_nowhere_is_not_printed(tmp_path, monkeypatch):
    monkeypatch.setenv("TOKEN", "secret")
    folder = make_raw(tmp_path / "raw", dataset={"a": {"images": ["$TOKEN/a.nii.gz"], "label": "${TOKEN}"}})
    said = " ".join(map(str, survey(folder)[1]))
    assert "$TOKEN" in said and "Set the variable" in said and "secret" not in said


def test_a_variable_that_leads_to_an_image_counts(tmp_path, monkeypatch):
    folder = make_raw(tmp_path / "raw")
    monkeypatch.setenv("SCANS", str(folder / "imagesTr"))
    entry = {"images": ["$SCANS/case_0_0000.nii.gz"], "label": "labelsTr/case_0.nii.gz"}
    case = RawDataset.load(make_raw(tmp_path / "other", dataset={"a": entry})).case("a")
    assert case.images == (folder / "imagesTr/case_0_0000.nii.gz",)
