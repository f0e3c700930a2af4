"""What a channel is: values decide, names ask, and every command answers alike."""

from __future__ import annotations

import numpy as np
import pytest
from support.raw_folders import GRID, ct, make_raw

from swinssl.dataset.channel_kind import ImageValues, channel_kind, named_ct
from swinssl.dataset.checks.dataset_check import check_dataset
from swinssl.dataset.raw_dataset import RawDataset
from swinssl.imageio.writer import write_volume
from swinssl.preprocessing.fingerprint_extraction import extract_fingerprint

HU = np.concatenate([np.full(600, -1000.0), np.linspace(-120, 200, 380), np.linspace(300, 1500, 20)])
NO_AIR = np.linspace(-120, 250, 1000)
MR = np.linspace(0, 900, 1000)


def kind(name, *arrays):
    return channel_kind(name, [ImageValues.of(array.astype(np.float32)) for array in arrays])


@pytest.mark.parametrize(
    ("name", "values", "expected", "question"),
    [
        ("CT", HU, "hounsfield", ""),
        ("portal-venous CT", HU, "hounsfield", ""),
        ("T1", HU, "hounsfield", "'T1' has values from -1000 to 1500 as a CT"),
        ("image", HU, "hounsfield", "is treated as CT"),
        ("CBCT", HU, "hounsfield", "is treated as CT"),
        ("CT", NO_AIR, "hounsfield", ""),
        ("T1", NO_AIR, "arbitrary", ""),
        ("CT", MR, "ct_in_another_unit", "no fat and air"),
        ("CT", HU + 1024, "ct_in_another_unit", "left out"),
        ("CT", HU - 1024, "ct_in_another_unit", "applied twice"),
        ("CT", (HU + 1000) / 2500, "ct_in_another_unit", "noNorm"),
        ("CT", HU * 100, "ct_in_another_unit", "beyond Hounsfield"),
        ("T1", MR, "arbitrary", ""),
        ("SPECT", MR, "arbitrary", ""),
        ("noNorm", HU, "arbitrary", ""),
        ("zscore", HU, "arbitrary", ""),
    ],
)
def test_values_decide_and_names_ask(name, values, expected, question):
    found = kind(name, values, values)
    assert found.kind == expected and question in found.question and bool(found.question) == bool(question)


def test_half_of_the_cases_are_enough_and_the_others_are_named():
    found = kind("CT", HU, HU - 1024, HU, HU + 1024)
    assert found.kind == "hounsfield" and [*found.unlike] == [1, 3]


def test_metal_and_what_lies_outside_the_field_of_view_are_no_other_unit():
    values = HU.copy()
    values[:300], values[-3:] = -3024, 20_000
    assert kind("CT", values) == kind("CT", HU)


@pytest.mark.parametrize("name", ["CT", "ct", "CTscan", "CT_image", "CECT", "abdomen CT", "CtArterial"])
def test_names_that_say_ct(name):
    assert named_ct(name)


@pytest.mark.parametrize("name", ["CBCT", "PET-CT", "SPECT", "T2", "octopus", "structure", "MR", "pCTMR mr"])
def test_names_that_do_not(name):
    assert not named_ct(name)


def test_check_and_plan_answer_alike(tmp_path):
    folder = make_raw(tmp_path / "Dataset001_Toy", cases=5, channel_names={"0": "T1"})
    write_volume(folder / "imagesTr/case_1_0000.nii.gz", (ct(10) - 1024).astype(np.int16), GRID)
    findings = check_dataset(folder, workers=0).findings
    (remedy,) = [finding.remedy for finding in findings if finding.code == "W306"]
    assert remedy == "If it is not a CT, give swinssl_plan another --intensity."
    checked = {(f.code, f.file) for f in findings}
    assert checked == {("W306", "dataset.json"), ("W305", "imagesTr/case_1_0000.nii.gz")}
    (planned,) = extract_fingerprint(RawDataset.load(folder), workers=0).channel_kinds
    assert planned.kind == "hounsfield" and [*planned.unlike] == [1]
