"""Bad input, for the whole product: one clear message that names file and remedy, exit 2, and nothing overwritten.

Each test spoils a workspace on which all five steps would work, as the last test shows for one case.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
from support.made_models import make_plans, write_model
from support.raw_folders import GRID, SHAPE, ct, describe, liver_and_tumour, make_raw

from swinssl.cli.command import run_typed
from swinssl.cli.plan_and_preprocess import plan_and_preprocess
from swinssl.dataset.labels import LabelSet
from swinssl.imageio.volume import Geometry
from swinssl.imageio.writer import write_volume

LIVER_AND_TUMOUR = LabelSet(names=("liver", "tumour"), values=((1,), (2,)))


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Three labelled cases and two without, preprocessed; a model; predictions of the labelled cases."""
    root = tmp_path_factory.mktemp("sound")
    raw = make_raw(root / "raw" / "Dataset007_Toy")
    for number in range(2):
        write_volume(raw / "imagesTs" / f"new_{number}_0000.nii.gz", ct(50 + number), GRID)
    run_typed(plan_and_preprocess, ["7", "--root", str(root), "--device", "cpu", "--workers", "0"])
    write_model(root / "results" / "Dataset007_Toy" / "tiny", make_plans(LIVER_AND_TUMOUR))
    shutil.copytree(raw / "labelsTr", root / "predictions")
    return root


@pytest.fixture
def place(sound, tmp_path, monkeypatch):
    """A copy of the sound workspace, and where things are in it."""
    root = tmp_path / "root"
    shutil.copytree(sound, root)
    monkeypatch.setenv("SWINSSL_ROOT", str(root))
    raw, stored = root / "raw" / "Dataset007_Toy", root / "preprocessed" / "Dataset007_Toy"
    return SimpleNamespace(
        root=root,
        raw=raw,
        stored=stored,
        image=raw / "imagesTr" / "case_1_0000.nii.gz",
        label=raw / "labelsTr" / "case_1.nii.gz",
        new_image=raw / "imagesTs" / "new_1_0000.nii.gz",
        prediction=root / "predictions" / "case_1.nii.gz",
        stored_image=stored / "cases" / "case_1" / "image.b2nd",
        model=root / "results" / "Dataset007_Toy" / "tiny",
        out=root / "out",
    )


@pytest.fixture
def type_in(place, typed):
    """Type a step with its usual arguments; `changed` replaces some, as in `dataset="77"` or `model=...`."""

    def run(step, **changed):
        given = SimpleNamespace(
            **{
                "dataset": "7",
                "device": "cpu",
                "model": place.model,
                "images": place.raw / "imagesTs",
                "out": place.out,
                "predictions": place.root / "predictions",
                "references": place.raw / "labelsTr",
                "dry_run": False,
                **changed,
            }
        )
        short = ("--steps", 1, "--preset", "tiny", "--decoder", "light", "--readers", 0)
        arguments = {
            "check": (given.dataset,),
            "plan_and_preprocess": (given.dataset, "--device", given.device, "--workers", 0),
            "preprocess": (given.dataset, "--workers", 0, *(["--dry-run"] if given.dry_run else [])),
            "train": (given.dataset, "--device", given.device, *short),
            "predict": ("-i", given.images, "-o", given.out, "-m", given.model, "--device", given.device),
            "evaluate": ("-p", given.predictions, "-r", given.references, "--out", given.out, "--workers", 0),
        }
        return typed(step, *arguments[step])

    return run


@pytest.fixture
def refused(place, type_in, caplog):
    """Type a step that must be refused; `words` stand in its message, and `anywhere` in what else it says."""

    def run(step, *words, anywhere=(), **changed):
        before = contents(place.root)
        done = type_in(step, **changed)
        assert done.code == 2, done
        for word in words:
            assert str(word) in done.error, done.error
        for word in anywhere:
            assert str(word) in done.out + caplog.text, done.out + caplog.text
        after = contents(place.root)
        assert {path: after.get(path) for path in before} == before, "something was overwritten or removed"
        return {path for path in after if path not in before}

    return run


def contents(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


# --- what can be wrong with a file


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def with_nan(path):
    image = ct().astype(np.float32)
    image[2, 4, 4] = np.nan
    write_volume(path, image, GRID)


def with_value_9(path):
    label = liver_and_tumour()
    label[0, 0, 0] = 9
    write_volume(path, label, GRID)


def of_another_shape(path):
    write_volume(path, liver_and_tumour()[:, :, :-1], Geometry.from_parts((6, 12, 9), spacing=(3.0, 1.0, 1.0)))


def elsewhere(path):
    write_volume(path, liver_and_tumour(), Geometry.from_parts(SHAPE, spacing=(3.0, 1.0, 1.0)))


def flat(path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((12, 10), np.int16), np.eye(4)), path)


FLAT = ("is a 2D image (12 x 10 voxels)", "Stack the slices")
IMAGE_FAULTS = {
    "empty": (lambda path: path.write_bytes(b""), "has no content (0 bytes)", "Copy or export the file again"),
    "truncated": (cut, "its compressed stream is truncated", "Copy or export the file again"),
    "NaN": (with_nan, "NaN, infinite or beyond", "Replace them, or remove the case"),
    "2D": (flat, *FLAT),
}
LABEL_FAULTS = {
    "empty": IMAGE_FAULTS["empty"],
    "truncated": IMAGE_FAULTS["truncated"],
    "2D": (flat, *FLAT),
    "of another shape": (of_another_shape, "6 x 12 x 9", "esample"),
    "elsewhere": (elsewhere, "(9 voxels) from", "esample"),
    "undeclared value": (with_value_9, "9", "elabel the file"),
}


@pytest.mark.parametrize("fault", IMAGE_FAULTS)
class TestImage:
    def test_is_listed_by_check(self, place, refused, fault):
        spoil, found, remedy = IMAGE_FAULTS[fault]
        spoil(place.image)
        listed = ("imagesTr/case_1_0000.nii.gz", found, remedy)
        assert refused("check", "1 error in Dataset007_Toy", "Fix the problems listed", anywhere=listed) == set()

    def test_stops_the_measuring_and_what_is_stored_stays(self, place, refused, fault):
        spoil, found, remedy = IMAGE_FAULTS[fault]
        spoil(place.image)
        words = ("1 of 3 cases cannot be measured", place.image, found, remedy, "swinssl_check")
        assert refused("plan_and_preprocess", *words) == set()

    def test_fails_alone_in_preprocessing(self, place, refused, fault):
        spoil, found, remedy = IMAGE_FAULTS[fault]
        spoil(place.image)
        refused("preprocess", "1 of 3 cases failed: case_1", "Fix them", anywhere=(place.image, found, remedy))

    def test_fails_alone_in_prediction(self, place, refused, fault):
        spoil, found, remedy = IMAGE_FAULTS[fault]
        spoil(place.new_image)
        shown = (place.new_image, found, remedy)
        new = refused("predict", "1 of 2 cases failed: new_1", "Fix or remove them", anywhere=shown)
        assert {path.name for path in new} == {"new_0.nii.gz", "dataset.json", "predict_args.json"}


@pytest.mark.parametrize("fault", LABEL_FAULTS)
class TestLabel:
    def test_is_listed_by_check(self, place, refused, fault):
        spoil, found, remedy = LABEL_FAULTS[fault]
        spoil(place.label)
        assert refused("check", "1 error in", anywhere=("labelsTr/case_1.nii.gz", found, remedy)) == set()

    def test_stops_the_measuring_and_what_is_stored_stays(self, place, refused, fault):
        spoil, found, remedy = LABEL_FAULTS[fault]
        spoil(place.label)
        assert refused("plan_and_preprocess", place.label, found, remedy, "swinssl_check") == set()

    def test_fails_alone_in_preprocessing(self, place, refused, fault):
        spoil, found, _ = LABEL_FAULTS[fault]
        spoil(place.label)
        refused("preprocess", "1 of 3 cases failed: case_1", anywhere=(place.label, found))

    @pytest.mark.parametrize("which", ["label", "prediction"])
    def test_stops_the_evaluation(self, place, refused, fault, which):
        spoil, found, remedy = LABEL_FAULTS[fault]
        spoil(getattr(place, which))
        assert refused("evaluate", getattr(place, which), found, remedy) == set()


class TestMissing:
    def test_image_of_a_listed_case(self, place, refused, type_in, caplog):
        cases = {
            name: {"images": [f"imagesTr/{name}_0000.nii.gz"], "label": f"labelsTr/{name}.nii.gz"}
            for name in ("case_0", "case_1", "case_2")
        }
        describe(place.raw, dataset=cases)
        place.image.unlink()
        refused("check", "1 error in", anywhere=("imagesTr/case_1_0000.nii.gz", "no such file", "Put the file there"))
        assert refused("plan_and_preprocess", place.image, "no such file", "Put the file there") == set()
        assert "1 of 3 cases failed: case_1" in type_in("preprocess").error
        assert f"{place.image}: no such file. Put the file there" in caplog.text
        assert "would preprocess 0 of 3 cases" in type_in("preprocess", dry_run=True).out

    def test_channel(self, place, refused):
        describe(place.raw, channels=2)
        for number in (0, 2):
            write_volume(place.raw / "imagesTr" / f"case_{number}_0001.nii.gz", ct(number), GRID)
        second = place.raw / "imagesTr" / "case_1_0001.nii.gz"
        refused("check", "1 error in", anywhere=("imagesTr/case_1_0001.nii.gz", "no such file", "Put the file there"))
        assert refused("plan_and_preprocess", second, "no such file", "Put the file there") == set()

    def test_label(self, place, refused):
        place.label.unlink()
        refused("check", "1 error in", anywhere=("labelsTr/case_1.nii.gz", "no such file", "Put the file there"))
        assert refused("plan_and_preprocess", place.label, "no such file", "Put the file there") == set()

    def test_image_of_a_label_is_pointed_out_and_the_others_go_on(self, place, type_in):
        place.image.unlink()
        done = type_in("plan_and_preprocess")
        assert done.code == 0 and "2 cases measured" in done.out
        assert f"{place.label}: has no image. Add the image, or remove the label." in done.out

    def test_prediction(self, place, refused):
        place.prediction.unlink()
        assert refused("evaluate", place.root / "predictions", "case_1", "--allow-missing") == set()

    @pytest.mark.parametrize("spoil", [Path.unlink, cut])
    def test_or_damaged_stored_image(self, place, refused, spoil):
        spoil(place.stored_image)
        refused("train", place.stored_image, "Run swinssl_preprocess")

    def test_plans_and_cases_of_a_training(self, place, refused):
        shutil.rmtree(place.stored / "cases")
        refused("train", place.stored / "cases", "no preprocessed case here", "Run swinssl_preprocess")
        (place.stored / "swinsslPlans.json").unlink()
        refused("train", place.stored, "no plans here", "Run swinssl_plan")


class TestUnknown:
    @pytest.mark.parametrize("step", ["check", "plan_and_preprocess", "preprocess", "train"])
    @pytest.mark.parametrize(
        ("dataset", "words"),
        [
            ("77", ("77: no such", "Known: Dataset007_Toy", "--root")),
            ("Dataset007_Toi", ("no such", "Did you mean Dataset007_Toy?")),
            ("./nowhere", ("./nowhere: no such folder", "Give an existing raw data set folder")),
        ],
    )
    def test_data_set(self, refused, step, dataset, words):
        assert refused(step, *words, dataset=dataset) == set()

    def test_data_set_of_a_model(self, refused):
        assert refused("predict", "77: no such data set", "Known: Dataset007_Toy", model="77") == set()

    @pytest.mark.parametrize("which", ["predictions", "references"])
    def test_folder_of_label_maps(self, place, refused, which):
        words = (place.root / "nowhere", "no such file or folder", "Give the folder with the label maps")
        assert refused("evaluate", *words, **{which: place.root / "nowhere"}) == set()

    def test_folder_of_images(self, place, refused):
        words = (place.root / "nowhere", "no such file or folder", "Give a folder of images")
        assert refused("predict", *words, images=place.root / "nowhere") == set()

    @pytest.mark.parametrize("step", ["plan_and_preprocess", "train", "predict"])
    def test_device(self, refused, step):
        words = ("--device cuda:77: not available, this machine has", "Give --device auto or cpu.")
        assert refused(step, *words, device="cuda:77") == set()


class TestIncompleteModel:
    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("swinsslPlans.json", ("no plans here", "Copy the whole model folder again")),
            ("dataset.json", ("no description of the data set here", "Copy the whole model folder again")),
            ("fold_0/model.safetensors", ("no trained fold here; unfinished: 0", "copy the whole model folder")),
        ],
    )
    def test_without_a_file(self, place, refused, name, words):
        (place.model / name).unlink()
        assert refused("predict", place.model, *words) == set()

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("swinsslPlans.json", ("cannot be read: not valid JSON", "Copy the whole model folder again")),
            ("dataset.json", ("cannot be read: not valid JSON", "Copy the whole model folder again")),
            ("fold_0/model.safetensors", ("not a readable safetensors file", "again")),
        ],
    )
    def test_with_half_a_file(self, place, refused, name, words):
        cut(place.model / name)
        assert refused("predict", place.model / name, *words) == set()

    def test_empty_folder(self, place, refused):
        shutil.rmtree(place.model)
        place.model.mkdir()
        assert (
            refused("predict", place.model, "no trained model; it has no swinsslPlans.json", "swinssl_model list")
            == set()
        )


class TestFileWhereAFolderShouldBe:
    """Permissions do not bind the superuser, under whom tests may run; a file in the way binds everybody."""

    @pytest.mark.parametrize("below", ["", "deeper"])
    def test_output_of_predict_and_evaluate(self, place, refused, below):
        in_the_way = place.root / "mine"
        in_the_way.write_text("do not touch")
        for step in ("predict", "evaluate"):
            assert refused(step, in_the_way, "folder", out=in_the_way / below) == set()

    def test_preprocessed(self, place, refused):
        shutil.rmtree(place.root / "preprocessed")
        (place.root / "preprocessed").write_text("do not touch")
        words = (place.root / "preprocessed", "where a folder should be", "move it away, or choose another folder")
        assert refused("plan_and_preprocess", *words) == set()

    def test_results(self, place, refused):
        shutil.rmtree(place.root / "results")
        (place.root / "results").write_text("do not touch")
        words = (place.root / "results", "where a folder should be", "move it away, or choose another folder")
        refused("train", *words)


def test_images_of_the_input_are_not_predicted_over(place, refused):
    images = place.raw / "imagesTs"
    assert refused("predict", images, "Give another folder", out=images) == set()


def test_one_case_goes_all_the_way_with_a_warning_where_its_dice_means_nothing(place, type_in, caplog):
    caplog.set_level(logging.INFO)
    for case in ("case_1", "case_2"):
        (place.raw / "imagesTr" / f"{case}_0000.nii.gz").unlink()
        (place.raw / "labelsTr" / f"{case}.nii.gz").unlink()
        (place.root / "predictions" / f"{case}.nii.gz").unlink()
    place.new_image.unlink()
    describe(place.raw, cases=1)
    shutil.rmtree(place.stored)
    for step, said in {
        "check": "one case or group: it trains and validates on itself",
        "plan_and_preprocess": "1 preprocessed, 0 current, 0 failed",
        "train": "case_0 is trained on and validated on: its Dice says nothing about other cases",
        "predict": "1 segmented, 0 done before, 0 failed",
    }.items():
        done = type_in(step)
        assert done.code == 0 and said in done.out + caplog.text, (step, done)
    done = type_in("evaluate", out=place.root / "evaluation")
    assert done.code == 0 and "only 1 case: too few for an interval" in done.out
    assert len(json.loads((place.root / "evaluation" / "summary.json").read_text())["metric_per_case"]) == 1
