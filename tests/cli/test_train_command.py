"""swinssl_train as it is typed: what it would do, in words and as JSON."""

from __future__ import annotations

import json

import pytest
from toy_dataset import NAME, make_preprocessed

from swinssl.cli.command import run_typed
from swinssl.cli.train import train


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    make_preprocessed(root)
    return root


def test_a_rehearsal_says_what_would_be_done_and_writes_nothing(root, capsys):
    arguments = ["1", "--root", str(root), "--steps", "7", "--max-minutes", "3", "--dice", "linear", "--dry-run"]
    run_typed(train, arguments)
    said = capsys.readouterr().out
    assert "would train 7 steps, at most 3 minutes" in said
    run_typed(train, [*arguments, "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["steps"] == 7 and report["plans"]["training"]["dice"] == "linear"
    assert report["folder"] in said and NAME in report["folder"]
    assert not (root / "results").exists()
