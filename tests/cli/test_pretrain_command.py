"""The nine commands, typed: each trains, and says where its encoder is."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from support.toy_dataset import NAME, make_preprocessed

from swinssl.cli.command import run_typed
from swinssl.cli.pretrain import pretrain_command
from swinssl.core.errors import UserError
from swinssl.ssl.methods.registry import METHODS, load_method

SHORT = ["--steps", "2", "--device", "cpu", "--precision", "fp32", "--readers", "0"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("work")
    make_preprocessed(root, cases=2)
    return root


def typed(method, root, *arguments):
    run_typed(pretrain_command(method), ["1", "--root", str(root), *SHORT, *arguments])


@pytest.mark.parametrize("method", sorted(METHODS))
def test_each_command_trains_an_encoder(method, root, capsys):
    few = ["--prototypes", "16"] if "prototypes" in load_method(method).Options.model_fields else []
    typed(method, root, *few)
    folder = root / "results" / "pretraining" / f"{method}__{NAME}"
    assert f"encoder: {folder / 'encoder.safetensors'}" in capsys.readouterr().out
    assert (folder / "encoder.safetensors").exists()
    assert json.loads((folder / "run.json").read_text())["method"] == method


def test_a_rehearsal_says_what_would_be_done_and_writes_nothing(root, capsys):
    typed("smit", root, "--dry-run", "--seed", "3")
    assert "would train 2 steps" in capsys.readouterr().out
    assert not list((root / "results" / "pretraining").glob("*seed3*"))
    typed("smit", root, "--dry-run", "--json", "--seed", "3")
    said = json.loads(capsys.readouterr().out)
    assert said["steps"] == 2 and len(said["volumes"]) > 0 and said["patch_size"] == [32, 32, 32]


def test_raw_data_that_changed_are_named(tmp_path, capsys):
    make_preprocessed(tmp_path, cases=2)
    (tmp_path / "raw" / NAME / "imagesTr").joinpath("case_9_0000.nii.gz").write_bytes(
        next((tmp_path / "raw" / NAME / "imagesTr").glob("*_0000.nii.gz")).read_bytes()
    )
    (tmp_path / "raw" / NAME / "labelsTr").joinpath("case_9.nii.gz").write_bytes(
        next((tmp_path / "raw" / NAME / "labelsTr").glob("*.nii.gz")).read_bytes()
    )
    typed("rotation", tmp_path, "--dry-run")
    assert "warning: not preprocessed, so not trained on: 1 case (case_9)." in capsys.readouterr().err


def test_json_is_the_run(root, capsys):
    typed("rotation", root, "--json", "--out", str(root / "json"))
    assert json.loads(capsys.readouterr().out)["steps"] == 2


def test_options_are_the_method_s_own(root):
    with pytest.raises(UserError, match="No such option: --mask-ratio"):
        typed("rotation", root, "--mask-ratio", "0.5")


def test_each_method_has_a_console_command():
    scripts = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["scripts"]
    assert {n for n in METHODS if scripts.get(f"swinssl_pretrain_{n}") == f"swinssl.cli.pretrain:{n}"} == set(METHODS)


def test_help_needs_no_torch():
    code = "import sys, swinssl.cli.pretrain; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
