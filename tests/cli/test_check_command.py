"""swinssl_check as typed: table, JSON, exit codes, the next command."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from swinssl.cli.check import main
from swinssl.imageio.volume import Geometry
from swinssl.imageio.writer import write_volume


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Six CT cases with one structure, in the workspace's raw folder."""
    monkeypatch.setenv("SWINSSL_ROOT", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "160")
    folder, grid = tmp_path / "raw" / "Dataset007_Toy", Geometry.from_parts((4, 9, 8), spacing=(3, 1, 1))
    for i in range(6):
        image = np.random.default_rng(i).normal(-200, 300, grid.shape).astype(np.int16)
        label = np.zeros(grid.shape, np.uint8)
        label[1:3, 2:6, 1 : 3 + i % 5] = label[3, 1:8, i] = 1
        write_volume(folder / "imagesTr" / f"case_{i}_0000.nii.gz", image, grid)
        write_volume(folder / "labelsTr" / f"case_{i}.nii.gz", label, grid)
    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "[organ]": 1}, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps({**content, "numTraining": 6}))
    return folder


def typed(monkeypatch, *words):
    """Run the command; its exit code."""
    monkeypatch.setattr(sys, "argv", ["swinssl_check", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code or 0


def test_sound(folder, monkeypatch, capsys):
    assert typed(monkeypatch, "7") == 0
    out = capsys.readouterr().out
    assert out.splitlines() == [
        "Dataset007_Toy: 6 cases; channels: CT; structures (cases with it): [organ] (6)",
        "no problems found",
        "encoder: tiny_smit_headneck_ct comes with swinssl, pretrained on head-and-neck CT. To start from it: "
        "swinssl_plan_and_preprocess 7 --init tiny_smit_headneck_ct",
        "next: swinssl_plan_and_preprocess 7",
    ]


def test_errors(folder, monkeypatch, capsys):
    path = folder / "imagesTr" / "case_2_0000.nii.gz"
    path.write_bytes(path.read_bytes()[:-30])
    (folder / "labelsTr" / "case_4.nii.gz").unlink()
    assert typed(monkeypatch, folder) == 2
    out, err = capsys.readouterr()
    assert (
        "E204" in out
        and "imagesTr/case_2_0000.nii.gz" in out
        and "E107" in out
        and "Copy or export the file again" in out
    )
    assert "2 errors" in out and "next:" not in out
    assert err.splitlines()[-1] == "error: 2 errors in Dataset007_Toy. Fix the problems listed, then check again."


def test_warnings_alone_go_on(folder, monkeypatch, capsys):
    for i in range(6):
        (folder / "imagesTr" / f"notes_{i}.txt").touch()
    (folder / "imagesTr" / "[bold]x.txt").touch()
    assert typed(monkeypatch, "Toy") == 0
    out = capsys.readouterr().out
    assert "7 warnings" in out and "[bold]x.txt" in out and "and 2 more" in out
    # What to do is said once under rows that need the same; the closing line names the kind alone.
    assert out.count("Convert it to one of") == 1
    kinds = "1 kind of problems with files that may be left out: W102 (a file or folder that is ignored)"
    assert out.splitlines()[-2] == f"warning: {kinds}"
    assert out.splitlines()[-1] == "next: swinssl_plan_and_preprocess Toy"


def test_json(folder, monkeypatch, capsys):
    (folder / "imagesTr" / "notes.txt").touch()
    assert typed(monkeypatch, "7", "--json", "--workers", "0") == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found.keys() == {"severity", "code", "file", "message", "remedy"}
    assert (found["severity"], found["code"], found["file"]) == ("warning", "W102", "imagesTr/notes.txt")
    (folder / "imagesTr" / "case_2_0000.nii.gz").write_bytes(b"")
    assert typed(monkeypatch, "7", "--json") == 2
    assert {row["code"] for row in json.loads(capsys.readouterr().out)} == {"E202", "W102"}


def test_unknown_data_set(folder, monkeypatch, capsys):
    assert typed(monkeypatch, "Dataset007_Toi") == 2
    assert "Did you mean Dataset007_Toy?" in capsys.readouterr().err


def test_help_needs_no_heavy_import():
    code = "import sys, swinssl.cli.check; sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'nibabel')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
