"""DICOM where an image or a raw data set is expected: every command says what it is and what to do."""

from __future__ import annotations

import pytest
from support.made_models import make_plans, write_model

from swinssl.imageio.formats import dicom_hint, is_dicom, unread_images

CONTENT = bytes(128) + b"DICM" + bytes(40)
REMEDY = "is DICOM. Convert each series to NIfTI first, for example with dcm2niix (dcm2niix -z y -o NIFTI_FOLDER "


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study as scanners export it: folders of files without an ending, beside an index."""
    series = tmp_path / "study" / "series 1"
    series.mkdir(parents=True)
    (series / "IM0001").write_bytes(CONTENT)
    (series / "notes").write_text("none")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "study"


def test_the_content_decides(study, tmp_path):
    assert is_dicom(study / "series 1" / "IM0001")
    assert not is_dicom(study / "series 1" / "notes") and not is_dicom(study) and not is_dicom(study / "none")
    assert "series 1'" in dicom_hint(study / "series 1")
    (tmp_path / "empty").mkdir()
    assert dicom_hint(tmp_path / "empty") is None and dicom_hint(tmp_path / "none") is None
    (line,) = unread_images(study / "series 1")
    assert "1 file left out, such as IM0001" in line


@pytest.mark.parametrize("given", ["study", "./study"])  # a bare name is found here
@pytest.mark.parametrize("command", ["check", "plan"])
def test_as_a_raw_data_set(study, typed, command, given):
    done = typed(command, given)
    assert done.code == 2 and "has no image that swinssl reads" in " ".join((done.out + done.err).split())
    assert "IM0001 is DICOM. Convert each series" in " ".join((done.out + done.err).split())


def test_in_imagestr(study, typed):
    (study / "series 1").rename(study / "imagesTr")
    out = " ".join(typed("check", study).out.split())
    assert "is DICOM, which swinssl does not read; it is ignored" in out and "E110" in out


@pytest.mark.parametrize("given", ["study", "study/series 1", "study/series 1/IM0001"])
def test_as_the_image_to_segment(study, typed, tmp_path, given):
    model = write_model(tmp_path / "model", make_plans())
    done = typed("predict", "-i", given, "-o", tmp_path / "out", "-m", model)
    assert done.code == 2 and REMEDY in done.err and not (tmp_path / "out").exists()


def test_as_a_label_map(study, typed, tmp_path):
    done = typed("evaluate", "-p", study, "-r", tmp_path)
    assert done.code == 2 and REMEDY in done.err


def test_a_data_set_of_the_workspace_takes_precedence_over_a_folder_here(study, typed, tmp_path):
    (tmp_path / "root" / "raw" / "study" / "imagesTr").mkdir(parents=True)
    done = typed("plan", "study", "--root", tmp_path / "root")
    assert done.code == 2 and "DICOM" not in done.err and str(tmp_path / "root" / "raw" / "study") in done.err
