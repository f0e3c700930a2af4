"""swinssl_plan as typed: what it writes and prints, what it says the second time, what it refuses."""

from __future__ import annotations

import gzip
import json
import struct

import pytest
from support.raw_folders import describe, make_raw

from swinssl.planning.explanation import explanation
from swinssl.preprocessing.plans import Plans

FILES = {"dataset.json", "dataset_fingerprint.json", "swinsslPlans.json"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the plan of data set 7 goes; three CT cases lie in the workspace's raw folder."""
    monkeypatch.setenv("SWINSSL_ROOT", str(tmp_path))
    make_raw(tmp_path / "raw" / "Dataset007_Toy")
    return tmp_path / "preprocessed" / "Dataset007_Toy"


def plan(typed, *arguments):
    return typed("plan", "7", "--device", "cpu", "--workers", "0", *arguments)


class TestReport:
    def test_says_what_was_decided_where_it_is_and_what_comes_next(self, folder, typed):
        done = plan(typed)
        assert done.code == 0
        lines = done.out.splitlines()
        assert lines[0] == "Dataset007_Toy: 3 cases measured; recipe auto"
        assert [line.split()[0] for line in lines[1:6]] == ["grid", "network", "training", "mirror", "cost"]
        assert lines[-2:] == [f"plans: {folder / 'swinsslPlans.json'}", "next: swinssl_preprocess 7"]
        assert {path.name for path in folder.iterdir()} == FILES
        plans = Plans.read(folder)
        assert plans.dataset_name == "Dataset007_Toy" and plans.spacing == (3.0, 1.0, 1.0)
        assert plans.labels.names == ("liver", "tumour")

    def test_headers_that_contradict_themselves_are_named_each_time(self, folder, typed, tmp_path):
        """As ACDC is published: right sizes in pixdim beside an sform of unit vectors."""
        for path in (tmp_path / "raw" / "Dataset007_Toy").rglob("*.nii.gz"):
            content = bytearray(gzip.decompress(path.read_bytes()))
            struct.pack_into("<12f", content, 280, 1, 0, 0, 9, 0, 1, 0, -7, 0, 0, 1, 5)
            path.write_bytes(gzip.compress(bytes(content)))
        for _ in range(2):  # measured, and known from before
            (warning,) = (line for line in plan(typed).out.splitlines() if line.startswith("warning: "))
            assert "case_0_0000.nii.gz" in warning and "1 x 1 x 1 mm" in warning and "3 x 1 x 1 mm" in warning
            assert "pixdim is used" in warning and warning.endswith("in 3 of 3 cases.")
        assert Plans.read(folder).spacing == (3.0, 1.0, 1.0)
        assert len(json.loads(plan(typed, "--json").out)["warnings"]) == 1

    def test_explain_gives_every_decision_with_its_value_and_reason(self, folder, typed):
        text = " ".join(plan(typed, "--explain").out.split())
        assert "the existing plan" not in text
        rows = explanation(Plans.read(folder))
        assert len(rows) >= 16 and all(reason for _, _, reason in rows)
        for row in rows:
            assert " ".join(row) in text, row

    def test_json_stands_alone_on_stdout(self, folder, typed):
        done = plan(typed, "--json")
        report = json.loads(done.out)
        assert done.code == 0 and report["measured"] is True and report["changed"] == []
        assert report["plans"] == json.loads((folder / "swinsslPlans.json").read_text())
        assert json.loads(plan(typed, "--json").out)["measured"] is False

    def test_dry_run_writes_nothing(self, folder, typed):
        done = plan(typed, "--dry-run")
        assert done.code == 0 and not folder.exists()
        assert done.out.splitlines()[-1] == f"nothing written (would be {folder / 'swinsslPlans.json'})"
        assert json.loads(plan(typed, "--dry-run", "--json").out)["plans"]["spacing"] == [3.0, 1.0, 1.0]
        assert not folder.exists()

    def test_the_next_command_keeps_the_root(self, folder, typed, tmp_path):
        assert plan(typed, "--root", tmp_path).out.splitlines()[-1] == f"next: swinssl_preprocess 7 --root {tmp_path}"


class TestAgain:
    def test_unchanged_data_are_not_measured_and_the_plan_stays(self, folder, typed):
        plan(typed)
        before = {name: (folder / name).read_bytes() for name in FILES}
        done = plan(typed)
        assert done.out.startswith("Dataset007_Toy: 3 cases measured before, unchanged;")
        assert "changed since the last plan" not in done.out
        after = Plans.read(folder)
        assert after.preprocessing_key == Plans.model_validate_json(before["swinsslPlans.json"]).preprocessing_key
        assert (folder / "dataset_fingerprint.json").read_bytes() == before["dataset_fingerprint.json"]

    def test_says_which_decisions_changed_and_what_that_costs(self, folder, typed):
        plan(typed)
        # Another time changes the schedule, but not what is stored; another grid changes that too.
        batch = Plans.read(folder).training.batch_size
        assert f"changed since the last plan:\n  batch: {batch} -> 3\n" in plan(typed, "--batch-size", "3").out
        coarser = plan(typed, "--batch-size", "3", "--spacing", "6", "2", "2").out
        assert "  spacing: 3 x 1 x 1 mm -> 6 x 2 x 2 mm\n" in coarser and "stale:" not in coarser

    def test_names_the_cases_and_models_that_are_stale(self, folder, typed, tmp_path):
        plan(typed)
        assert typed("preprocess", "7", "--workers", "0").code == 0
        for name in ("earlier", "other"):
            spacing = (9.0, 9.0, 9.0) if name == "other" else Plans.read(folder).spacing
            model = Plans.read(folder).model_copy(update={"spacing": spacing})
            model.write(tmp_path / "results" / "Dataset007_Toy" / name / "swinsslPlans.json")
        # Steps are no matter of a model's folds, the grid is; one model has the new grid already.
        assert "earlier" not in plan(typed, "--max-minutes", "5").out
        said = plan(typed, "--max-minutes", "5", "--spacing", "9", "9", "9").out
        assert "stale: 3 preprocessed cases; swinssl_preprocess makes them anew" in said
        assert "trained with the earlier plan: earlier. They predict as before" in said
        report = json.loads(plan(typed, "--dry-run", "--json").out)
        assert ["spacing", "9 x 9 x 9 mm", "3 x 1 x 1 mm"] in report["changes"]
        assert report["stale_cases"] == 3 and report["stale_models"] == ["other"]

    def test_changed_data_are_measured_again(self, folder, typed, tmp_path, caplog):
        plan(typed)
        describe(tmp_path / "raw" / "Dataset007_Toy", labels={"background": 0, "liver": 1, "vessel": 2})
        done = plan(typed)
        assert done.out.startswith("Dataset007_Toy: 3 cases measured;")
        assert "has changed since it was measured" in caplog.text
        assert "  structures: liver 1, tumour 2 -> liver 1, vessel 2\n" in done.out

    def test_plans_of_another_version_are_replaced(self, folder, typed):
        folder.mkdir(parents=True)
        (folder / "swinsslPlans.json").write_text('{"version": 0}')
        assert plan(typed).code == 0 and Plans.read(folder).dataset_name == "Dataset007_Toy"


class TestOptions:
    def test_stand_above_what_would_be_planned(self, folder, typed):
        flags = "--spacing 2 1.5 1.25 --patch 32 64 96 --batch-size 4 --preset tiny --decoder full --sampling organ"
        plan(typed, *flags.split(), "--intensity", "window:-100:300")
        plans = Plans.read(folder)
        assert plans.spacing == (2.0, 1.5, 1.25) and plans.patch_size == (32, 64, 96)
        assert (plans.network.preset, plans.network.decoder) == ("tiny", "full")
        assert (plans.training.batch_size, plans.training.sampling) == (4, "organ")
        assert (plans.intensity[0].low, plans.intensity[0].high) == (-100, 300)

    def test_recipe_paper_is_the_papers_protocol(self, folder, typed):
        plan(typed, "--recipe", "paper")
        plans = Plans.read(folder)
        assert (plans.recipe, plans.network.preset, plans.network.norm) == ("paper", "smit96", "batch")
        assert plans.spacing == (2.0, 1.5, 1.5) and plans.patch_size == (96, 96, 96)
        assert plans.training.batch_size == 3 and plans.training.learning_rate == 2e-4
        assert (plans.intensity[0].low, plans.intensity[0].high) == (-175, 250)

    def test_minutes_bound_the_time(self, folder, typed):
        plan(typed, "--max-minutes", "5")
        assert Plans.read(folder).cost.hours * 60 == pytest.approx(5, rel=0.05)

    @pytest.mark.parametrize(
        ("flags", "words"),
        [
            ("--patch 80 32 32", ("--patch", "multiples of 32")),
            ("--spacing 1 0 1", ("--spacing", "positive")),
            ("--preset smit69", ("smit96",)),
            ("--intensity gauss", ("window:LOW:HIGH",)),
            ("--max-minutes 0", ("--max-minutes 0", "greater than 0")),
            ("--init nowhere.safetensors", ("nowhere.safetensors: no such file",)),
            ("--device cuda:77", ("--device cuda:77: not available", "--device auto or cpu")),
        ],
    )
    def test_that_cannot_be_met_are_refused_and_nothing_is_written(self, folder, typed, flags, words):
        done = plan(typed, *flags.split())
        assert done.code == 2 and done.out == ""
        assert all(word in done.error for word in words), done.error
        assert not folder.exists()


class TestExplain:
    def test_alone_explains_the_plan_that_is_there_and_changes_nothing(self, folder, typed):
        plan(typed, "--spacing", "6", "2", "2", "--batch-size", "3")
        before = (folder / "swinsslPlans.json").read_bytes()
        done = typed("plan", "7", "--explain")
        assert done.code == 0 and done.out.startswith("Dataset007_Toy: the existing plan, unchanged; recipe auto")
        assert "6 x 2 x 2 mm" in done.out and "as asked" in done.out
        assert json.loads(typed("plan", "7", "--explain", "--json").out)["plans"]["spacing"] == [6.0, 2.0, 2.0]
        assert (folder / "swinsslPlans.json").read_bytes() == before
        # With an option it plans.
        assert "spacing: 6 x 2 x 2 mm -> 3 x 1 x 1 mm" in plan(typed, "--explain", "--batch-size", "3").out

    def test_of_the_whole_way_keeps_the_plan_and_preprocesses(self, folder, typed):
        plan(typed, "--spacing", "6", "2", "2")
        done = typed("plan_and_preprocess", "7", "--explain", "--workers", "0")
        assert "the existing plan, unchanged" in done.out and "3 preprocessed" in done.out
        assert Plans.read(folder).spacing == (6.0, 2.0, 2.0)

    def test_says_where_the_raw_data_have_changed_since(self, folder, typed, tmp_path):
        plan(typed)
        raw = tmp_path / "raw" / "Dataset007_Toy"
        describe(raw, labels={"background": 0, "liver": 1, "vessel": 2})
        assert "warning: dataset.json declares other channels or labels" in typed("plan", "7", "--explain").out

    def test_works_without_the_raw_data(self, folder, typed, tmp_path):
        plan(typed)
        (tmp_path / "raw").rename(tmp_path / "elsewhere")
        assert "the existing plan" in typed("plan", "7", "--explain").out


class TestShippedEncoder:
    NAME = "tiny_smit_headneck_ct"

    def test_is_suggested_for_its_modality_and_used_as_suggested(self, folder, typed):
        suggested = f"encoder: {self.NAME} comes with swinssl, pretrained on head-and-neck CT."
        assert suggested in typed("check", "7").out and suggested in plan(typed).out
        done = plan(typed, "--init", self.NAME)
        assert suggested not in done.out and f"  encoder: none -> {self.NAME} (" in done.out
        assert f"note: {self.NAME} learnt intensity window [-500, 500] to [0, 1] (plan: " in done.out
        plans = Plans.read(folder)
        assert plans.encoder.place == self.NAME and plans.spacing == (3.0, 3.0, 3.0)
        done = typed("preprocess", "7", "--workers", "0")
        assert done.out.splitlines()[-1] == f"next: swinssl_train 7 --fold 0 --init {self.NAME}"
        assert f"encoder: {self.NAME} ->" not in plan(typed, "--init", self.NAME).out

    def test_is_not_suggested_for_another(self, folder, typed, tmp_path):
        describe(tmp_path / "raw" / "Dataset007_Toy", channel_names={"0": "noNorm"})
        assert self.NAME not in plan(typed).out
