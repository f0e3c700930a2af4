"""swinssl_train as it is typed: what it would do and what it did, in words and as JSON."""

from __future__ import annotations

import json

import pytest
from support.toy_dataset import NAME, make_preprocessed

from swinssl.cli.command import run_typed
from swinssl.cli.train import train
from swinssl.core.errors import UserError
from swinssl.networks.checkpoints.shipped_encoders import shipped_names
from swinssl.networks.network_plan import NetworkPlan, encoder_preset
from swinssl.preprocessing.plans import Cost, Plans


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
        with pytest.raises(
            UserError, match=r"--loss dice: unknown\. Did you mean dice_ce\? Choose one of dice_ce, dice_focal"
        ):
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


@pytest.mark.usefixtures("one_thread")
class TestLengthOfAResumedRun:
    SHORT = ("--device", "cpu", "--readers", 0, "--name", "m")

    @pytest.fixture(scope="class")
    def trained(self, tmp_path_factory):
        """Fold 0 was started with 3 steps, and ended."""
        root = tmp_path_factory.mktemp("trained")
        make_preprocessed(root, cases=2)
        run_typed(train, [str(word) for word in ("1", "--root", root, "--steps", 3, *self.SHORT)])
        return root

    def test_is_kept_and_said_where_none_is_given(self, trained, typed, caplog):
        done = typed("train", "1", "--root", trained, *self.SHORT)
        assert done.code == 0
        said = "length: --steps 3, as the run was started; give --steps, --epochs or --max-minutes to change it"
        assert said in caplog.messages and "trained and measured before" in caplog.text
        run = json.loads((trained / "results" / NAME / "m" / "fold_0" / "run.json").read_text())
        assert run["steps"] == run["planned_steps"] == run["config"]["steps"] == 3

    def test_is_that_of_the_option_where_one_is_given(self, trained, typed):
        rehearsed = ("train", "1", "--root", trained, "--dry-run", *self.SHORT)
        assert "would train 3 steps into" in typed(*rehearsed).out
        assert "would train 4 steps into" in typed(*rehearsed, "--steps", 4).out
        assert "would train 10 steps into" in typed(*rehearsed, "--epochs", 1).out
        assert "length:" not in typed(*rehearsed, "--steps", 4).out

    def test_is_the_planned_one_after_restart(self, trained, typed):
        done = typed("train", "1", "--root", trained, "--dry-run", "--restart", *self.SHORT)
        assert "would train 30 steps into" in done.out and "length:" not in done.out

    def test_goes_for_folds_of_the_same_call_too(self, trained, typed):
        done = typed("train", "1", "--root", trained, "--dry-run", "--fold", "0-1", *self.SHORT)
        assert "would train 3 steps into each of fold_0, fold_1" in done.out
        alone = typed("train", "1", "--root", trained, "--dry-run", "--fold", "1", *self.SHORT)
        assert "would train 30 steps into" in alone.out


class TestRehearsedCost:
    def rehearsed(self, root, capsys, *words):
        run_typed(train, ["1", "--root", str(root), "--dry-run", *words])
        (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("  cost"))
        return line

    def test_is_that_of_the_steps(self, tmp_path, capsys):
        cost = Cost(memory_gb=1, step_seconds_cpu=1, hours=30 / 3600)
        make_preprocessed(tmp_path, cases=2, plans_changes={"cost": cost})
        assert "1 GB, 30 s on cpu" in self.rehearsed(tmp_path, capsys)
        assert "1 GB, 7 s on cpu" in self.rehearsed(tmp_path, capsys, "--steps", "7")
        assert "1 GB, 10 s on cpu" in self.rehearsed(tmp_path, capsys, "--epochs", "1")
        assert "1 GB, 6 s on cpu" in self.rehearsed(tmp_path, capsys, "--max-minutes", "0.1")
        assert "not estimated" in self.rehearsed(tmp_path, capsys, "--decoder", "full")


def test_what_an_encoder_gave_is_said_once_for_all_folds(capsys, tmp_path):
    (encoder,) = shipped_names()
    network = NetworkPlan(preset="tiny", decoder="light", encoder=encoder_preset("tiny"))
    make_preprocessed(tmp_path, cases=4, plans_changes={"network": network})
    run_typed(train, ["1", "--root", str(tmp_path), "--fold", "0-3", "--init", encoder, "--dry-run"])
    assert capsys.readouterr().out.count("tensors matched") == 1


@pytest.mark.usefixtures("one_thread")
def test_the_command_that_comes_next_works_after_planning_anew(tmp_path, typed):
    folder = make_preprocessed(tmp_path, cases=2)
    short = ("--root", tmp_path, "--steps", 2, "--device", "cpu", "--readers", 0)

    def next_words():
        line = typed("preprocess", NAME, "--root", tmp_path, "--workers", 0).out.splitlines()[-1]
        return line.removeprefix(f"next: swinssl_train {NAME} --root {tmp_path} ").split()

    assert next_words() == ["--fold", "0"]
    assert typed("train", NAME, *short).code == 0
    assert next_words() == ["--fold", "0"]
    planned = Plans.read(folder)
    planned.model_copy(update={"patch_size": (32, 32, 64)}).write(folder / "swinsslPlans.json")
    assert typed("train", NAME, *short).code == 2
    fold, number, option, name = words = next_words()
    assert (fold, number, option) == ("--fold", "0", "--name") and name.endswith("__scratch_2")
    assert typed("train", NAME, *words, *short).code == 0
    assert next_words() == words  # which resumes it
    planned.write(folder / "swinsslPlans.json")
    assert next_words() == ["--fold", "0"]
