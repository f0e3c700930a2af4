"""The demo, shortened: every step runs, and what it points to is there."""

from __future__ import annotations

import json

from swinssl.cli.command import run_typed
from swinssl.cli.demo import demo


def test_the_whole_way(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("swinssl.cli.demo.CASES", 6)
    monkeypatch.setattr("swinssl.cli.demo.TEST_CASES", 2)
    run_typed(demo, ["--out", str(tmp_path), "--minutes", "0.3"])
    said = capsys.readouterr().out
    for command in ("check", "plan_and_preprocess", "pretrain_smit", "train", "predict", "evaluate"):
        assert f"$ swinssl_{command} " in said
    assert "The demo took" in said and "swinssl_plan_and_preprocess DATASET" in said
    summary = json.loads((tmp_path / "predictions" / "summary.json").read_text())
    assert len(summary["metric_per_case"]) == 2 and "liver" in json.dumps(summary["swinssl"])
    fold, pretraining = tmp_path / "results" / "Dataset999_Phantom" / "demo" / "fold_0", "results/pretraining/demo"
    assert "0 missing, 0 unexpected" in json.loads((fold / "run.json").read_text())["init_report"]
    for picture in ("predictions/overlays.png", f"{pretraining}/learnt.png", fold / "progress.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")

    run_typed(demo, ["--out", str(tmp_path), "--minutes", "0.3"])  # goes on where it was: nothing is left to do
    assert "0 preprocessed, 6 current" in capsys.readouterr().out
