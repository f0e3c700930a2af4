"""A user's program passes mypy in strict mode: the package is typed, lazy names included."""

from __future__ import annotations

import importlib.resources
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import numpy
import swinssl

model: swinssl.TrainedModel = swinssl.load_model("model", folds=[0, 1], device="cpu")
prediction: swinssl.Prediction = model.predict(numpy.zeros((4, 5, 6)), spacing=(2.0, 1.0, 1.0))
dice: float | None = swinssl.evaluate("a", "b").dice
reasons: dict[str, str] = swinssl.preprocess("101").failed
names: list[str] = [method.name for method in swinssl.list_methods()]
encoder: swinssl.Encoder = swinssl.load_encoder("name")
trained: swinssl.TrainedModel = swinssl.train("101", fold=[0, 1], config=swinssl.TrainingConfig(max_minutes=3))
if trained.training is not None:
    dice = trained.training.dice
reveal_type(prediction.volumes_ml)
reveal_type(swinssl.read_image("a.nii.gz").spacing)
swinssl.load_model(3)
swinssl.load_modell
"""


@pytest.mark.slow
def test_mypy_in_strict_mode(tmp_path):
    pytest.importorskip("mypy")
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--follow-imports=silent",
        "--cache-dir",
        "cache",
        "program.py",
    ]
    environment = {**os.environ, "MYPYPATH": str(Path(__file__).parents[2])}
    said = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment).stdout
    volumes, spacing, path, name = (line for line in said.splitlines() if line.startswith("program.py"))
    assert volumes.endswith('Revealed type is "dict[str, float]"')
    assert spacing.endswith('Revealed type is "tuple[float, float, float]"')
    assert 'Argument 1 to "load_model" has incompatible type "int"' in path
    assert 'Module has no attribute "load_modell"' in name


def test_the_marker_is_part_of_the_package():
    import tomllib

    assert importlib.resources.files("swinssl").joinpath("py.typed").is_file()
    configuration = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert "py.typed" in configuration["tool"]["setuptools"]["package-data"]["swinssl"]
