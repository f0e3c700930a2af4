"""summary.json in nnU-Net's schema, strict, and metrics.csv with the same numbers."""

from __future__ import annotations

import csv
import io
import json

import pytest
from support.made_results import ORGAN, TUMOUR, evaluation, metrics

from swinssl.evaluation.aggregate import make_report
from swinssl.evaluation.summary import metrics_csv, summary, write_files
from swinssl.metrics.structures import Structure

NNUNET = {"Dice", "FN", "FP", "IoU", "TN", "TP", "n_pred", "n_ref"}


@pytest.fixture
def made():
    """Three cases: both structures; a missed tumour; a tumour that nobody annotated."""
    return evaluation(
        {"organ": metrics(8, 2, 2), "tumour": metrics(4, 2, 2, lesions=(2, 1, 1, 1))},
        {"organ": metrics(6, 4, 4), "tumour": metrics(0, 0, 3, lesions=(1, 0, 0, 0))},
        {"organ": metrics(0)},
        structures=(ORGAN, TUMOUR),
        extra=("z",),
    )


@pytest.fixture
def content(made):
    return summary(made, make_report(made))


def test_the_keys_are_nnunets(content):
    assert set(content["foreground_mean"]) == NNUNET
    assert set(content["mean"]) == {"1", "2"} and content["mean"]["1"].keys() >= NNUNET
    for case in content["metric_per_case"]:
        assert {"metrics", "prediction_file", "reference_file"} <= case.keys()
        assert set(case["metrics"]) == {"1", "2"} and case["metrics"]["1"].keys() >= NNUNET


def test_the_numbers_are_nnunets(content):
    first = content["metric_per_case"][0]
    assert first["prediction_file"] == "predicted/a.nii.gz" and first["reference_file"] == "drawn/a.nii.gz"
    found = {name: first["metrics"]["1"][name] for name in NNUNET}
    assert found == {"Dice": 0.8, "IoU": 8 / 12, "TP": 8, "FP": 2, "FN": 2, "TN": 988, "n_pred": 10, "n_ref": 10}
    assert content["mean"]["1"]["Dice"] == pytest.approx(0.7)  # both empty is left out
    assert content["mean"]["1"]["TP"] == pytest.approx(14 / 3)  # and counts as voxels
    assert content["mean"]["2"]["Dice"] == pytest.approx(4 / 12 + 0)  # missed is 0: (2/3 + 0) / 2
    assert content["foreground_mean"]["Dice"] == pytest.approx((0.7 + 1 / 3) / 2)


def test_a_region_has_nnunets_key():
    whole = Structure("whole", (1, 2), "(1, 2)")
    made = evaluation({"whole": metrics(5)}, structures=(whole,))
    assert set(summary(made, make_report(made))["mean"]) == {"(1, 2)"}


def test_what_is_undefined_is_null(content):
    neither, not_annotated = (
        content["metric_per_case"][2]["metrics"]["1"],
        content["metric_per_case"][2]["metrics"]["2"],
    )
    assert neither["Dice"] is neither["HD95_mm"] is neither["NSD_2mm"] is None and neither["TP"] == 0
    assert set(not_annotated.values()) == {None}
    missed = content["metric_per_case"][1]["metrics"]["2"]
    assert (missed["Dice"], missed["HD95_mm"], missed["NSD_2mm"], missed["lesion_sensitivity"]) == (0, None, 0, 0)


def test_a_structure_that_no_case_has_does_not_spoil_the_mean():
    made = evaluation({"organ": metrics(8, 2, 2), "tumour": metrics(0)}, structures=(ORGAN, TUMOUR))
    content = summary(made, make_report(made))
    assert content["mean"]["2"]["Dice"] is None and content["foreground_mean"]["Dice"] == 0.8


def test_our_own_part(content):
    own = content["swinssl"]
    assert (own["worst_case"], own["median_case"], own["cases"], own["extra_predictions"]) == ("b", "b", 3, ["z"])
    assert own["structures"]["2"]["name"] == "tumour" and own["structures"]["2"]["missed"] == ["b"]
    assert own["structures"]["1"]["averages"]["Dice"]["n"] == 2
    assert own["structures"]["2"]["lesions"]["found"] == 1 and own["structures"]["1"]["lesions"] is None


def test_the_csv_has_a_row_a_case_and_structure(made):
    rows = list(csv.DictReader(io.StringIO(metrics_csv(made))))
    assert [(row["case"], row["structure"]) for row in rows] == [
        ("a", "organ"), ("a", "tumour"), ("b", "organ"), ("b", "tumour"), ("c", "organ"),
    ]  # fmt: skip
    assert float(rows[0]["Dice"]) == 0.8 and rows[0]["label"] == "1"
    assert rows[4]["Dice"] == "" and rows[4]["TP"] == "0"
    assert rows[0]["lesions_found"] == "" and rows[1]["lesions_found"] == "1"


def test_files_are_strict_and_the_same_every_time(made, tmp_path):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    report = make_report(made)
    write_files(made, report, tmp_path / "one")
    write_files(made, make_report(made), tmp_path / "two")
    text = (tmp_path / "one" / "summary.json").read_text()
    assert json.loads(text, parse_constant=refuse)["swinssl"]["cases"] == 3
    for name in ("summary.json", "metrics.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
