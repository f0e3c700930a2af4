"""Raw data that changed since planning or preprocessing are named, each with a remedy that works."""

from __future__ import annotations

import os
import shutil

import nibabel
import pytest
from support.toy_dataset import NAME, make_preprocessed

from swinssl.dataset.raw_dataset import RawDataset
from swinssl.preprocessing import raw_changes as module
from swinssl.preprocessing.fingerprint import Fingerprint
from swinssl.preprocessing.raw_changes import RawChanges, raw_changes


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("work")
    make_preprocessed(root, cases=3)
    return root


@pytest.fixture
def root(made, tmp_path):
    shutil.copytree(made, tmp_path / "root")  # with the times of the files
    return tmp_path / "root"


def changes(root):
    return raw_changes(RawDataset.load(root / "raw" / NAME), root / "preprocessed" / NAME)


def image(root, case):
    return root / "raw" / NAME / "imagesTr" / f"{case}_0000.nii.gz"


def test_nothing_is_said_of_what_is_the_same_and_nothing_is_read(root, monkeypatch):
    monkeypatch.setattr(module, "image_sha256", None)
    assert changes(root) == RawChanges() and changes(root).lines(root) == []


def test_a_file_of_another_time_but_the_same_content_is_the_same(root):
    os.utime(image(root, "ball_1"))
    assert changes(root) == RawChanges()


def test_a_fifo_in_the_place_of_an_image_is_a_change(root):
    image(root, "ball_1").unlink()
    os.mkfifo(image(root, "ball_1"))
    assert changes(root) == RawChanges(changed=("ball_1",))


def test_another_content_is_named_and_renewed_by_the_remedy(root, typed):
    shutil.copy(image(root, "ball_0"), image(root, "ball_1"))
    folder = root / "preprocessed" / NAME
    assert changes(root) == RawChanges(changed=("ball_1",))
    (line,) = changes(root).lines(folder)
    assert line == (
        "changed since they were preprocessed: 1 case (ball_1). To renew them: "
        f"swinssl_preprocess {NAME} --root {root}."
    )
    assert typed("preprocess", NAME, "--root", root, "--workers", 0).code == 0
    assert changes(root) == RawChanges()


def test_cases_that_came_and_went_are_named(root):
    raw = root / "raw" / NAME
    shutil.copy(image(root, "ball_0"), image(root, "ball_8"))
    shutil.copy(raw / "labelsTr" / "ball_0.nii.gz", raw / "labelsTr" / "ball_8.nii.gz")
    image(root, "ball_2").unlink()
    (raw / "labelsTr" / "ball_2.nii.gz").unlink()
    assert changes(root) == RawChanges(added=("ball_8",), removed=("ball_2",))
    added, removed = changes(root).lines(root / "preprocessed" / NAME)
    assert "not trained on: 1 case (ball_8)" in added and "still trained on: 1 case (ball_2)" in removed


def test_training_says_it_and_goes_on(root, typed):
    shutil.copy(image(root, "ball_0"), image(root, "ball_1"))
    done = typed("train", NAME, "--root", root, "--dry-run", "--steps", 1)
    assert done.code == 0 and "warning: changed since they were preprocessed: 1 case (ball_1)." in done.err


class TestAnotherDataSetOfTheSameName:
    @pytest.fixture
    def other(self, root, tmp_path):
        """A raw data set of this name elsewhere, with the same case ids and other images."""
        other = tmp_path / "other" / NAME
        shutil.copytree(root / "raw" / NAME, other)
        for path in (other / "imagesTr").iterdir():
            volume = nibabel.load(path)
            nibabel.save(nibabel.Nifti1Image(volume.get_fdata() + 1, volume.affine), path)
        return other

    @pytest.mark.parametrize(
        "words", [("plan",), ("plan", "--explain"), ("plan_and_preprocess", "--dry-run"), ("preprocess",), ("train",)]
    )
    def test_is_refused_and_nothing_is_replaced(self, root, other, typed, words):
        folder = root / "preprocessed" / NAME
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        done = typed(words[0], other, "--root", root, *words[1:])
        assert done.code == 2 and f"{folder}: holds the plan and 3 preprocessed cases of another raw" in done.err
        assert str(root / "raw" / NAME) in done.err or "with this name. It shares no image" in done.err
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before

    def test_each_remedy_works(self, root, other, typed, tmp_path):
        def preprocessed(source, root):
            return typed("plan_and_preprocess", source, "--root", root, "--preset", "tiny", "--workers", 0).code == 0

        assert not preprocessed(other, root)
        assert preprocessed(other, tmp_path / "another_root")
        renamed = other.rename(other.with_name("Dataset123_Renamed"))
        assert preprocessed(renamed, root)
        renamed.rename(other)
        shutil.rmtree(root / "preprocessed" / NAME)
        assert preprocessed(other, root)

    def test_a_plan_alone_is_kept_too(self, root, other, typed, tmp_path):
        assert typed("plan", NAME, "--root", root).code == 0
        shutil.rmtree(root / "preprocessed" / NAME / "cases")
        done = typed("plan", other, "--root", root)
        assert done.code == 2 and f"the plan of another raw data set with this name, {root / 'raw' / NAME}" in done.err

    def test_a_data_set_that_moved_and_grew_is_the_same(self, root, typed, tmp_path):
        assert typed("plan", NAME, "--root", root).code == 0
        moved = tmp_path / "moved" / NAME
        shutil.copytree(root / "raw" / NAME, moved)
        shutil.rmtree(root / "raw" / NAME)
        for case in ("ball_0", "ball_1"):
            (moved / "imagesTr" / f"{case}_0000.nii.gz").unlink()
            (moved / "labelsTr" / f"{case}.nii.gz").unlink()
        assert typed("plan_and_preprocess", moved, "--root", root, "--workers", 0).code == 0
        facts = Fingerprint.read(root / "preprocessed" / NAME).swinssl
        assert facts.source == str(moved) and len(facts.image_sha256) == 1

    def test_images_replaced_at_the_same_place_are_the_same_data_set(self, root, other, typed):
        assert typed("plan", NAME, "--root", root).code == 0
        shutil.rmtree(root / "raw" / NAME)
        other.rename(root / "raw" / NAME)
        assert typed("plan_and_preprocess", NAME, "--root", root, "--workers", 0).code == 0
