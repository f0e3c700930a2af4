"""swinssl_train as it is typed: what it would do and what it did, in words and as JSON."""

from __future__ import annotations

import json

import pytest
from support.toy_dataset import NAME, make_preprocessed

from swinssl.cli.command import run_typed
from swinssl.cli.train import train
from swinssl.core.errors import UserError


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


class TestLoss:
    def test_a_dry_run_names_it(self, root, capsys):
        arguments = ["1", "--root", str(root), "--steps", "2", "--loss", "dice_focal", "--dry-run"]
        run_typed(train, arguments)
        words = "loss      dice_focal: soft Dice + focal loss, over exclusive labels, -log(index)"
        assert words in capsys.readouterr().out
        run_typed(train, [*arguments, "--json"])
        assert json.loads(capsys.readouterr().out)["loss"] == "dice_focal"

    def test_one_that_does_not_exist_is_refused_with_those_that_do(self, root):
        with pytest.raises(UserError, match="'dice' is not one of 'dice_ce', 'dice_focal'"):
            run_typed(train, ["1", "--root", str(root), "--loss", "dice", "--dry-run"])

    @pytest.mark.parametrize("name", ["ce", "generalised_dice_ce"])
    def test_a_form_of_a_term_that_it_lacks_is_refused(self, root, name):
        with pytest.raises(UserError, match=rf"--dice log: --loss {name} has no term of this form\. Leave out --dice"):
            run_typed(train, ["1", "--root", str(root), "--loss", name, "--dice", "log", "--dry-run"])

    @pytest.mark.usefixtures("one_thread")
    def test_it_is_recorded_and_a_run_resumes_with_no_other(self, root, tmp_path, capsys):
        make_preprocessed(tmp_path, cases=2)
        arguments = ["1", "--root", str(tmp_path), "--name", "m", "--device", "cpu", "--readers", "0"]
        run_typed(train, [*arguments, "--steps", "2", "--loss", "tversky_ce"])
        fold = tmp_path / "results" / NAME / "m" / "fold_0"
        assert json.loads((fold / "run.json").read_text())["config"]["loss"] == "tversky_ce"
        states = [path.read_text() for path in (fold / "checkpoints").rglob("*.json")]
        assert states and all('"loss": "tversky_ce"' in state for state in states)
        with pytest.raises(UserError, match=r"was started with --loss tversky_ce \(now dice_ce\)"):
            run_typed(train, [*arguments, "--steps", "3"])
        run_typed(train, [*arguments, "--steps", "3", "--loss", "tversky_ce"])
        assert json.loads((fold / "run.json").read_text())["steps"] == 3


class TestSeveralFolds:
    @pytest.mark.parametrize(
        ("typed_as", "folds"),
        [("0-4", "01234"), ("0,2,4", "024"), ("3, 0-1,1", "301"), ("03-04", "34")],
    )
    def test_are_numbers_and_ranges_each_once(self, root, capsys, typed_as, folds):
        run_typed(train, ["1", "--root", str(root), "--fold", typed_as, "--name", "m", "--dry-run", "--json"])
        report = json.loads(capsys.readouterr().out)
        assert report["folder"].endswith("m")
        assert report["folds"] == [f"{report['folder']}/fold_{fold}" for fold in folds]

    @pytest.mark.parametrize("typed_as", ["", "x", "4-0", "0-", "0,,1", "0,all", "-1", "0-99999", "1.5"])
    def test_that_are_none_are_refused(self, root, typed_as):
        with pytest.raises(UserError, match=r"--fold .*: expected a number from 0 on, several such as 0-4"):
            run_typed(train, ["1", "--root", str(root), f"--fold={typed_as}", "--dry-run"])

    def test_a_rehearsal_names_all_their_folders(self, root, capsys):
        run_typed(train, ["1", "--root", str(root), "--fold", "0-1", "--name", "m", "--steps", "7", "--dry-run"])
        said = capsys.readouterr().out.splitlines()[-1]
        assert said.startswith("nothing written (would train 7 steps into each of fold_0, fold_1 in ")
        assert not (root / "results").exists()

    @pytest.mark.usefixtures("one_thread")
    def test_stop_go_on_and_are_reported_together(self, tmp_path, typed):
        from swinssl.training.segmentation_task import SegmentationTask

        make_preprocessed(tmp_path, cases=2)
        model = tmp_path / "results" / NAME / "m"
        options = ("--root", tmp_path, "--name", "m", "--steps", 3, "--device", "cpu", "--readers", 0)
        arguments = ("train", "1", "--fold", "0-1", *options)
        after_step = SegmentationTask.after_step

        def stop_in_the_second(self, step, total):
            after_step(self, step, total)
            if step == 1 and (model / "fold_1").exists():
                (model / "fold_1" / "STOP").touch()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SegmentationTask, "after_step", stop_in_the_second)
            stopped = typed(*arguments)
        assert stopped.code == 130 and "stopped: saved after 2 of 3 steps" in stopped.err
        assert "Rerun the command to resume" in stopped.err and not (model / "postprocessing.json").exists()
        done = typed(*arguments)
        assert done.code == 0
        lines = done.out.splitlines()
        assert [line.split(":")[0] for line in lines[:2]] == ["fold_0", "fold_1"]
        assert any(line.split()[:2] == ["shell", "2"] for line in lines)
        assert any(line.startswith("postprocessing: ") for line in lines)
        assert f"all folds together: {model / 'cross_validation' / 'summary.json'}" in lines
        assert lines[-1] == f"next: swinssl_predict -i IMAGES -o PREDICTIONS -m {model}"

        report = json.loads(typed(*arguments, "--json").out)
        assert [run["fold"] for run in report["folds"]] == ["0", "1"] and report["model"] == str(model)
        assert report["cross_validation"] == json.loads((model / "cross_validation" / "summary.json").read_text())
        assert report["postprocessing"] == json.loads((model / "postprocessing.json").read_text())
