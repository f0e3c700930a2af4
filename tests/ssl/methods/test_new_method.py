"""A new method is a file and a row: the example of the documentation, registered here alone, trains by its command."""

from __future__ import annotations

import json
import re
import sys
import types
from pathlib import Path

import pytest
from support.toy_dataset import NAME, make_preprocessed

from swinssl.cli import pretrain as commands
from swinssl.cli.command import run_typed
from swinssl.core.errors import UserError
from swinssl.experiments.benchmark.config import Init
from swinssl.ssl.methods.registry import METHODS, MethodEntry, load_method

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "adding-a-method.md").read_text(encoding="utf-8")
SUMMARY = "Predict how much an image was blurred."


@pytest.fixture
def sharpness(monkeypatch):
    """The file of the page as a module, and its row."""
    module = types.ModuleType("sharpness_of_the_page")
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    exec(compile(code, "docs/adding-a-method.md", "exec"), vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(METHODS, "sharpness", MethodEntry(f"{module.__name__}:Sharpness", SUMMARY))
    return "sharpness"


def test_two_steps_of_a_new_method_by_its_command(sharpness, tmp_path, capsys):
    make_preprocessed(tmp_path, cases=2)
    short = ["--steps", "2", "--device", "cpu", "--precision", "fp32", "--readers", "0"]
    run_typed(commands.pretrain_command(sharpness), ["1", "--root", str(tmp_path), *short, "--max-sigma", "1.5"])
    folder = tmp_path / "results" / "pretraining" / f"sharpness__{NAME}"
    assert f"encoder: {folder / 'encoder.safetensors'}" in capsys.readouterr().out
    run = json.loads((folder / "run.json").read_text())
    assert (run["method"], run["steps"], run["options"]) == ("sharpness", 2, {"max_sigma": 1.5})


def test_script_help_and_checks_derive_from_the_row(sharpness, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["swinssl_pretrain_sharpness", "--help"])
    with pytest.raises(SystemExit) as end:
        commands.sharpness()
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert SUMMARY in shown and "--max-sigma" in shown
    assert Init(method=sharpness, datasets=("1",)).method == sharpness


def test_the_page_names_the_row_and_the_script_as_they_are():
    scripts = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    registry = (ROOT / "swinssl" / "ssl" / "methods" / "registry.py").read_text(encoding="utf-8")
    assert '"sharpness": MethodEntry(f"{_HERE}.sharpness:Sharpness", ' in PAGE
    assert '"dino": MethodEntry(f"{_HERE}.dino:Dino", ' in registry
    line = 'swinssl_pretrain_dino = "swinssl.cli.pretrain:dino"'
    assert line in PAGE and line in scripts


def test_the_documented_methods_exist():
    page = (ROOT / "docs" / "pretraining.md").read_text(encoding="utf-8")
    table = page.split("| method | the task | the loss |")[1].split("\n\n")[0]
    documented = re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)
    assert len(documented) >= 9 and set(documented) <= set(METHODS)


def test_an_unknown_method_is_answered_with_the_nearest_name():
    with pytest.raises(UserError, match=r"no such method: simmin\. Did you mean simmim\? Choose one of simmim, "):
        load_method("simmin")
    with pytest.raises(AttributeError):
        _ = commands.simmin
