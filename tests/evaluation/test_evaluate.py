"""Folder against folder: labels found, cases measured, in one process and in several."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.made_results import SHAPE, organ_map, write_description, write_maps

from swinssl.core.errors import UserError
from swinssl.evaluation import evaluate as module
from swinssl.evaluation.evaluate import evaluate
from swinssl.evaluation.image_search import find_images, find_images_beside
from swinssl.evaluation.reference_labels import ReferenceLabels, find_reference_labels
from swinssl.metrics.case_metrics import case_metrics


@pytest.fixture
def raw(tmp_path):
    """A data set folder with references of three cases, and predictions beside it."""
    write_description(tmp_path / "raw")
    write_maps(tmp_path / "raw" / "labelsTr", {"a": organ_map(), "b": organ_map(), "c": organ_map(tumour=False)})
    write_maps(tmp_path / "predictions", {"a": organ_map(1), "b": organ_map(2, tumour=False), "c": organ_map()})
    return tmp_path / "raw"


def run(raw, **options):
    predictions, references = raw.parent / "predictions", raw / "labelsTr"
    labels = options.pop("labels", find_reference_labels(predictions, references, None))
    return evaluate(predictions, references, labels=labels, **{"workers": 0, **options})


class TestEvaluate:
    def test_every_case_and_structure_is_measured(self, raw):
        found = run(raw, tolerances=(1.0, 2.0))
        assert [case.case_id for case in found.cases] == ["a", "b", "c"]
        assert [structure.name for structure in found.structures] == ["organ", "tumour"]
        grid = found_grid(raw)
        expected = case_metrics(
            organ_map(), organ_map(1), structures=found.structures, geometry=grid, tolerances=(1.0, 2.0)
        )
        assert found.cases[0].metrics["tumour"].surface.hd95 == pytest.approx(expected["tumour"].surface.hd95)
        assert found.cases[0].metrics["tumour"].overlap == expected["tumour"].overlap
        assert found.cases[1].metrics["tumour"].false_negative and found.cases[2].metrics["tumour"].false_positive

    def test_processes_find_what_one_finds(self, raw):
        assert run(raw, workers=2) == run(raw)

    def test_a_missing_prediction_is_an_error_unless_allowed(self, raw):
        (raw.parent / "predictions" / "b.nii.gz").unlink()
        with pytest.raises(UserError, match=r"no prediction of 1 case .*: b\. .*--allow-missing"):
            run(raw)
        found = run(raw, allow_missing=True)
        assert found.missing == ("b",) and [case.case_id for case in found.cases] == ["a", "c"]

    def test_undeclared_values_are_refused(self, raw):
        write_maps(raw.parent / "predictions", {"b": organ_map() * 4})
        with pytest.raises(UserError, match=r"predictions/b.nii.gz: values 4, 8; .*dataset.json declares 0, 1, 2"):
            run(raw)

    def test_a_bug_is_not_taken_for_a_fault_of_the_data(self, raw, monkeypatch):
        monkeypatch.setattr(module, "case_metrics", lambda *_, **__: 1 / 0)
        with pytest.raises(RuntimeError, match="ZeroDivisionError"):
            run(raw)

    def test_lesions_may_be_asked_for(self, raw):
        found = run(raw, lesions=["organ"])
        assert found.cases[0].metrics["organ"].lesions.found == 1
        with pytest.raises(UserError, match="Did you mean organ"):
            run(raw, lesions=["organs"])


class TestLabels:
    def test_structures_nobody_annotated_are_not_measured(self, raw):
        write_description(raw, labels_present={"b": ["organ"]})
        found = run(raw)
        assert [sorted(case.metrics) for case in found.cases] == [["organ", "tumour"], ["organ"], ["organ", "tumour"]]

    def test_a_table_of_annotated_structures_is_read(self, raw):
        (raw / "labels_present.csv").write_text("case,organ,tumour\na,1,0\n")
        assert sorted(run(raw).cases[0].metrics) == ["organ"]

    def test_regions_are_unions_of_values(self, raw):
        write_description(
            raw, labels={"background": 0, "whole": [1, 2], "core": [2]}, regions_class_order=[1, 2]
        )  # fmt: skip
        found = run(raw)
        assert [structure.key for structure in found.structures] == ["(1, 2)", "2"]
        assert found.cases[0].metrics["whole"].overlap.n_reference == 4 * 6 * 6

    def test_the_ignore_label_masks_its_voxels(self, raw):
        write_description(raw, labels={"background": 0, "organ": 1, "tumour": 2, "ignore": 3})
        reference = organ_map()
        reference[:, :, 7:] = 3
        write_maps(raw / "labelsTr", {"a": reference})
        overlap = run(raw).cases[0].metrics["organ"].overlap
        assert overlap.tp + overlap.fp + overlap.fn + overlap.tn == np.prod(SHAPE) // 2

    def test_without_description_values_are_structures(self, raw):
        found = run(raw, labels=None)
        assert [structure.name for structure in found.structures] == ["1", "2"]
        assert found.cases[0].metrics["2"].overlap == run(raw).cases[0].metrics["tumour"].overlap

    def test_where_the_description_is_looked_for(self, raw, tmp_path):
        predictions, references = tmp_path / "predictions", raw / "labelsTr"
        assert find_reference_labels(predictions, references, None).file == raw.resolve() / "dataset.json"
        assert find_reference_labels(predictions, references / "a.nii.gz", None).file.parent == raw.resolve()
        (raw / "dataset.json").unlink()
        assert find_reference_labels(predictions, references, None) is None
        own = write_description(predictions)
        assert find_reference_labels(predictions, references, None).file == own
        nearer = write_description(references)
        assert find_reference_labels(predictions, references, None).file == nearer
        assert find_reference_labels(predictions, references, predictions).file == own
        assert find_reference_labels(predictions, references, own).file == own

    def test_a_description_without_structures_is_refused(self, raw):
        for content, message in [("{", "not readable"), (json.dumps({"labels": {"background": 0}}), "no structure")]:
            (raw / "dataset.json").write_text(content)
            with pytest.raises(UserError, match=message):
                ReferenceLabels.read(raw / "dataset.json")

    def test_a_description_that_was_named_must_exist(self, raw):
        with pytest.raises(UserError, match=r"no dataset\.json here"):
            find_reference_labels(raw, raw, raw / "labelsTr")


class TestImages:
    def test_the_first_channel_of_each_case(self, tmp_path):
        for name in ("a_0000.nii.gz", "a_0001.nii.gz", "b.nrrd", "c_0001.nii.gz", "notes.txt"):
            (tmp_path / name).touch()
        found = find_images(["a", "b", "c"], tmp_path)
        assert {case_id: path.name for case_id, path in found.items()} == {"a": "a_0000.nii.gz", "b": "b.nrrd"}

    def test_one_file_is_the_image_of_the_only_case(self, tmp_path):
        (tmp_path / "scan.nii.gz").touch()
        assert find_images(["a"], tmp_path / "scan.nii.gz") == {"a": tmp_path / "scan.nii.gz"}
        assert find_images(["a", "b"], tmp_path / "scan.nii.gz") == {}

    def test_training_and_test_images_beside_the_labels(self, tmp_path):
        for name in ("imagesTr/a_0000.nii.gz", "imagesTs/b_0000.nii.gz"):
            (tmp_path / name).parent.mkdir()
            (tmp_path / name).touch()
        found = find_images_beside(["a", "b"], [tmp_path / "nowhere", tmp_path])
        assert {case_id: path.parent.name for case_id, path in found.items()} == {"a": "imagesTr", "b": "imagesTs"}


def found_grid(raw):
    from swinssl.imageio.reader import read_geometry

    return read_geometry(raw / "labelsTr" / "a.nii.gz")
