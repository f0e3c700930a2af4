"""swinssl_evaluate as it is typed: what it prints, writes, and refuses."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest

from swinssl.cli.evaluate import main
from swinssl.imageio.volume import Geometry
from swinssl.imageio.writer import write_volume

SHAPE = (6, 14, 16)
GRID = Geometry.from_parts(SHAPE, spacing=(3.0, 1.0, 1.0))


def label_map(shift):
    label = np.zeros(SHAPE, np.uint8)
    label[1:5, 3:9, 3 + shift : 10 + shift] = 1
    label[2:4, 5:7, 5 + shift : 8 + shift] = 2
    return label


@pytest.fixture
def folders(tmp_path):
    """Four cases, shifted by 0 to 3 voxels; case_3 has no tumour predicted."""
    raw = tmp_path / "raw"
    for number in range(4):
        prediction = label_map(number)
        if number == 3:
            prediction[prediction == 2] = 1
        write_volume(tmp_path / "predictions" / f"case_{number}.nii.gz", prediction, GRID)
        write_volume(raw / "labelsTr" / f"case_{number}.nii.gz", label_map(0), GRID)
        image = np.random.default_rng(number).normal(0, 50, SHAPE).astype(np.float32)
        write_volume(raw / "imagesTr" / f"case_{number}_0000.nii.gz", image, GRID)
    labels = {"background": 0, "liver": 1, "liver_tumour": 2}
    (raw / "dataset.json").write_text(json.dumps({"channel_names": {"0": "CT"}, "labels": labels}))
    return tmp_path / "predictions", raw / "labelsTr"


@pytest.fixture
def type_in(monkeypatch, capsys):
    """Type a command line; gives (exit code, stdout, stderr)."""

    def run(*arguments, columns=100):
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setattr("sys.argv", ["swinssl_evaluate", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code or 0, *capsys.readouterr()

    return run


def test_tables_notes_and_files(folders, type_in):
    predictions, references = folders
    code, out, _ = type_in("--predictions", predictions, "--references", references, "--workers", "0")
    assert code == 0
    lines = out.splitlines()
    liver = next(line for line in lines if line.split()[:2] == ["liver", "4"])
    assert liver.split()[-1] == "case_3"
    assert any("liver_tumour" in line and "3/4" in line for line in lines)  # lesions found
    assert "note: liver_tumour: missed in 1 case (case_3): Dice 0 there; HD95 and MSD are over the other 3." in lines
    assert any("only 4 cases" in line for line in lines) and "no images" not in out
    assert lines[-1].startswith("next: ") and "case_3" in lines[-1]
    assert {path.name for path in predictions.iterdir()} >= {"summary.json", "metrics.csv", "overlays.png"}
    # A second run does not take its own files for predictions.
    assert type_in("-p", predictions, "-r", references, "--workers", "0")[0] == 0


def test_of_two_files_nothing_is_written_unless_asked(folders, type_in, tmp_path, monkeypatch):
    predictions, references = folders
    assert type_in("-p", predictions, "-r", references, "--workers", "0")[0] == 0
    summary = (predictions / "summary.json").read_bytes()
    monkeypatch.chdir(predictions)
    pair = ("-p", "case_1.nii.gz", "-r", references / "case_1.nii.gz", "--workers", "0")
    code, out, _ = type_in(*pair)
    assert code == 0 and "liver " in out and "nothing written; --out FOLDER keeps the results" in out
    assert (predictions / "summary.json").read_bytes() == summary  # of all cases
    code, out, _ = type_in(*pair, "--out", tmp_path / "o")
    assert code == 0 and f"written to {tmp_path / 'o'}: summary.json" in out and (tmp_path / "o/overlays.png").exists()


def test_two_files_far_from_their_data_set_are_named_by_the_model(folders, type_in, tmp_path):
    predictions, references = folders
    loose = shutil.copy(references / "case_1.nii.gz", tmp_path / "reference.nii.gz")
    prediction = shutil.copy(predictions / "case_1.nii.gz", tmp_path / "seg.nii.gz")
    _, out, _ = type_in("-p", prediction, "-r", loose, "--workers", "0")
    assert "called by their values (--dataset names them)" in out
    _, out, _ = type_in("-p", prediction, "-r", loose, "--workers", "0", "--dataset", references.parent)
    assert "liver_tumour" in out


def test_files_that_are_not_read_are_named_at_the_end(folders, type_in):
    predictions, references = folders
    (predictions / "case_9.nrrd.gz").touch()
    code, out, _ = type_in("--predictions", predictions, "--references", references, "--workers", "0")
    (line,) = [line for line in out.splitlines() if line.startswith("warning: ")]
    assert code == 0 and "1 file left out, such as case_9.nrrd.gz" in line and out.splitlines()[-2] == line


def test_a_narrow_window_cuts_no_number(folders, type_in, tmp_path):
    predictions, references = folders
    flags = ["-p", predictions, "-r", references, "--tolerance", "1", "--tolerance", "2", "--out", tmp_path / "o"]
    _, wide, _ = type_in(*flags, "--workers", "0")
    _, narrow, _ = type_in(*flags, "--workers", "0", columns=40)
    intervals = re.compile(r"\[\d+\.\d+, \d+\.\d+\]")
    assert intervals.findall(narrow) == intervals.findall(wide) != []


def test_json_is_the_summary_and_nothing_else(folders, type_in, tmp_path):
    predictions, references = folders
    out_folder = tmp_path / "report"
    _, out, _ = type_in("-p", predictions, "-r", references, "--out", out_folder, "--workers", "0", "--json")
    assert json.loads(out) == json.loads((out_folder / "summary.json").read_text())
    assert not (predictions / "summary.json").exists()


def test_several_tolerances(folders, type_in, tmp_path):
    predictions, references = folders
    flags = ["--tolerance", "1", "--tolerance", "3.5", "--out", tmp_path / "o", "--workers", "0", "--json"]
    found = json.loads(type_in("-p", predictions, "-r", references, *flags)[1])["mean"]["1"]
    assert found["NSD_1mm"] < found["NSD_3.5mm"] == 1.0


def test_faults_of_the_user_exit_2_and_write_nothing(folders, type_in, tmp_path):
    predictions, references = folders
    (predictions / "case_2.nii.gz").unlink()
    moved = Geometry.from_parts(SHAPE, spacing=(3.0, 1.0, 1.0), origin=(0, 0, 30))
    for flags, message in [
        ([], "no prediction of 1 case that the references have: case_2"),
        (["--tolerance", "0"], "--tolerance 0"),
        (["--tolerance", "2", "--tolerance", "nan"], "--tolerance nan"),
        (["--out", references / "case_0.nii.gz"], "case_0.nii.gz: a file"),
        (["--images", tmp_path / "none"], "none: no such folder or file"),
        (["--dataset", tmp_path / "none"], "no dataset.json here"),
    ]:
        code, out, err = type_in("-p", predictions, "-r", references, *flags)
        assert code == 2 and err.startswith("error: ") and message in err and out == ""
    write_volume(predictions / "case_2.nii.gz", label_map(1), moved)
    code, _, err = type_in("-p", predictions, "-r", references)
    assert code == 2 and "30 voxels" in err and str(references / "case_2.nii.gz") in err
    assert not (predictions / "summary.json").exists()
