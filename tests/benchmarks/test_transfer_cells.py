"""What a cell of transfer.py types: each init its own start, all the same length, and the numbers that come back."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import transfer_cells
from few_labels import FewLabels
from transfer_cells import run_cell
from transfer_rows import Row, add_rows
from transfer_study import Init, Study

from swinssl.core.errors import UserError
from swinssl.dataset.splits import Fold

SUMMARY = {
    "swinssl": {"structures": {"1": {"name": "shell"}, "2": {"name": "core"}}},
    "metric_per_case": [{"case": "a", "metrics": {"1": {"Dice": 0.5}, "2": {"Dice": None}}, "Dice": 0.5}],
}


@pytest.fixture
def study(tmp_path):
    options = {"all": ["--lr", "0.1"], "smit": ["--layer-decay", "0.8"]}
    cases = FewLabels(("a",), ())
    return Study(
        tmp_path / "Dataset001_Balls", tmp_path, tmp_path, "made", cases, steps=30, device="cpu", options=options
    )


@pytest.fixture
def typed(study, monkeypatch):
    """By name, the arguments of each command; what it would leave behind is made."""
    commands = {}

    def command(name, *arguments):
        commands[name] = list(map(str, arguments))
        option = dict(zip(commands[name], commands[name][1:], strict=False))
        if name == "train":
            fold = study.root / "results" / study.raw.name / option["--name"] / f"fold_{option['--fold']}"
            fold.mkdir(parents=True)
            (fold / "run.json").write_text(json.dumps({"steps": 30, "seconds": 90}))
        if name == "evaluate":
            out = study.work / option["--out"]
            out.mkdir(parents=True, exist_ok=True)
            (out / "summary.json").write_text(json.dumps(SUMMARY))

    monkeypatch.setattr(transfer_cells, "run_swinssl", command)
    monkeypatch.setattr(transfer_cells, "zeroed_encoder", lambda _: "zeroed.safetensors")
    return commands


def after(arguments, option):
    return arguments[arguments.index(option) + 1]


def test_a_cell_gives_a_row_a_test_case(study, typed):
    rows = run_cell(study, Init("scratch"), 2)
    assert rows == (Row("scratch", 2, 30, 1.5, "a", {"shell": 0.5, "core": None}, 0.5),)


def test_fold_and_seed_are_the_cells_and_no_patience_shortens_it(study, typed):
    run_cell(study, Init("scratch"), 2)
    assert (after(typed["train"], "--fold"), after(typed["train"], "--seed")) == ("2", "2")
    assert after(typed["train"], "--steps") == "30"
    assert int(after(typed["train"], "--patience")) > 30


def test_each_init_has_its_own_start(study, typed, tmp_path):
    run_cell(study, Init("scratch"), 0)
    assert after(typed["train"], "--init") == "scratch" and "--network" not in typed["train"]
    run_cell(study, Init("resenc"), 0)
    assert after(typed["train"], "--network") == "resenc" and "--init" not in typed["train"]
    run_cell(study, Init("zeroed"), 0)
    assert after(typed["train"], "--init") == "zeroed.safetensors"
    assert int(after(typed["train"], "--freeze-epochs")) > 30  # what is 0 stays 0


def test_averaged_trains_each_member_and_counts_all_their_minutes(study, typed, tmp_path):
    encoder = tmp_path / "smit.safetensors"
    encoder.write_bytes(b"weights")
    own = replace(study, cases=FewLabels(("a",), (Fold(("b", "c"), ()), Fold(("b", "d"), ()))))
    (row,) = run_cell(own, Init("averaged", encoder), 1)
    assert (row.steps, row.minutes) == (30, 3.0)
    assert after(typed["predict"], "--folds") == "4,5" and after(typed["train"], "--init") == str(encoder)


def test_options_of_all_and_of_an_init_are_handed_on(study, typed, tmp_path):
    encoder = tmp_path / "smit.safetensors"
    encoder.touch()
    run_cell(study, Init("smit", encoder), 0)
    assert after(typed["train"], "--init") == str(encoder)
    assert typed["train"][-4:] == ["--lr", "0.1", "--layer-decay", "0.8"]
    run_cell(study, Init("scratch"), 0)
    assert typed["train"][-2:] == ["--lr", "0.1"] and "--layer-decay" not in typed["train"]


def test_another_encoder_in_the_same_file_is_another_run(study, typed, tmp_path):
    encoder = tmp_path / "smit.safetensors"
    names = set()
    for content in (b"first", b"second"):
        encoder.write_bytes(content)
        run_cell(study, Init("smit", encoder), 0)
        names.add(after(typed["train"], "--name"))
    assert len(names) == 2


def test_predictions_come_from_that_fold_and_are_judged_on_the_test_labels(study, typed):
    run_cell(study, Init("scratch"), 1)
    assert after(typed["predict"], "-m").endswith("scratch_30steps") and after(typed["predict"], "--folds") == "1"
    assert after(typed["predict"], "-i") == str(study.images)
    assert after(typed["evaluate"], "-p") == after(typed["predict"], "-o")
    assert after(typed["evaluate"], "-r") == str(study.references)


def test_a_peer_waits_for_the_minutes_of_scratch(study, tmp_path):
    with pytest.raises(UserError, match="nnunet: needs --peer-python"):
        run_cell(study, Init("nnunet"), 0)
    with_peer = Study(**{**vars(study), "peer_python": tmp_path / "python"})
    add_rows(with_peer.table, [Row("scratch", 1, 30, 1.5, "a", {"shell": 0.5}, 0.5)])
    with pytest.raises(UserError, match="nnunet, seed 0: gets the minutes of scratch, which is not done"):
        run_cell(with_peer, Init("nnunet"), 0)
