"""swinssl_model as it is typed."""

from __future__ import annotations

import json

import pytest
from support.made_models import write_model


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_model(tmp_path / "here" / "results" / "Dataset001_Toy" / "first", folds=(0, 1))


def test_from_one_workspace_to_another(model, typed, tmp_path):
    done = typed("model", "export", model)
    assert done.code == 0 and done.out.startswith("first.zip: 2 folds, ")
    assert "is there already" in typed("model", "export", model).error
    assert typed("model", "verify", "first.zip").out.endswith("first.zip: whole\n")
    done = typed("model", "import", "first.zip", "--root", "there")
    assert done.code == 0
    folder = tmp_path / "there" / "results" / "Dataset001_Toy" / "first"
    assert f"-m {folder.relative_to(tmp_path)}" in done.out
    ours, theirs = (json.loads(typed("model", "verify", one, "--json").out)["sha256"] for one in (model, folder))
    assert ours == theirs and list(ours) == ["fold_0", "fold_1"]
    again = typed("model", "import", "first.zip", "--root", "there")
    assert again.code == 2 and "Choose another --name" in again.error


def test_list_names_what_is_damaged_too(model, typed, tmp_path):
    assert typed("model", "list", "--root", "elsewhere").out.startswith("elsewhere/results: no trained model.")
    bad = write_model(model.parent / "second")
    (bad / "dataset.json").unlink()
    first, second = typed("model", "list", "--root", "here").out.splitlines()
    assert first == "here/results/Dataset001_Toy/first: tiny, 1 x 1 x 1 mm, folds 0, 1"
    assert second.startswith("here/results/Dataset001_Toy/second: ") and "dataset.json: no description" in second


def test_a_fold_of_it(model, typed):
    done = typed("model", "export", model, "--folds", 1, "--out", "one.zip")
    assert done.code == 0 and "1 fold, " in done.out
    assert "ends in .zip" in typed("model", "export", model, "--out", "one.tar").error


def test_damage(model, typed, tmp_path):
    weights = model / "fold_1" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    done = typed("model", "verify", model)
    assert done.code == 2 and "damaged" in done.error
    typed("model", "export", model, "--out", "bad.zip")
    done = typed("model", "import", tmp_path / "bad.zip", "--root", "there")
    assert done.code == 2 and "damaged" in done.error and not (tmp_path / "there/results/Dataset001_Toy").exists()
