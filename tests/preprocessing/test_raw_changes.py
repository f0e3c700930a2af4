"""Raw data that changed since planning or preprocessing are named, each with a remedy that works."""

from __future__ import annotations

import os
import shutil

import pytest
from support.toy_dataset import NAME, make_preprocessed

from swinssl.dataset.raw_dataset import RawDataset
from swinssl.preprocessing import raw_changes as module
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
