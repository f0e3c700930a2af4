"""Many cases into a folder: what is skipped, what fails alone, what is refused, and what stays after a stop."""

from __future__ import annotations

import errno
import gzip
import json
import os
import re
import struct
import threading

import nibabel
import numpy as np
import pytest
import torch
from skimage.measure import label as components_of
from support.made_models import make_plans, smooth_noise, volume_of, write_model

from swinssl.core.errors import UserError
from swinssl.imageio.reader import read_channels, read_label
from swinssl.imageio.writer import write_volume
from swinssl.inference import prediction_run as module
from swinssl.inference.input_cases import find_cases
from swinssl.inference.output_folder import OutputFolder
from swinssl.inference.postprocessing import Postprocessing, Trial
from swinssl.inference.prediction_record import RECORD_FILE, CaseRecord, PredictionOptions, PredictionRecord
from swinssl.inference.prediction_run import predict_cases
from swinssl.inference.predictor import Predictor
from swinssl.inference.trained_model import TrainedModel

PLANS = make_plans(patch_size=(32, 32, 32), training_extent_mm=((8, 8, 8), (60, 60, 60)))


class Threshold(torch.nn.Module):
    """Liver above zero, spleen above one."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, image):
        self.calls += 1
        return torch.cat([torch.zeros_like(image), image, 2 * image - 1], 1)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return TrainedModel.open(write_model(tmp_path_factory.mktemp("model"), PLANS))


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    for seed, case_id in enumerate(("a", "b", "c")):
        volume = volume_of(smooth_noise((12, 14, 16), seed=seed), (2.0, 1.0, 1.0))
        write_volume(folder / f"{case_id}_0000.nii.gz", volume.array[0], volume.geometry)
    return folder


class Run:
    """Predict a folder as the command does, with a network that costs nothing."""

    def __init__(self, model, images, out):
        self.model, self.images, self.out = model, images, out
        self.network = Threshold()

    def __call__(self, *, trained_on=frozenset(), model=None, **options):
        model = model or self.model
        chosen = PredictionOptions(**options)
        cases = find_cases([self.images], model.plans.channel_names)
        record = PredictionRecord.of(model, chosen, given_as="my/model")
        folder = OutputFolder.open(self.out, record, cases, overwrite=chosen.overwrite)
        folder.begin(model)
        groups = model.postprocessing_groups if chosen.postprocessing else ()
        cpu = torch.device("cpu")
        predictor = Predictor.of([self.network], model.plans, device=cpu, overlap=chosen.overlap, postprocessing=groups)
        outcomes = predict_cases(cases, predictor, folder, trained_on=trained_on)
        return {outcome.case.id: outcome for outcome in outcomes}

    @property
    def record(self):
        return json.loads((self.out / RECORD_FILE).read_text())


@pytest.fixture
def run(model, images, tmp_path):
    return Run(model, images, tmp_path / "out")


def statuses(outcomes):
    return {case_id: outcome.status for case_id, outcome in outcomes.items()}


class TestResults:
    def test_are_label_maps_on_the_images_grid_with_their_ending(self, run, images):
        outcomes = run()
        assert statuses(outcomes) == dict.fromkeys("abc", "done")
        for case_id, outcome in outcomes.items():
            image, label = read_label(images / f"{case_id}_0000.nii.gz"), read_label(run.out / f"{case_id}.nii.gz")
            assert outcome.result == run.out / f"{case_id}.nii.gz"
            np.testing.assert_array_equal(label.geometry.affine, image.geometry.affine)
            found = set(np.unique(label.array))
            assert found == {0, 1, 2} and label.array.dtype == np.uint8

    def test_bring_the_data_sets_description_along(self, run, model):
        run()
        assert json.loads((run.out / "dataset.json").read_text()) == model.description

    def test_volumes_are_counted_in_ml(self, run):
        outcomes = run()
        label = read_label(run.out / "b.nii.gz")
        expected = {"liver": np.sum(label.array == 1) * 0.002, "spleen": np.sum(label.array == 2) * 0.002}
        assert outcomes["b"].record.volumes_ml == pytest.approx(expected)

    def test_probabilities_are_in_nnunets_form_without_pickles(self, run):
        run(save_probabilities=True)
        with np.load(run.out / "a.npz", allow_pickle=False) as content:
            assert list(content) == ["probabilities", "affine"]
            probabilities = content["probabilities"]
        assert probabilities.shape == (3, 12, 14, 16) and probabilities.dtype == np.float32
        np.testing.assert_array_equal(probabilities.argmax(0), read_label(run.out / "a.nii.gz").array[0])

    def test_the_record_says_what_made_them_and_knows_no_private_path(self, run, images):
        run(overlap=0.25)
        record = run.record
        assert record["model"] == "my/model" and record["options"]["overlap"] == 0.25
        assert record["fold_sha256"] == run.model.sha256 and record["versions"]["torch"] == torch.__version__
        assert record["cases"]["a"]["images"] == ["a_0000.nii.gz"]
        assert str(images.parent) not in json.dumps(record)

    def test_what_is_unlike_the_training_data_is_kept_with_the_case(self, run, images):
        volume = volume_of(smooth_noise((12, 14, 16)), (9.0, 1.0, 1.0))
        write_volume(images / "b_0000.nii.gz", volume.array[0], volume.geometry)
        outcomes = run()
        assert outcomes["a"].record.warnings == ()
        assert outcomes["b"].record.warnings == (
            "voxels of 9 mm along z; trained on 0.5 to 4 mm",
            "field of view of 108 mm along z; trained on 8 to 60 mm",
        )
        assert run()["b"].record.warnings == outcomes["b"].record.warnings  # said again when it is skipped

    def test_images_that_the_model_was_trained_on_are_named(self, run):
        (known,) = run()["a"].record.input_sha256
        outcomes = run(trained_on=frozenset({known}), overwrite=True)
        assert "was trained on this image" in outcomes["a"].record.warnings[0]
        assert outcomes["b"].record.warnings == ()


class TestGoingOn:
    def test_finished_cases_are_left_alone(self, run):
        run()
        calls, written = run.network.calls, (run.out / "a.nii.gz").stat().st_mtime_ns
        assert statuses(run()) == dict.fromkeys("abc", "finished")
        assert run.network.calls == calls and (run.out / "a.nii.gz").stat().st_mtime_ns == written

    def test_a_case_is_done_anew_where_its_result_is_gone_or_its_image_has_changed(self, run, images):
        run()
        (run.out / "a.nii.gz").unlink()
        volume = volume_of(smooth_noise((12, 14, 16), seed=99), (2.0, 1.0, 1.0))
        write_volume(images / "c_0000.nii.gz", volume.array[0], volume.geometry)
        assert statuses(run()) == {"a": "done", "b": "finished", "c": "done"}

    @pytest.mark.parametrize(
        "damage",
        [
            lambda content: b"",
            lambda content: content[: len(content) // 2],
            lambda content: content[:-40] + bytes(40),
            lambda content: content[:200] + bytes([content[200] ^ 4]) + content[201:],
            lambda content: gzip.compress(gzip.decompress(content)[:-1] + b"\2", mtime=0),  # somebody's correction
        ],
    )
    def test_a_result_that_is_not_as_written_is_set_aside_and_made_anew(self, run, caplog, damage):
        run()
        path = run.out / "b.nii.gz"
        written = path.read_bytes()
        path.write_bytes(damage(written))
        assert statuses(run()) == {"a": "finished", "b": "done", "c": "finished"}
        assert path.read_bytes() == written
        assert (run.out / "replaced" / "1_b.nii.gz").read_bytes() == damage(written)
        assert re.search(r"b\.nii\.gz: not as swinssl_predict wrote it.*replaced", caplog.text)
        assert statuses(run()) == dict.fromkeys("abc", "finished")

    def test_damaged_probabilities_are_made_anew(self, run):
        run(save_probabilities=True)
        path = run.out / "a.npz"
        path.write_bytes(path.read_bytes()[:-1])
        assert statuses(run(save_probabilities=True)) == {"a": "done", "b": "finished", "c": "finished"}

    def test_a_folder_of_0_1_0_is_completed_and_its_results_are_made_anew(self, run):
        run()
        record = run.record
        for case in record["cases"].values():
            del case["result_sha256"]
        record["clean_up"] = record.pop("postprocessing")
        record["options"]["clean_up"] = record["options"].pop("postprocessing")
        (run.out / RECORD_FILE).write_text(json.dumps({**record, "version": 1, "plans_sha256": "0" * 64}))
        assert statuses(run()) == dict.fromkeys("abc", "done")
        assert len(list((run.out / "replaced").iterdir())) == 3

    def test_two_processes_that_share_a_folder_record_the_cases_of_both(self, run, model):
        cases = find_cases([run.images], model.plans.channel_names)
        record = PredictionRecord.of(model, PredictionOptions(), given_as="m")
        first, second = (OutputFolder.open(run.out, record, cases) for _ in range(2))
        first.begin(model)
        second.begin(model)
        first.note(cases[0], CaseRecord(status="failed", message="first"))
        second.note(cases[1], CaseRecord(status="failed", message="second"))
        first.note(cases[2], CaseRecord(status="failed", message="first"))
        assert {name: case["message"] for name, case in run.record["cases"].items()} == {
            "a": "first",
            "b": "second",
            "c": "first",
        }
        other = PredictionRecord.of(model, PredictionOptions(overlap=0.1), given_as="m")
        other.write(run.out)
        with pytest.raises(UserError, match=r"another swinssl_predict now writes here with other overlap"):
            first.note(cases[0], CaseRecord(status="failed"))

    def test_new_cases_are_taken_up(self, run, images):
        run()
        (images / "d.nii.gz").write_bytes((images / "a_0000.nii.gz").read_bytes())
        assert statuses(run()) == {**dict.fromkeys("abc", "finished"), "d": "done"}

    def test_probabilities_that_are_asked_for_later_are_made(self, run):
        run()
        assert statuses(run(save_probabilities=True)) == dict.fromkeys("abc", "done")
        assert statuses(run()) == dict.fromkeys("abc", "finished")

    def test_overwrite_does_all_of_it_anew(self, run):
        run()
        assert statuses(run(overwrite=True)) == dict.fromkeys("abc", "done")

    def test_a_stop_leaves_whole_files_and_the_rest_is_done_by_the_next_run(self, run):
        class Stopped(Threshold):
            def forward(self, image):
                if self.calls == 1:
                    raise KeyboardInterrupt
                return super().forward(image)

        run.network = Stopped()
        with pytest.raises(KeyboardInterrupt):
            run()
        assert sorted(path.name for path in run.out.iterdir()) == ["a.nii.gz", "dataset.json", RECORD_FILE]
        run.network = Threshold()
        assert statuses(run()) == {"a": "finished", "b": "done", "c": "done"}


class TestPostprocessing:
    """The model's cross-validation found that the largest component of all, and then of the spleen, is better."""

    @pytest.fixture
    def cleaning(self, tmp_path):
        folder = write_model(tmp_path / "cleaning", PLANS)
        sha256 = TrainedModel.open(folder).sha256
        trials = [
            Trial(structures=names, before=0.5, after=0.6, better=2, worse=0, cases=2)
            for names in (("liver", "spleen"), ("spleen",))
        ]
        Postprocessing(least_gain=0.001, applied=tuple(trials), fold_sha256=sha256).write(folder)
        return TrainedModel.open(folder)

    @pytest.fixture
    def maps(self, model, images, tmp_path):
        """Predict into a folder, give its label maps."""

        def predict(name, model, **options):
            run = Run(model, images, tmp_path / name)
            outcomes = run(**options)
            return run, outcomes, {i: read_label(run.out / f"{i}.nii.gz").array[0] for i in "abc"}

        return predict

    def test_keeps_the_largest_components_and_makes_the_rest_background(self, maps, cleaning):
        _, _, raw = maps("raw", cleaning, postprocessing=False)
        run, outcomes, cleaned = maps("cleaned", cleaning)
        for case_id, label_map in raw.items():
            expected = label_map.copy()
            for values in ((1, 2), (2,)):
                parts = components_of(np.isin(expected, values), connectivity=3)
                sizes = np.bincount(parts[parts > 0])
                expected[(parts > 0) & (sizes[parts] < sizes.max())] = 0
            assert not np.array_equal(label_map, expected)
            np.testing.assert_array_equal(cleaned[case_id], expected)
            spleen = outcomes[case_id].record.volumes_ml["spleen"]
            assert spleen == pytest.approx(np.sum(expected == 2) * 0.002)
        assert run.record["postprocessing"] == [["liver", "spleen"], ["spleen"]]

    def test_without_one_or_where_it_is_not_wanted_nothing_is_removed(self, maps, model, cleaning):
        _, _, plain = maps("plain", model)
        run, _, left = maps("left", cleaning, postprocessing=False)
        assert run.record["postprocessing"] == [] and run.record["options"]["postprocessing"] is False
        for case_id, label_map in plain.items():
            np.testing.assert_array_equal(left[case_id], label_map)

    def test_probabilities_stay_as_they_are(self, maps, cleaning):
        run, _, cleaned = maps("cleaned", cleaning, save_probabilities=True)
        other, _, _ = maps("raw", cleaning, save_probabilities=True, postprocessing=False)
        mine, theirs = (np.load(one.out / "a.npz")["probabilities"] for one in (run, other))
        np.testing.assert_array_equal(mine, theirs)
        assert not np.array_equal(mine.argmax(0), cleaned["a"])

    def test_a_predictor_in_python_gives_what_the_command_writes(self, maps, cleaning, images, monkeypatch):
        _, _, cleaned = maps("cleaned", cleaning)
        _, _, raw = maps("raw", cleaning, postprocessing=False)
        monkeypatch.setattr(TrainedModel, "networks", lambda *_: [Threshold()])
        cpu = torch.device("cpu")
        for expected, predictor in (
            (cleaned, cleaning.predictor(cpu)),
            (raw, cleaning.predictor(cpu, postprocessing=False)),
        ):
            for case in find_cases([images], cleaning.plans.channel_names):
                found = predictor.predict(read_channels(case.images)).label_map
                np.testing.assert_array_equal(found, expected[case.id])

    def test_results_with_and_without_are_not_mixed(self, maps, cleaning):
        run, _, _ = maps("out", cleaning)
        assert statuses(run()) == dict.fromkeys("abc", "finished")
        with pytest.raises(UserError, match=r"were made with other post-processing \(--no-postprocessing\)"):
            run(postprocessing=False)
        assert statuses(run(postprocessing=False, overwrite=True)) == dict.fromkeys("abc", "done")

    def test_what_was_measured_with_other_weights_is_not_done(self, maps, cleaning):
        write_model(cleaning.folder, PLANS, folds=(1, 0))  # fold 0 is another now
        trained_anew = TrainedModel.open(cleaning.folder)
        assert trained_anew.postprocessing_is_outdated
        run, _, _ = maps("out", trained_anew)
        assert run.record["postprocessing"] == []
        assert not TrainedModel.open(cleaning.folder, [1]).postprocessing_is_outdated  # which was not measured


class TestFailures:
    def test_a_damaged_image_costs_its_own_case(self, run, images):
        path = images / "b_0000.nii.gz"
        os.truncate(path, path.stat().st_size // 2)
        outcomes = run()
        assert statuses(outcomes) == {"a": "done", "b": "failed", "c": "done"}
        assert "b_0000.nii.gz" in outcomes["b"].record.message
        assert not (run.out / "b.nii.gz").exists()

    @pytest.mark.parametrize("mm", [100.0, 1e5, 1e20])
    def test_an_absurd_spacing_costs_its_own_case_alone(self, run, images, mm):
        array = smooth_noise((12, 14, 16))
        image = nibabel.Nifti1Image(array.T, np.diag([mm, mm, mm, 1]))
        nibabel.save(image, images / "a_0000.nii.gz")
        outcomes = run()
        assert statuses(outcomes) == {"a": "failed", "b": "done", "c": "done"}
        message = outcomes["a"].record.message
        assert "a_0000.nii.gz" in message and ("spacing" in message or "affine" in message)

    def test_results_have_every_field_that_places_their_image(self, run, images):
        """Contradictions included, which the record names."""
        array = smooth_noise((12, 14, 16))
        image = nibabel.Nifti1Image(array.T, np.diag([-1.5, -1.5, 3, 1]))
        image.header.set_xyzt_units("unknown", "sec")
        content = bytearray(image.to_bytes())
        struct.pack_into("<3f", content, 80, 1.25, 1.25, 2)  # pixdim
        struct.pack_into("<2h", content, 252, 1, 4)  # codes of qform and sform
        (images / "a_0000.nii.gz").write_bytes(gzip.compress(bytes(content)))
        outcome = run(save_probabilities=True)["a"]
        expected, found = (nibabel.load(path).header for path in (images / "a_0000.nii.gz", outcome.result))
        for field in ("sform_code", "qform_code", "xyzt_units", "srow_x", "srow_y", "srow_z", "quatern_d", "qoffset_x"):
            assert np.array_equal(found[field], expected[field]), field
        assert np.array_equal(found["pixdim"][:4], expected["pixdim"][:4])
        assert "3 x 1.5 x 1.5 mm" in outcome.record.warnings[0] and "2 x 1.25 x 1.25 mm" in outcome.record.warnings[0]
        stored = np.load(outcome.result.with_name("a.npz"))
        assert np.array_equal(stored["affine"], read_label(outcome.result).geometry.affine)

    def test_a_look_ahead_that_fails_costs_no_case(self, run, images, monkeypatch):
        def unable(*_):
            raise RuntimeError("a bug")

        monkeypatch.setattr(module, "peak_bytes", unable)
        monkeypatch.setattr(module, "shapes_by_header", unable)
        assert statuses(run()) == {"a": "done", "b": "done", "c": "done"}

    def test_a_fifo_among_the_images(self, run, images):
        (images / "b_0000.nii.gz").unlink()
        os.mkfifo(images / "b_0000.nii.gz")
        outcomes = run()
        assert statuses(outcomes) == {"a": "done", "b": "failed", "c": "done"}
        assert "is a FIFO" in outcomes["b"].record.message and "remove the case." in outcomes["b"].record.message

    @pytest.mark.parametrize("value", [np.nan, np.inf, 3.4e38])
    def test_voxels_that_are_not_finite(self, run, images, value):
        volume = volume_of(smooth_noise((12, 14, 16)))
        volume.array[0, 3, 4, 5] = value
        write_volume(images / "b_0000.nii.gz", volume.array[0], volume.geometry)
        outcomes = run()
        assert statuses(outcomes) == {"a": "done", "b": "failed", "c": "done"}
        assert "NaN, infinite" in outcomes["b"].record.message

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_an_output_that_is_not_finite_is_no_empty_mask(self, run, value):
        class Broken(Threshold):
            def forward(self, image):
                return super().forward(image) * value

        run.network = Broken()
        outcomes = run()
        assert statuses(outcomes) == dict.fromkeys("abc", "failed")
        assert "output contains NaN or infinite values" in outcomes["a"].record.message
        assert not (run.out / "a.nii.gz").exists()

    def test_a_bug_in_one_case_keeps_its_traceback_and_the_others_go_on(self, run, monkeypatch, caplog):
        prepare = module.prepare

        def broken(volume, plans):
            if volume.array.shape[1] == 5:
                raise IndexError("a bug")
            return prepare(volume, plans)

        monkeypatch.setattr(module, "prepare", broken)
        volume = volume_of(smooth_noise((5, 14, 16)))
        write_volume(run.images / "b_0000.nii.gz", volume.array[0], volume.geometry)
        outcomes = run()
        assert statuses(outcomes) == {"a": "done", "b": "failed", "c": "done"}
        assert "b_0000.nii.gz: unexpected IndexError: a bug." in outcomes["b"].record.message
        assert "Traceback" in caplog.text and 'raise IndexError("a bug")' in caplog.text

    def test_want_of_memory_is_said_in_words(self, run):
        class Hungry(torch.nn.Module):
            def forward(self, image):
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

        run.network = Hungry()
        assert "a_0000.nii.gz: not enough memory" in run()["a"].record.message

    def test_a_full_disk_ends_the_run(self, run, monkeypatch):
        def full(*_, **__):
            raise OSError(errno.ENOSPC, "No space left on device", "x")

        monkeypatch.setattr("swinssl.inference.output_folder.write_volume", full)
        with pytest.raises(OSError, match="No space left"):
            run()
        assert run.network.calls == 1


class TestRefusals:
    def test_output_among_the_images(self, run, images):
        run.out = images
        with pytest.raises(UserError, match="contains the images"):
            run()
        assert sorted(path.name for path in images.iterdir()) == [f"{c}_0000.nii.gz" for c in "abc"]

    @pytest.mark.parametrize("name", ["b.nii.gz", "dataset.json"])
    def test_files_that_others_wrote(self, run, name):
        run.out.mkdir()
        (run.out / name).write_text("a label drawn by hand")
        with pytest.raises(UserError, match=rf"has {name}, but no predict_args\.json"):
            run(overwrite=True)
        assert (run.out / name).read_text() == "a label drawn by hand"

    def test_output_is_a_file(self, run):
        run.out.write_text("x")
        with pytest.raises(UserError, match="is a file"):
            run()

    def test_output_cannot_be_made(self, run, tmp_path):
        (tmp_path / "file").write_text("x")
        run.out = tmp_path / "file" / "in" / "out"
        with pytest.raises(UserError, match=r"out: .*file is a file, not a folder"):
            run()

    def test_results_made_otherwise(self, run, tmp_path):
        run()
        with pytest.raises(UserError, match=r"were made with other overlap \(--overlap\)"):
            run(overlap=0.2)
        with pytest.raises(UserError, match=r"were made with other mirror images \(--tta\)"):
            run(tta=True)
        other = TrainedModel.open(write_model(tmp_path / "other", PLANS, folds=(0, 1)), [1])
        with pytest.raises(UserError, match="were made with other weights or folds"):
            run(model=other)
        assert statuses(run(model=other, overwrite=True)) == dict.fromkeys("abc", "done")

    def test_a_damaged_record(self, run):
        run()
        (run.out / RECORD_FILE).write_text("{")
        with pytest.raises(UserError, match=rf"{RECORD_FILE}: .*not valid JSON"):
            run()


class TestReadingAhead:
    def test_the_next_case_is_read_while_the_network_computes_and_no_other(self, run, monkeypatch):
        events, load, changed = [], module.load_case, threading.Condition()

        def note(event):
            with changed:
                events.append(event)
                changed.notify_all()

        def noted(images, plans, **arguments):
            note(f"read {images[0].name[0]}")
            return load(images, plans, **arguments)

        class Patient(Threshold):
            def forward(self, image):
                expected = f"read {'bcc'[self.calls]}"
                with changed:
                    assert changed.wait_for(lambda: expected in events, timeout=20)
                note("compute")
                return super().forward(image)

        monkeypatch.setattr(module, "load_case", noted)
        run.network = Patient()
        run()
        assert events == ["read a", "read b", "compute", "read c", "compute", "compute"]

    def test_not_where_memory_is_short(self, run, monkeypatch):
        events, load = [], module.load_case

        def noted(images, plans, **arguments):
            events.append(f"read {images[0].name[0]}")
            return load(images, plans, **arguments)

        class Noting(Threshold):
            def forward(self, image):
                events.append("compute")
                return super().forward(image)

        monkeypatch.setattr(module, "load_case", noted)
        monkeypatch.setattr(module, "free_memory", lambda: 100_000)
        run.network = Noting()
        run()
        assert [event for event in events if event != "compute"] == ["read a", "read b", "read c"]
        assert events.index("read b") > events.index("compute")
        assert events[-1] == "compute"
