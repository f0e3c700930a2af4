"""swinssl_predict as it is typed: what it prints, writes, and refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from support.made_models import make_plans, smooth_noise, volume_of, write_model

from swinssl.cli.predict import main
from swinssl.imageio.writer import write_volume
from swinssl.inference.postprocessing import Postprocessing, Trial
from swinssl.inference.trained_model import TrainedModel
from swinssl.training.config import TrainingConfig
from swinssl.training.engine.run_description import RunDescription

PLANS = make_plans(training_extent_mm=((8, 8, 8), (60, 60, 60)))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The only model of Dataset001_Toy under a root, with two folds."""
    return write_model(tmp_path_factory.mktemp("root") / "results" / "Dataset001_Toy" / "tiny", PLANS, folds=(0, 1))


@pytest.fixture
def images(tmp_path):
    raw = tmp_path / "raw"
    for seed, case_id in enumerate(("a", "b")):
        volume = volume_of(smooth_noise((12, 14, 16), seed=seed), (2.0, 1.0, 1.0))
        write_volume(raw / "imagesTs" / f"{case_id}_0000.nii.gz", volume.array[0], volume.geometry)
    (raw / "labelsTs").mkdir()
    return raw / "imagesTs"


@pytest.fixture
def type_in(monkeypatch, capsys):
    """Type a command line; gives (exit code, stdout, stderr)."""

    def run(*arguments):
        monkeypatch.setenv("COLUMNS", "120")
        monkeypatch.setattr("sys.argv", ["swinssl_predict", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code or 0, *capsys.readouterr()

    return run


class TestReport:
    def test_says_what_was_done_where_and_what_comes_next(self, model, images, tmp_path, type_in):
        out = tmp_path / "out"
        code, text, _ = type_in("-i", images, "-o", out, "-m", model, "--device", "cpu")
        assert code == 0
        lines = text.splitlines()
        assert lines[0].startswith(f"{model} (Dataset001_Toy), folds 0, 1; cpu, ")
        assert any(line.split()[:4] == ["liver", "2", "of", "2"] for line in lines)
        assert f"2 segmented, 0 done before, 0 failed; label maps in {out}" in lines
        assert lines[-1] == f"next: swinssl_evaluate --predictions {out} --references {images.parent / 'labelsTs'}"
        assert {path.name for path in out.iterdir()} == {"a.nii.gz", "b.nii.gz", "dataset.json", "predict_args.json"}

        code, text, _ = type_in("-i", images, "-o", out, "-m", model)
        assert code == 0 and "0 segmented, 2 done before, 0 failed" in text

    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    def test_it_computes_in_the_precision_that_is_asked_for(self, model, images, tmp_path, type_in, precision):
        arguments = ("-i", images, "-o", tmp_path / "out", "-m", model, "--device", "cpu", "--precision", precision)
        seen = []
        forward = torch.nn.functional.linear
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.nn.functional, "linear", lambda *a: (seen.append(forward(*a).dtype), forward(*a))[1])
            code, text, _ = type_in(*arguments)
        assert code == 0 and text.splitlines()[0].endswith(f"cpu, {precision}")
        assert (torch.bfloat16 in seen) == (precision == "bf16")

    def test_the_only_model_of_a_data_set_is_found_by_name_or_number(self, model, images, tmp_path, type_in):
        root = model.parents[2]
        for name in ("Dataset001_Toy", "1", "Toy"):
            arguments = ("-i", images, "-o", tmp_path / "out", "-m", name, "--root", root, "--dry-run")
            code, text, _ = type_in(*arguments)
            assert code == 0 and text.startswith(f"{name} (Dataset001_Toy), folds 0, 1;")

    def test_dry_run_counts_and_writes_nothing(self, model, images, tmp_path, type_in):
        arguments = ("-i", images, "-o", tmp_path / "out", "-m", model, "--device", "cpu", "--dry-run")
        code, text, _ = type_in(*arguments)
        # A window a case, two folds, and a third of a step's second a pass at a batch of two.
        assert code == 0 and "would segment 2 of 2 cases" in text and "2 windows, about 1 s on two CPU cores" in text
        assert not (tmp_path / "out").exists()
        said = json.loads(type_in(*arguments, "--json")[1])
        assert said["would_segment"] == ["a", "b"] and said["windows"] == 2 and said["output"] == str(tmp_path / "out")

    def test_files_that_are_not_read_are_named_at_the_end(self, model, images, tmp_path, type_in):
        (images / "scan.dcm").touch()
        for flags, last in (([], -2), (["--dry-run"], -1)):
            code, out, _ = type_in("-i", images, "-o", tmp_path / "out", "-m", model, *flags)
            line = out.splitlines()[last]
            assert code == 0 and line.startswith("warning: ") and "1 file left out, such as scan.dcm" in line

    def test_json_stands_alone_on_stdout(self, model, images, tmp_path, type_in):
        out = tmp_path / "out"
        code, text, _ = type_in("-i", images / "a_0000.nii.gz", "-o", out, "-m", model, "--folds", "1", "--json")
        report = json.loads(text)
        assert code == 0 and report["output"] == str(out)
        (case,) = report["cases"]
        assert (case["id"], case["status"], case["result"]) == ("a", "done", str(out / "a.nii.gz"))
        assert set(case["volumes_ml"]) == {"liver", "spleen"}

    def test_warnings_and_notes_stand_before_the_sum(self, model, images, tmp_path, type_in):
        volume = volume_of(smooth_noise((12, 14, 16)), (9.0, 1.0, 1.0))
        write_volume(images / "b_0000.nii.gz", volume.array[0], volume.geometry)
        (model / "fold_7").mkdir(exist_ok=True)
        code, text, _ = type_in("-i", images, "-o", tmp_path / "out", "-m", model)
        (model / "fold_7").rmdir()
        assert code == 0
        assert "note: fold 7 has no weights yet and is left out" in text
        assert "warning: b: voxels of 9 mm along z; trained on 0.5 to 4 mm" in text
        assert text.index("warning: b") < text.index("2 segmented")

    def test_cases_far_from_the_training_range_end_the_command(self, model, images, tmp_path, type_in):
        for case_id, spacing in (("far", (20.0, 1.0, 1.0)), ("near", (9.0, 1.0, 1.0))):
            volume = volume_of(smooth_noise((12, 14, 16)), spacing)
            write_volume(images / f"{case_id}_0000.nii.gz", volume.array[0], volume.geometry)
        code, text, _ = type_in("-i", images, "-o", tmp_path / "out", "-m", model)
        # Trained on up to 4 mm and 60 mm: 20 mm and 240 mm are beyond 4 times only where they exceed 16 and 240.
        assert code == 0 and text.splitlines()[-1] == (
            "warning: 1 of 4 cases lie outside 1/4 to 4 times what the model was trained on: far (voxels). "
            "Look at each result before you use it."
        )
        code, text, error = type_in("-i", images, "-o", tmp_path / "again", "-m", model, "--json")
        assert code == 0, error
        far = {case["id"]: case["far"] for case in json.loads(text)["cases"]}
        assert far == {"a": [], "b": [], "far": ["voxels"], "near": []} and "warning: 1 of 4 cases" in error

    def test_one_case_goes_to_the_file_that_is_named(self, model, images, tmp_path, type_in):
        image, result = images / "a_0000.nii.gz", tmp_path / "new" / "seg.nii.gz"
        assert type_in("-i", images, "-o", tmp_path / "out", "-m", model)[0] == 0
        code, text, _ = type_in("-i", image, "-o", result, "-m", model)
        assert code == 0 and f"label maps in {result}" in text
        assert [path.name for path in result.parent.iterdir()] == ["seg.nii.gz"]
        assert result.read_bytes() == (tmp_path / "out" / "a.nii.gz").read_bytes()
        evaluate = f"next: swinssl_evaluate --predictions {result} --references "
        assert text.splitlines()[-1] == f"{evaluate}REFERENCE_LABEL_MAP --dataset {model}"
        label = images.parent / "labelsTs" / "a.nii.gz"
        shutil.copy(result, label)
        (images.parent / "dataset.json").touch()
        text = type_in("-i", image, "-o", result, "-m", model, "--overwrite")[1]
        assert text.splitlines()[-1] == f"{evaluate}{label}"
        code, _, error = type_in("-i", image, "-o", result, "-m", model)
        assert code == 2 and "exists already. Give another name" in error
        assert type_in("-i", image, "-o", result, "-m", model, "--overwrite")[0] == 0
        code, _, error = type_in("-i", image, "-o", image, "-m", model, "--overwrite")
        assert code == 2 and "is the image itself" in error
        code, _, error = type_in("-i", images, "-o", tmp_path / "none.nii.gz", "-m", model)
        assert code == 2 and "for one case, but 2 are given" in error and not (tmp_path / "none.nii.gz").exists()

    def test_dry_run_ends_as_the_run_would_and_leaves_nothing(self, model, images, tmp_path, type_in):
        (images / "broken_0000.nii.gz").write_bytes(b"no image")
        out = tmp_path / "out"
        code, text, error = type_in("-i", images, "-o", out, "-m", model, "--dry-run")
        assert code == 2 and "would fail: broken: " in text and "1 of 3 cases failed: broken" in error
        assert not out.exists()
        assert type_in("-i", images, "-o", out, "-m", model)[0] == 2

    def test_an_archive_is_refused_with_the_command_that_unpacks_it(self, model, images, tmp_path, type_in):
        archive = tmp_path / "a model.zip"
        archive.write_bytes(b"")
        code, _, error = type_in("-i", images, "-o", tmp_path / "out", "-m", archive)
        assert code == 2 and f"swinssl_model import '{archive}'" in error
        assert not (tmp_path / "out").exists()

    def test_images_of_the_training_are_named(self, images, tmp_path, type_in):
        model = write_model(tmp_path / "model", PLANS)
        out = tmp_path / "out"
        arguments = ("-i", images, "-o", out, "-m", model, "--overwrite")
        type_in(*arguments)
        (known,) = json.loads((out / "predict_args.json").read_text())["cases"]["a"]["input_sha256"]
        RunDescription(
            dataset_name="Dataset001_Toy",
            fold="0",
            config=TrainingConfig(),
            plans_sha256="",
            train_cases=("patient_3",),
            validation_cases=(),
            image_sha256={"patient_3": {"image_0000": known}},
        ).write(model / "fold_0" / "run.json")
        _, text, _ = type_in(*arguments)
        assert "warning: a: the model was trained on this image" in text and "warning: b" not in text

    def test_a_damaged_description_of_the_training_is_a_warning(self, images, tmp_path, type_in, caplog):
        """It only serves to recognise images of the training."""
        model, out = write_model(tmp_path / "model", PLANS), tmp_path / "out"
        (model / "fold_0" / "run.json").write_text("{")
        assert type_in("-i", images, "-o", out, "-m", model)[0] == 0
        assert (out / "a.nii.gz").is_file() and (out / "b.nii.gz").is_file()
        (line,) = [line for line in caplog.messages if "run.json" in line]
        assert "not valid JSON" in line and "Copy the whole folder" in line and "cannot be told from others" in line

    def test_a_damaged_record_is_refused_and_overwritten(self, model, images, tmp_path, type_in):
        arguments = ("-i", images, "-o", tmp_path / "out", "-m", model)
        type_in(*arguments)
        record = tmp_path / "out" / "predict_args.json"
        whole = json.loads(record.read_text())
        record.write_bytes(record.read_bytes()[:40])
        code, _, errors = type_in(*arguments)
        assert code == 2 and "predict_args.json" in errors and "--overwrite" in errors
        code, text, _ = type_in(*arguments, "--overwrite")
        assert code == 0 and "2 segmented, 0 done before, 0 failed" in text
        assert json.loads(record.read_text())["cases"].keys() == whole["cases"].keys()

    def test_a_failed_case_ends_with_2_after_the_others(self, model, images, tmp_path, type_in, caplog):
        (images / "b_0000.nii.gz").write_bytes(b"not an image")
        code, text, errors = type_in("-i", images, "-o", tmp_path / "out", "-m", model)
        assert code == 2
        assert "1 segmented, 0 done before, 1 failed" in text
        # The reason is said once, when the case fails.
        assert caplog.text.count("is not a NIfTI file") == 1 and "NIfTI" not in text + errors
        assert errors.splitlines()[-1].startswith("error: 1 of 2 cases failed: b. Fix or remove them")
        assert (tmp_path / "out" / "a.nii.gz").is_file()


class TestPostprocessing:
    def test_is_said_and_can_be_left(self, images, tmp_path, type_in):
        own = write_model(tmp_path / "model", PLANS)
        trials = [
            Trial(structures=names, before=0.5, after=0.6, better=2, worse=0, cases=2)
            for names in (("liver", "spleen"), ("spleen",))
        ]
        Postprocessing(least_gain=0.001, applied=tuple(trials), fold_sha256=TrainedModel.open(own).sha256).write(own)
        arguments = ("-i", images, "-o", tmp_path / "out", "-m", own, "--device", "cpu")
        code, text, _ = type_in(*arguments)
        assert (
            code == 0
            and "postprocessing: keeps the largest component of all structures together, then of spleen (" in text
        )
        code, _, errors = type_in(*arguments, "--no-clean-up")
        assert code == 2 and "--no-postprocessing" in errors
        code, _, errors = type_in(*arguments, "--no-postprocessing")
        assert code == 2 and "were made with other post-processing (--no-postprocessing)" in errors
        code, text, _ = type_in(*arguments, "--no-postprocessing", "--overwrite", "--json")
        assert code == 0 and json.loads(text)["postprocessing"] == []
        write_model(own, PLANS, folds=(1, 0))
        code, text, _ = type_in(*arguments, "--dry-run", "--overwrite")
        assert (
            code == 0
            and "note: no post-processing, because postprocessing.json was measured with other weights" in text
        )


class TestResult:
    def test_folds_and_mirror_images_are_averaged(self, model, images, tmp_path, type_in):
        """Logits of two folds, each seen in two mirror images, against a computation from the networks themselves."""
        import torch

        plans = make_plans(mirror_axes=(1,))
        own = write_model(tmp_path / "model", plans, folds=(0, 1))
        flags = ("--tta", "--save-probabilities", "--device", "cpu")
        volume = volume_of(smooth_noise((32, 32, 32)))
        write_volume(tmp_path / "c.nii", volume.array[0], volume.geometry)
        assert type_in("-i", tmp_path / "c.nii", "-o", tmp_path / "out", "-m", own, *flags)[0] == 0
        image = torch.from_numpy(volume.array[None])
        with torch.no_grad():
            seen = [
                turned
                for network in TrainedModel.open(own).networks(torch.device("cpu"))
                for turned in (network(image), network(image.flip(3)).flip(3))
            ]
        expected = torch.stack(seen).mean(0).softmax(1)[0].numpy()
        found = np.load(tmp_path / "out" / "c.npz")["probabilities"]
        assert np.abs(found - expected).max() < 0.1 and np.abs(found - expected).mean() < 0.005  # bfloat16 may be used
        alone = seen[0].softmax(1)[0].numpy()
        assert np.abs(found - alone).mean() > 0.02

    @pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
    def test_has_the_format_and_the_grid_of_the_image(self, model, tmp_path, type_in, ending):
        turned = np.array([[0.0, 0, -1], [-1, 0, 0], [0, 1, 0]])
        volume = volume_of(smooth_noise((9, 12, 16)), (2.0, 1.5, 1.0), direction=turned)
        path = tmp_path / "in" / f"case_0000{ending}"
        write_volume(path, volume.array[0], volume.geometry)
        assert type_in("-i", path, "-o", tmp_path / "out", "-m", model, "--folds", "0")[0] == 0
        from swinssl.imageio.reader import read_label

        result = read_label(tmp_path / "out" / f"case{ending}")
        assert result.geometry.shape == volume.geometry.shape
        np.testing.assert_allclose(result.geometry.affine, volume.geometry.affine, atol=1e-6)

    def test_of_a_real_image_lies_on_it_to_the_bit(self, shared_data, tmp_path, type_in):
        path = shared_data / "volumes" / "wholebody_mr.nii.gz"
        model = write_model(tmp_path / "model", make_plans(spacing=(8.0, 8.0, 8.0)))
        assert type_in("-i", path, "-o", tmp_path / "out", "-m", model)[0] == 0
        image, label = nibabel.load(path), nibabel.load(tmp_path / "out" / path.name)
        assert label.shape == image.shape
        np.testing.assert_array_equal(label.affine, image.affine)


class TestRefusals:
    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (["-m", "./nowhere"], "nowhere: no such folder. Give the folder of a trained model"),
            (["-m", "nowhere"], "nowhere: no such data set"),
            (["--folds", "5"], "fold_5: this fold does not exist. Complete folds: 0, 1."),
            (["--folds", "x"], "--folds x: expected numbers such as 0,1 or the word all."),
            (["--overlap", "1"], "--overlap 1.0: "),
            (["--device", "cuda:77"], "--device cuda:77: not available"),
            (["-i", "nothing.nii.gz"], "one folder, or the files of one case"),
        ],
    )
    def test_come_before_any_work(self, model, images, tmp_path, type_in, flags, message):
        given = ["-i", images, "-o", tmp_path / "out", *flags]
        given += [] if "-m" in flags else ["-m", model]
        code, _, errors = type_in(*given, "--root", model.parents[2])
        assert code == 2 and message in errors and "Traceback" not in errors
        assert not (tmp_path / "out").exists()

    def test_several_models_of_a_data_set(self, images, tmp_path, type_in):
        for name in ("one", "two"):
            write_model(tmp_path / "results" / "Dataset001_Toy" / name, PLANS)
        code, _, errors = type_in("-i", images, "-o", tmp_path / "out", "-m", "1", "--root", tmp_path)
        assert code == 2 and "1: 2 models. Give the folder of one: " in errors
        assert str(tmp_path / "results" / "Dataset001_Toy" / "two") in errors

    @pytest.mark.parametrize(
        ("given", "what", "remedy"),
        [
            ("results/Dataset001_Toy/one/fold_0/model.safetensors", "a file inside a model", "{one}, or of one fold, "),
            ("results/Dataset001_Toy/one/fold_0/checkpoints", "a folder inside a model", "{one}, or of one fold, "),
            (
                "results/Dataset001_Toy/one/swinsslPlans.json",
                "a part of a model",
                "Give the folder of the model: {one}",
            ),
            ("results/Dataset001_Toy", "a folder with 2 models", "Give the folder of one: {one}, "),
            ("results", "a folder with 2 models", "Give the folder of one: {one}, "),
            (".", "a folder with 2 models", "Give the folder of one: {one}, "),
            ("images", "a folder of images", "Images go after -i"),
            ("preprocessed/Dataset001_Toy", "a preprocessed data set", "Train a model on it with swinssl_train"),
            ("pretraining", "a pretrained encoder", "Train a model from it with swinssl_train --init"),
            ("stray.safetensors", "a file of weights", "Give the folder of a trained model"),
            ("empty", "no trained model; it has no swinsslPlans.json", "swinssl_model list shows them"),
        ],
    )
    def test_another_thing_than_a_model_is_called_what_it_is(
        self, images, tmp_path, type_in, monkeypatch, given, what, remedy
    ):
        one, _ = (write_model(tmp_path / "results" / "Dataset001_Toy" / name, PLANS) for name in ("one", "two"))
        (one / "fold_0" / "checkpoints").mkdir()
        shutil.copytree(images, tmp_path / "images")
        (tmp_path / "preprocessed" / "Dataset001_Toy" / "cases").mkdir(parents=True)
        PLANS.write(tmp_path / "preprocessed" / "Dataset001_Toy" / "swinsslPlans.json")
        for folder in ("empty", "pretraining"):
            (tmp_path / folder).mkdir()
        for file in ("stray.safetensors", "pretraining/encoder.safetensors"):
            (tmp_path / file).touch()
        monkeypatch.chdir(tmp_path)
        for path, shown in ((tmp_path / given, one), (Path(given), one.relative_to(tmp_path))):  # as it was given
            code, _, errors = type_in("-i", images, "-o", tmp_path / "out", "-m", path, "--root", tmp_path)
            assert code == 2 and f": {what}" in errors and remedy.format(one=shown) in errors, errors
        assert not (tmp_path / "out").exists()

    def test_a_shipped_encoder_is_no_model(self, images, tmp_path, type_in):
        code, _, errors = type_in("-i", images, "-o", tmp_path / "out", "-m", "tiny_smit_headneck_ct")
        assert code == 2 and "an encoder that comes with swinssl, not a trained model" in errors
        assert "swinssl_plan_and_preprocess DATASET --init tiny_smit_headneck_ct, then swinssl_train DATASET" in errors

    def test_no_model_of_a_data_set(self, images, tmp_path, type_in):
        (tmp_path / "results" / "Dataset001_Toy").mkdir(parents=True)
        code, _, errors = type_in("-i", images, "-o", tmp_path / "out", "-m", "1", "--root", tmp_path)
        assert code == 2 and "no trained model in" in errors and "swinssl_train" in errors

    def test_one_file_where_the_model_wants_two_channels(self, images, tmp_path, type_in):
        model = write_model(tmp_path / "model", make_plans(channels=2))
        code, _, errors = type_in("-i", images, "-o", tmp_path / "out", "-m", model)
        assert code == 2
        assert "a has 0000; b has 0000. The model expects 2 channels: 0000 (channel 0), 0001 (channel 1)." in errors

    def test_help_needs_no_torch(self):
        code = "import sys; sys.argv = ['x', '--help']\nfrom swinssl.cli.predict import main\n"
        code += "try: main()\nexcept SystemExit: pass\nassert 'torch' not in sys.modules and 'numpy' not in sys.modules"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "--save-probabilities" in done.stdout
