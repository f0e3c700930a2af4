"""From raw files to the store: what is prepared, skipped, mended, named, and how it is stopped."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time

import nibabel
import numpy as np
import pytest
from batchgenerators.augmentations.utils import resize_segmentation
from scipy import ndimage
from skimage.transform import resize

from swinssl.core import pools as case_pool
from swinssl.core.errors import UserError
from swinssl.dataset.labels import LabelSet
from swinssl.dataset.raw_dataset import RawDataset
from swinssl.imageio.reader import LARGEST_INTENSITY, read_label, unusable_voxels
from swinssl.imageio.volume import Geometry, Volume
from swinssl.networks.network_plan import NetworkPlan
from swinssl.preprocessing import preprocess as module
from swinssl.preprocessing.plans import Cost, Intensity, IntensityStatistics, Plans, Resampling, TrainingPlan
from swinssl.preprocessing.preprocess import default_workers, is_current, part_of, prepare, preprocess_dataset
from swinssl.preprocessing.store import PreprocessedCase, PreprocessedDataset, case_folder, is_half_enough, to_half

LABELS = LabelSet(names=("organ", "speck"), values=((1,), (2,)))


def make_plans(**changes):
    statistics = IntensityStatistics(max=1, mean=0, median=0, min=0, percentile_00_5=0, percentile_99_5=1, std=1)
    values = {
        "dataset_name": "Dataset001_Toy",
        "channel_names": ("MR",),
        "labels": LABELS,
        "spacing": (2.0, 1.5, 1.5),
        "patch_size": (32, 32, 32),
        "median_shape": (32, 32, 32),
        "intensity": (Intensity(scheme="zscore"),),
        "network": NetworkPlan(),
        "training": TrainingPlan(),
        "cost": Cost(memory_gb=1, step_seconds_cpu=1),
        "training_spacings": ((1, 1, 1), (1, 1, 1)),
        "training_extent_mm": ((1, 1, 1), (1, 1, 1)),
        "intensity_statistics": (statistics,),
    }
    return Plans(**{**values, **changes})


def body(shape=(24, 30, 34), seed=0):
    """A noisy ellipsoid on a void of zeros with a hole inside, and its label: an organ, and background elsewhere."""
    grid = np.stack(np.meshgrid(*(np.linspace(-1.2, 1.2, n) for n in shape), indexing="ij"))
    radius = np.sqrt((grid**2).sum(axis=0))
    noise = np.random.default_rng(seed).normal(100, 20, shape)
    image = np.where((radius < 1) & (radius > 0.2), noise, 0).astype(np.float32)
    label = ((radius > 0.3) & (radius < 0.6)).astype(np.uint8)
    return image, label


def volumes(image, label, spacing=(2.5, 1.0, 1.0)):
    geometry = Geometry.from_parts(image.shape, spacing=spacing, origin=(5, -7, 9))
    return Volume(image[None], geometry), Volume(label[None], geometry)


def nnunet(image, label, spacing, plans):
    """Spec 1.5 with scipy, skimage and batchgenerators; outside the mask is -1, as nnU-Net has it."""
    mask = ndimage.binary_fill_holes(image != 0)
    box = ndimage.find_objects(mask.astype(int))[0]
    image, label, mask = image[box].astype(np.float64), label[box].astype(np.int16), mask[box]
    label[(label == 0) & ~mask] = -1
    values = image[mask] if plans.intensity[0].inside_mask else image
    image = (image - values.mean()) / values.std()
    if plans.intensity[0].inside_mask:
        image[~mask] = 0
    new = [round(n * old / wanted) for n, old, wanted in zip(image.shape, spacing, plans.spacing, strict=True)]
    return resize(image, new, 3, mode="edge", anti_aliasing=False), resize_segmentation(label, new, order=1), box


class TestPrepare:
    @pytest.mark.parametrize("inside_mask", [False, True])
    def test_equals_nnunet(self, inside_mask):
        image, label = body()
        plans = make_plans(intensity=(Intensity(scheme="zscore", inside_mask=inside_mask),))
        expected, codes, box = nnunet(image, label, (2.5, 1.0, 1.0), plans)
        volume, label_volume = volumes(image, label)
        found = prepare(volume, plans, label=label_volume)
        assert found.crop == tuple((piece.start, piece.stop) for piece in box)
        assert np.abs(found.image[0] - expected).max() <= 1e-5
        assert found.label.dtype == np.uint8
        assert np.array_equal(found.label, np.where(codes == -1, LABELS.outside_code, codes))
        assert (codes == -1).any() and (codes == 1).any()

    def test_every_storage_order_gives_the_same(self):
        image, label = body((9, 14, 11))
        volume, label_volume = volumes(image, label)
        expected = prepare(volume, make_plans(), label=label_volume)
        for order in itertools.permutations(range(3)):
            for flips in itertools.product((1, -1), repeat=3):
                flip = tuple(slice(None, None, step) for step in flips)
                turned, turned_label = image.transpose(order)[flip], label.transpose(order)[flip]
                matrix = np.eye(4)[:, [*order, 3]] * np.array([*flips, 1])
                for axis, step in enumerate(flips):
                    matrix[:3, 3] -= matrix[:3, axis] * (turned.shape[axis] - 1) if step < 0 else 0
                geometry = Geometry(turned.shape, volume.geometry.affine @ matrix)
                found = prepare(
                    Volume(turned[None], geometry), make_plans(), label=Volume(turned_label[None], geometry)
                )
                assert np.array_equal(found.image, expected.image), (order, flips)
                assert np.array_equal(found.label, expected.label)
                assert found.crop == expected.crop and found.source is geometry

    def test_coarse_slices_are_resampled_apart(self):
        image, label = body((8, 30, 34))
        plans = make_plans(spacing=(3.0, 1.0, 1.0))
        volume, _ = volumes(image + 500, label, spacing=(6.0, 1.0, 1.0))
        found = prepare(volume, plans).image
        assert found.shape == (1, 16, 30, 34)
        assert np.array_equal(found[:, ::2], found[:, 1::2])  # nearest slice: each twice

    def test_keeps_its_arguments_and_the_extent(self):
        image, label = body()
        volume, label_volume = volumes(image, label)
        kept = volume.array.copy(), label_volume.array.copy()
        found = prepare(volume, make_plans(), label=label_volume)
        assert np.array_equal(volume.array, kept[0]) and np.array_equal(label_volume.array, kept[1])
        extent = [(stop - start) * mm for (start, stop), mm in zip(found.crop, found.cropped_spacing, strict=True)]
        assert np.allclose(np.multiply(found.shape, found.spacing), extent)

    @pytest.mark.parametrize("scheme", ["zscore", "percentile", "window", "none"])
    @pytest.mark.parametrize("largest", [1e-40, 1e8, LARGEST_INTENSITY])
    def test_every_intensity_that_check_accepts_can_be_stored(self, scheme, largest):
        image, label = body()
        image[12, 15, 17], image[12, 15, 18] = largest, -largest
        assert unusable_voxels(image) is None
        volume, labels = volumes(image, label)
        plans = make_plans(intensity=(Intensity(scheme=scheme, low=0, high=100),))
        stored = prepare(volume, plans, label=labels).image
        assert np.isfinite(to_half(stored) if is_half_enough(stored) else stored).all()

    def test_counts_what_the_crop_and_the_grid_lose(self):
        image, label = body()
        label[0, 0, 0] = 2  # in the void, outside the crop
        label[12, 15, 17] = 1
        volume, label_volume = volumes(image, label)
        found = prepare(volume, make_plans(), label=label_volume)
        assert found.voxels_before == {"organ": int((label == 1).sum()), "speck": 1}
        assert found.voxels_after == {"organ": int((found.label == 1).sum()), "speck": 0}

    def test_all_zero_image_and_one_slice(self):
        image, label = np.zeros((1, 8, 8), np.float32), np.zeros((1, 8, 8), np.uint8)
        volume, label_volume = volumes(image, label, spacing=(2.0, 1.5, 1.5))
        found = prepare(volume, make_plans(), label=label_volume)
        assert found.shape == (1, 8, 8) and (found.image == 0).all()

    def test_no_crop_where_the_plans_say_so(self):
        image, label = body()
        volume, label_volume = volumes(image, label, spacing=(2.0, 1.5, 1.5))
        found = prepare(volume, make_plans(crop_to_nonzero=False), label=label_volume)
        assert found.shape == image.shape and not (found.label == LABELS.outside_code).any()

    @pytest.mark.parametrize(
        ("channels", "label_value", "message"), [(2, 1, "2 channels; the plans have 1"), (1, 7, "declared")]
    )
    def test_what_does_not_fit_is_said(self, channels, label_value, message):
        image, label = body()
        geometry = Geometry.from_parts(image.shape, spacing=(1, 1, 1))
        volume = Volume(np.stack([image] * channels), geometry)
        with pytest.raises(ValueError, match=message):
            prepare(volume, make_plans(), label=Volume(label[None] * np.uint8(label_value), geometry))


def write_nifti(path, array, spacing=(2.5, 1.0, 1.0)):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array.transpose(), np.diag([*spacing[::-1], 1.0])), path)


def make_raw(folder, cases=3, labelled=True):
    """A raw data set in nnU-Net's layout."""
    for i in range(cases):
        image, label = body((10, 16, 14), seed=i)
        write_nifti(folder / "imagesTr" / f"case_{i}_0000.nii.gz", image)
        if labelled:
            write_nifti(folder / "labelsTr" / f"case_{i}.nii.gz", label)
    description = {
        "channel_names": {"0": "MR"},
        "labels": {"background": 0, "organ": 1, "speck": 2},
        "numTraining": cases,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return RawDataset.load(folder)


@pytest.fixture
def raw(tmp_path):
    return make_raw(tmp_path / "raw" / "Dataset001_Toy")


def statuses(report):
    return {case.case_id: case.status for case in report.cases}


class TestDataset:
    @pytest.mark.parametrize("workers", [0, 2])
    def test_stores_what_prepare_gives(self, raw, tmp_path, workers):
        plans = make_plans()
        report = preprocess_dataset(raw, plans, tmp_path / "out", workers=workers)
        assert statuses(report) == {f"case_{i}": "done" for i in range(3)}
        dataset = PreprocessedDataset.open(tmp_path / "out")
        assert dataset.case_ids == ("case_0", "case_1", "case_2") and dataset.plans == plans
        image, label = body((10, 16, 14), seed=1)
        expected = prepare(*volumes(image, label)[:1], plans, label=volumes(image, label)[1])
        case = dataset.case("case_1")
        assert np.abs(case.image() - expected.image).max() <= 2e-3  # float16 up to 4 deviations
        assert np.array_equal(case.label(), expected.label)
        assert case.properties.voxels_before["organ"] == int((label == 1).sum())
        for name in ("dataset.json", "gt_segmentations/case_1.nii.gz"):
            original = raw.folder / name.replace("gt_segmentations", "labelsTr")
            assert (tmp_path / "out" / name).read_bytes() == original.read_bytes()

    def test_keeps_what_placed_the_image(self, raw, tmp_path):
        """So that label maps that are predicted from the store lie where their image does, for any viewer."""
        image = nibabel.load(raw.cases[0].images[0])
        image.header.set_qform(np.diag([-1.25, 1, 2, 1]), 3)
        nibabel.save(image, raw.cases[0].images[0])
        preprocess_dataset(raw, make_plans(), tmp_path / "out", workers=0)
        known = PreprocessedCase.open(tmp_path / "out", raw.cases[0].id).properties
        source = read_label(raw.cases[0].images[0]).geometry
        assert known.source_nifti is not None and known.source_geometry.nifti == source.nifti
        assert np.array_equal(known.source_geometry.affine, source.affine)

    def test_skips_what_is_current_and_takes_up_what_changed(self, raw, tmp_path):
        out = tmp_path / "out"
        preprocess_dataset(raw, make_plans(), out, workers=0)
        before = {path: path.stat().st_mtime_ns for path in out.glob("cases/*/*")}
        again = preprocess_dataset(raw, make_plans(), out, workers=0)
        assert set(statuses(again).values()) == {"current"}
        assert again.cases[0].voxels_before["organ"] > 0  # the report is whole all the same
        assert before == {path: path.stat().st_mtime_ns for path in out.glob("cases/*/*")}

        # another patch size decides nothing here, an edited label does, and so do a flipped bit and another spacing
        label = raw.folder / "labelsTr" / "case_1.nii.gz"
        write_nifti(label, body((10, 16, 14), seed=1)[1] * np.uint8(2))
        damaged = case_folder(out, "case_2") / "image.b2nd"
        content = bytearray(damaged.read_bytes())
        content[-200] ^= 1
        damaged.write_bytes(content)
        changed = preprocess_dataset(raw, make_plans(patch_size=(64, 64, 64)), out, workers=0)
        assert statuses(changed) == {"case_0": "current", "case_1": "done", "case_2": "done"}
        assert (out / "gt_segmentations" / "case_1.nii.gz").read_bytes() == label.read_bytes()
        assert PreprocessedCase.open(out, "case_2").is_intact()
        assert not is_current(raw.case("case_0"), make_plans(spacing=(3.0, 3.0, 3.0)), out)
        redone = preprocess_dataset(raw, make_plans(resampling=Resampling(image_order=1)), out, workers=0)
        assert set(statuses(redone).values()) == {"done"}

    def test_parts_make_up_the_whole(self, raw, tmp_path):
        listed = [[case.id for case in part_of(raw.cases, (i, 2))] for i in (1, 2)]
        assert listed == [["case_0", "case_2"], ["case_1"]]
        report = preprocess_dataset(raw, make_plans(), tmp_path / "out", workers=0, part=(2, 2))
        assert report.missing == ("case_0", "case_2")
        assert PreprocessedDataset.open(tmp_path / "out").case_ids == ("case_1",)
        assert preprocess_dataset(raw, make_plans(), tmp_path / "out", workers=0, part=(1, 2)).missing == ()

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            ("truncate", "case_1_0000.nii.gz"),
            ("nan", "NaN"),
            ("shape", "Resample it onto the grid"),
            ("shift", "worst corner"),
            ("value", "declared"),
            ("delete", "case_1"),
        ],
    )
    def test_a_bad_case_is_named_and_the_others_go_on(self, raw, tmp_path, spoil, message):
        image, label = body((10, 16, 14), seed=1)
        image_path, label_path = (raw.folder / f for f in ("imagesTr/case_1_0000.nii.gz", "labelsTr/case_1.nii.gz"))
        if spoil == "truncate":
            image_path.write_bytes(image_path.read_bytes()[:-100])
        elif spoil == "nan":
            image[3, 3, 3] = np.nan
            write_nifti(image_path, image)
        elif spoil == "shape":
            write_nifti(label_path, label[1:])
        elif spoil == "shift":
            write_nifti(label_path, label, spacing=(2.5, 1.1, 1.0))
        elif spoil == "value":
            write_nifti(label_path, label * np.uint8(9))
        else:
            image_path.unlink()
        report = preprocess_dataset(raw, make_plans(), tmp_path / "out", workers=0)
        assert statuses(report) == {"case_0": "done", "case_1": "failed", "case_2": "done"}
        assert message in report.with_status("failed")[0].message

    def test_a_case_that_fails_now_says_that_its_earlier_version_is_there(self, raw, tmp_path):
        out = tmp_path / "out"
        preprocess_dataset(raw, make_plans(), out, workers=0)
        for number, image in ((1, "case_1_0000.nii.gz"), (2, "case_2_0000.nii.gz")):
            (raw.folder / "imagesTr" / image).write_bytes(b"")
            if number == 2:
                (out / "cases" / "case_2" / "properties.json").unlink()
        report = preprocess_dataset(raw, make_plans(), out, workers=0)
        earlier = ["earlier version" in case.message for case in report.cases]
        assert [case.status for case in report.cases] == ["current", "failed", "failed"]
        assert earlier == [False, True, False]
        assert PreprocessedCase.open(out, "case_1").is_intact()

    def test_a_dead_worker_names_its_case(self, raw, tmp_path, monkeypatch):
        # What stands in for a process that the system kills: the pool is told to run a function that dies on one case.
        monkeypatch.setattr(module, "_process", _die_on_case_1)
        report = preprocess_dataset(raw, make_plans(), tmp_path / "out", workers=2)
        assert statuses(report) == {"case_0": "done", "case_1": "failed", "case_2": "done"}
        assert "its process was killed" in report.with_status("failed")[0].message

    def test_a_vanished_structure_is_reported(self, raw, tmp_path):
        label = body((10, 16, 14), seed=0)[1]
        label[5, 8, 12] = 2
        write_nifti(raw.folder / "labelsTr" / "case_0.nii.gz", label)
        report = preprocess_dataset(raw, make_plans(spacing=(5.0, 3.0, 3.0)), tmp_path / "out", workers=0)
        assert report.vanished == (("case_0", "speck"),)
        assert json.loads(json.dumps(report.as_json()))["cases"][0]["vanished"] == ["speck"]

    def test_an_interruption_leaves_whole_cases_and_the_next_run_finishes(self, raw, tmp_path, monkeypatch):
        calls = []
        write = module.write_case

        def stop_at_second(*args, **values):
            calls.append(args)
            if len(calls) == 2:
                raise KeyboardInterrupt
            write(*args, **values)

        monkeypatch.setattr(module, "write_case", stop_at_second)
        with pytest.raises(KeyboardInterrupt):
            preprocess_dataset(raw, make_plans(), tmp_path / "out", workers=0)
        monkeypatch.undo()
        report = preprocess_dataset(raw, make_plans(), tmp_path / "out", workers=0)
        assert statuses(report) == {"case_0": "current", "case_1": "done", "case_2": "done"}

    def test_images_without_labels(self, tmp_path):
        raw = make_raw(tmp_path / "Dataset002_Images", cases=1, labelled=False)
        preprocess_dataset(raw, make_plans(), tmp_path / "out", workers=0)
        case = PreprocessedDataset.open(tmp_path / "out").case("case_0")
        assert not case.properties.annotated and case.properties.voxels_before == {}

    def test_a_case_that_left_the_raw_data_set_is_pointed_out(self, raw, tmp_path):
        preprocess_dataset(raw, make_plans(), tmp_path / "out", workers=0)
        for path in raw.folder.rglob("case_2*"):
            path.unlink()
        report = preprocess_dataset(RawDataset.load(raw.folder), make_plans(), tmp_path / "out", workers=0)
        assert report.orphans == ("case_2",)
        assert case_folder(tmp_path / "out", "case_2").is_dir()

    def test_workers_fit_into_memory(self, raw, monkeypatch, caplog):
        assert default_workers(raw, make_plans()) == 0  # starting processes would take longer than these small files
        monkeypatch.setattr(module, "CASE_BYTES", module.WORTH_A_POOL // 2)
        assert default_workers(raw, make_plans()) > 0  # three small ones take as long as a large one
        monkeypatch.setattr(case_pool, "free_memory", lambda: 10**12)
        monkeypatch.setattr(case_pool, "usable_cores", lambda: 8)
        assert default_workers(raw, make_plans()) == 3  # never more than cases
        monkeypatch.setattr(case_pool, "free_memory", lambda: 10**8)
        with caplog.at_level("INFO"):
            assert default_workers(raw, make_plans()) == 1
        assert "Using 1 process instead of 3" in caplog.text


PROCESS = """
import sys, time
from pathlib import Path
from swinssl.dataset.raw_dataset import RawDataset
from swinssl.preprocessing import preprocess as module
from swinssl.preprocessing.plans import Plans

raw, plans, out, part, ready, seconds = sys.argv[1:]
prepare, begun = module.prepare, Path(ready)

def slowly(*args, **values):
    begun.touch()
    time.sleep(float(seconds))
    return prepare(*args, **values)

module.prepare = slowly
i, n = map(int, part.split("/"))
report = module.preprocess_dataset(
    RawDataset.load(Path(raw)), Plans.read(Path(plans)), Path(out), workers=0, part=(i, n)
)
print(*(f"{case.case_id}={case.status}" for case in report.cases), f"missing={len(report.missing)}")
"""


class TestSeveralProcesses:
    """Of their own, as two machines with one folder would be."""

    @pytest.fixture
    def start(self, raw, tmp_path):
        make_plans().write(tmp_path / "plans.json")

        def start(*, part="1/1", ready="ready", seconds=0.3):
            paths = (raw.folder, tmp_path / "plans.json", tmp_path / "out", part, tmp_path / ready, seconds)
            return subprocess.Popen(
                [sys.executable, "-c", PROCESS, *map(str, paths)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )

        return start

    @staticmethod
    def ended(process):
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        return dict(word.split("=") for word in out.split())

    @staticmethod
    def contents(folder):
        return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    @pytest.mark.parametrize("parts", [("1/1", "1/1"), ("1/2", "1/1")])
    def test_make_each_case_once_and_the_same_as_one(self, raw, tmp_path, start, parts):
        found = [self.ended(process) for process in [start(part=part) for part in parts]]
        done = [name for said in found for name, status in said.items() if status == "done"]
        assert sorted(done) == ["case_0", "case_1", "case_2"]
        assert {status for said in found for name, status in said.items() if name != "missing"} <= {"done", "current"}
        # Whoever had the whole to do has seen to it that it is whole.
        assert found[1]["missing"] == "0"
        preprocess_dataset(raw, make_plans(), tmp_path / "alone", workers=0)
        assert self.contents(tmp_path / "out") == self.contents(tmp_path / "alone")

    def test_one_that_was_killed_costs_nothing_but_its_time(self, raw, tmp_path, start):
        killed = start(ready="at_work", seconds=600)
        while not (tmp_path / "at_work").exists():
            assert killed.poll() is None
            time.sleep(0.05)
        other = start(ready="other", seconds=0)
        while not (case_folder(tmp_path / "out", "case_2") / "properties.json").exists():
            assert other.poll() is None
            time.sleep(0.05)
        assert not (case_folder(tmp_path / "out", "case_0") / "properties.json").exists()  # it waits for the first
        killed.kill()
        killed.communicate()
        assert self.ended(other) == {**{f"case_{i}": "done" for i in range(3)}, "missing": "0"}
        preprocess_dataset(raw, make_plans(), tmp_path / "alone", workers=0)
        assert self.contents(tmp_path / "out") == self.contents(tmp_path / "alone")


def _die_on_case_1(job):
    import os

    if job.case.id == "case_1":
        os.kill(os.getpid(), 9)
    return module.CaseReport(job.case.id, "done")


def test_unusable_case_id_fails_alone(raw, tmp_path):
    from dataclasses import replace

    odd = replace(raw, cases=(*raw.cases[:1], replace(raw.cases[1], id="../case_1")))
    report = preprocess_dataset(odd, make_plans(), tmp_path / "out", workers=0)
    assert sorted(statuses(report).values()) == ["done", "failed"]
    assert not (tmp_path / "case_1").exists()
    with pytest.raises(UserError):
        case_folder(tmp_path, "../case_1")


def test_a_current_store_that_cannot_be_written_to_is_left_as_it_is(tmp_path, monkeypatch):
    import errno

    from support.toy_dataset import NAME, make_preprocessed

    from swinssl.dataset.raw_dataset import RawDataset
    from swinssl.preprocessing import preprocess as module
    from swinssl.preprocessing.plans import Plans

    folder = make_preprocessed(tmp_path, cases=2)

    def refuse(self, *, wait=False):
        raise PermissionError(errno.EACCES, "Permission denied", str(self.path))

    monkeypatch.setattr(module.FileLock, "take", refuse)
    monkeypatch.setattr("swinssl.core.files.atomic_path", None)
    raw = RawDataset.load(tmp_path / "raw" / NAME)
    report = module.preprocess_dataset(raw, Plans.read(folder), folder, workers=0)
    assert len(report.with_status("current")) == 2
