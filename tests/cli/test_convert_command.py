"""swinssl_convert as typed: tasks of the Medical Segmentation Decathlon, made by code."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest

from swinssl.core.files import sha256_of
from swinssl.dataset.raw_dataset import RawDataset

SHAPE = (8, 9, 10)
AFFINE = np.array([[-1.0, 0, 0, 30], [0, 1.5, 0, -20], [0, 0, 3.0, 7], [0, 0, 0, 1]])


def task(folder, *, modality=("FLAIR", "T1w"), cases=3, tests=1, ending=".nii.gz", **keys):
    """A task: images with channels in the fourth dimension, and the lists of its dataset.json."""
    for sub in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / sub).mkdir(parents=True)
    training, test = [], []
    for i in range(cases + tests):
        rng = np.random.default_rng(i)
        shape = (*SHAPE, len(modality)) if len(modality) > 1 else SHAPE
        image = nibabel.Nifti1Image(rng.integers(0, 900, shape).astype(np.int16), AFFINE)
        image.header.set_xyzt_units("mm", "sec")
        image.header["descrip"] = b"patient 7"
        name = f"BRATS_{i:03d}{ending}"
        if i >= cases:
            nibabel.save(image, folder / "imagesTs" / name)
            test.append(f"./imagesTs/{name}")
            continue
        nibabel.save(image, folder / "imagesTr" / name)
        label = nibabel.Nifti1Image(rng.integers(0, 3, SHAPE).astype(np.uint8), AFFINE)
        nibabel.save(label, folder / "labelsTr" / name)
        training.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    (folder / "imagesTr" / "._BRATS_000.nii.gz").write_bytes(b"left by another system")
    described = {
        "name": "BRATS",
        "tensorImageSize": "4D",
        "modality": {str(i): name for i, name in enumerate(modality)},
        "labels": {"0": "background", "1": "edema", "2": "tumour"},
        "numTraining": cases,
        "numTest": tests,
        "training": training,
        "test": test,
    }
    (folder / "dataset.json").write_text(json.dumps({**described, **keys}))
    return folder


def hashes(folder):
    return {path.relative_to(folder): sha256_of(path) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def convert(typed, tmp_path, monkeypatch):
    monkeypatch.setenv("SWINSSL_ROOT", str(tmp_path / "root"))
    return lambda *words: typed("convert", "msd", *words)


def test_channels_become_files_with_the_voxels_and_place_that_they_had(convert, typed, tmp_path):
    source = task(tmp_path / "Task01_BrainTumour")
    before = hashes(source)
    done = convert(source)
    folder = tmp_path / "root/raw/Dataset001_BrainTumour"
    assert done.code == 0 and done.out.splitlines() == [
        f"4 cases of 2 channels converted; raw data set: {folder}",
        "next: swinssl_check Dataset001_BrainTumour",
    ]
    assert hashes(source) == before
    raw = RawDataset.load(folder)
    assert raw.channel_names == ("FLAIR", "T1w") and raw.labels.names == ("edema", "tumour")
    assert [case.id for case in raw.cases] == ["BRATS_000", "BRATS_001", "BRATS_002"]
    for i, part in ((0, "imagesTr"), (3, "imagesTs")):
        whole = nibabel.load(source / part / f"BRATS_{i:03d}.nii.gz")
        for channel in range(2):
            image = nibabel.load(folder / part / f"BRATS_{i:03d}_{channel:04d}.nii.gz")
            assert np.array_equal(image.dataobj, np.asarray(whole.dataobj)[..., channel])
            assert np.array_equal(image.affine, AFFINE) and image.get_data_dtype() == np.int16
            assert bytes(image.header["descrip"]).strip(b"\0") == b""
    assert "patient" not in (folder / "dataset.json").read_text()
    checked = typed("check", "Dataset001_BrainTumour")  # as the last line says
    assert checked.code == 0, checked.out


def test_scaling_is_kept_as_it_is_stored(convert, tmp_path):
    source = task(tmp_path / "Task01_X", cases=1, tests=0)
    image = nibabel.load(source / "imagesTr/BRATS_000.nii.gz")
    image = nibabel.Nifti1Image(np.asarray(image.dataobj), AFFINE)
    image.header.set_slope_inter(0.5, -3)
    nibabel.save(image, source / "imagesTr/BRATS_000.nii.gz")
    expected = nibabel.load(source / "imagesTr/BRATS_000.nii.gz").get_fdata()
    assert convert(source).code == 0
    second = nibabel.load(tmp_path / "root/raw/Dataset001_X/imagesTr/BRATS_000_0001.nii.gz")
    assert np.array_equal(second.get_fdata(), expected[..., 1])


def test_one_channel_of_3d_images(convert, tmp_path):
    source = task(tmp_path / "Task09_Spleen", modality=("CT",), ending=".nii")
    assert convert(source, "--dataset", "41_Spleen").code == 0
    raw = RawDataset.load(tmp_path / "root/raw/Dataset041_Spleen")
    assert raw.cases[0].images[0].name == "BRATS_000_0000.nii" and raw.file_ending == ".nii"


def test_dry_run_writes_nothing_and_a_second_run_resumes(convert, tmp_path):
    source, folder = task(tmp_path / "Task01_X"), tmp_path / "root/raw/Dataset001_X"
    would = f"nothing written (would convert 4 of 4 cases of 2 channels into {folder})"
    assert convert(source, "--dry-run").out.strip() == would and not folder.exists()
    assert convert(source).code == 0
    whole = hashes(folder)
    (folder / "imagesTr/BRATS_001_0001.nii.gz").unlink()
    (folder / "dataset.json").unlink()
    assert "1 cases of 2 channels converted, 3 done before" in convert(source).out and hashes(folder) == whole


def test_a_damaged_image_leaves_nothing_of_its_case(convert, tmp_path):
    source, folder = task(tmp_path / "Task01_X"), tmp_path / "root/raw/Dataset001_X"
    path = source / "imagesTr/BRATS_001.nii.gz"
    path.write_bytes(path.read_bytes()[:-40])
    refused = convert(source)
    assert refused.code == 2 and "BRATS_001.nii.gz: " in refused.err
    assert sorted(p.name for p in (folder / "imagesTr").iterdir()) == ["BRATS_000_0000.nii.gz", "BRATS_000_0001.nii.gz"]
    assert not (folder / "dataset.json").exists()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "dataset.json").unlink(), "no dataset.json here"),
        (lambda folder: (folder / "imagesTr/BRATS_000.nii.gz").unlink(), "BRATS_000.nii.gz: no such file"),
        (lambda folder: (folder / "labelsTr/BRATS_001.nii.gz").write_bytes(b""), "BRATS_001.nii.gz: has no content"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_written(convert, tmp_path, spoil, words):
    source = task(tmp_path / "Task01_X")
    spoil(source)
    done = convert(source)
    assert done.code == 2 and words in done.err and not (tmp_path / "root").exists()


def test_other_volumes_than_modalities(convert, tmp_path):
    source = task(tmp_path / "Task01_X", modality=("a", "b"))
    content = json.loads((source / "dataset.json").read_text())
    content["modality"] = {"0": "a", "1": "b", "2": "c"}
    (source / "dataset.json").write_text(json.dumps(content))
    refused = convert(source)
    assert refused.code == 2 and "BRATS_000.nii.gz: has 2 volumes; 3 expected" in refused.err


def test_names_that_are_taken_or_cannot_be(convert, tmp_path):
    source = task(tmp_path / "Task01_X")
    (tmp_path / "root/raw/Dataset001_Y").mkdir(parents=True)
    assert "has this number" in convert(source).err
    assert "Give --dataset a number and a name" in convert(source, "--dataset", "Brain").err
    assert convert(source, "--dataset", "2_X").code == 0
    other = task(tmp_path / "Task02_X", cases=2, name="other")
    assert "holds another data set" in convert(other, "--dataset", "2_X").err


def test_check_of_a_task_names_the_command_that_converts_it(convert, typed, tmp_path):
    source = task(tmp_path / "Task01_X")
    checked = typed("check", str(source))
    assert checked.code == 2 and f"swinssl_convert msd {source}" in " ".join(checked.out.split())
    assert convert(source).code == 0
