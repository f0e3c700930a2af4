"""The demo, shortened: every step runs, what it points to is there, and a bad result is called one."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest

from swinssl.cli import demo as module
from swinssl.cli.command import run_typed
from swinssl.cli.demo import EXPECTED, Expected, Judged, _verdict, demo
from swinssl.core.errors import UserError
from swinssl.dataset.phantom.dataset import write_phantom_dataset

STEPS = 4


def judged(**values):
    """The expected figures, each met but for those named by the start of their name."""
    found = []
    for expected in EXPECTED:
        met = expected.high if expected.better == "higher" else expected.low
        value = next((v for start, v in values.items() if expected.name.startswith(start)), met)
        found.append(Judged(expected, value))
    return found


@pytest.fixture(scope="module")
def shortened():
    """Two pretraining steps, and a handful of training steps that count as the whole training."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"CASES": 6, "TEST_CASES": 2, "PRETRAINING_STEPS": 2, "TRAINING_STEPS": STEPS}.items():
            patch.setattr(module, name, value)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("demo")


def arguments(folder, *more):
    return ["--out", str(folder), "--steps", str(STEPS), "--device", "cpu", *more]


@pytest.mark.slow
@pytest.mark.usefixtures("shortened")
class TestTheWholeWay:
    def test_every_command_runs_and_a_bad_result_is_called_one(self, folder, capsys):
        with pytest.raises(
            UserError, match=r"not as expected: organs, mean Dice 0\.\d\d, expected 0\..*swinssl_doctor"
        ):
            run_typed(demo, arguments(folder))
        said = capsys.readouterr().out
        for command in ("check", "plan_and_preprocess", "pretrain_smit", "train", "predict", "evaluate"):
            assert f"$ swinssl_{command} " in said
        assert "The demo took" in said and "Result: not as expected" in said and "next: put your data" not in said
        named = [line.split()[0] for line in said[said.index("Result:") :].splitlines() if line.startswith("  /")]
        assert len(named) == 3 and all(module.Path(path).exists() for path in named)
        summary = json.loads((folder / "predictions" / "summary.json").read_text())
        assert len(summary["metric_per_case"]) == 2 and "liver" in json.dumps(summary["swinssl"])
        run = json.loads((folder / "results" / "Dataset999_Phantom" / "demo" / "fold_0" / "run.json").read_text())
        assert run["steps"] == STEPS and "0 missing, 0 unexpected" in run["init_report"]

    def test_the_page_has_results_cases_plan_training_and_commands(self, folder):
        page = (folder / "demo.html").read_text()
        headings = re.findall(r'<h2 id="section\d">(.*?)</h2>', page)
        assert headings == ["Result", "Test cases", "The plan", "Training", "What was typed", "What to type next"]
        assert "Result: not as expected" in page and "swinssl_train 999 --root" in page and "<svg" in page
        assert {"phantom_006", "phantom_007"} <= set(re.findall(r'data-case="\w+"[^>]*>(.*?)<', page))

    def test_a_second_run_repeats_nothing_and_a_good_result_says_what_to_type_next(self, folder, capsys, monkeypatch):
        easy = [Expected(one.name, 0.0, math.inf, better=one.better) for one in EXPECTED]
        monkeypatch.setattr(module, "EXPECTED", easy)
        run_typed(demo, arguments(folder))
        said = capsys.readouterr().out
        assert "Making" not in said and said.count("0 preprocessed, 6 current") == 2
        assert "Result: as expected." in said
        assert said.splitlines()[-3:] == [f"  {line}" for line in module._next_commands()]
        assert "Result: as expected." in (folder / "demo.html").read_text()


def test_other_settings_need_another_folder(tmp_path, monkeypatch):
    class Stopped(Exception):
        pass

    def stopped(*_, **__):
        raise Stopped

    monkeypatch.setattr(module, "_make_phantoms", stopped)
    with pytest.raises(Stopped):
        run_typed(demo, arguments(tmp_path))
    with pytest.raises(UserError, match=r"other settings \(seed 0, .* choose another --out"):
        run_typed(demo, arguments(tmp_path, "--seed", "1"))


class TestVerdict:
    def test_all_in_range(self):
        assert _verdict(judged(), shuffle_labels=False) == "as expected."

    def test_better_than_ever_is_as_expected(self):
        assert _verdict(judged(liver=0.999), shuffle_labels=False) == "as expected."

    def test_names_each_figure_that_is_worse(self):
        said = _verdict(judged(spleen=0.0, false=18.5), shuffle_labels=False)
        assert said.startswith("not as expected: spleen, Dice 0.00, expected ")
        assert "false tumours per case 18.50, expected 0 to 2" in said and "liver" not in said

    def test_what_could_not_be_measured_is_not_as_expected(self):
        assert _verdict(judged(kidney_left=math.nan), shuffle_labels=False).startswith("not as expected: kidney_left")

    def test_shuffled_labels_are_named_as_the_reason(self):
        said = _verdict(judged(liver=0.1), shuffle_labels=True)
        assert "labels were shuffled" in said and "swinssl_doctor" not in said

    def test_other_steps_are_not_judged(self):
        assert _verdict([], shuffle_labels=False).startswith("not judged")

    def test_ranges_hold_what_is_promised(self):
        by_name = {one.name: one for one in EXPECTED}
        assert by_name["organs, mean Dice"].low >= 0.8
        assert by_name["tumours found, share"].low == 1.0
        assert by_name["false tumours per case"].high <= 2.0
        assert all(isinstance(one, Expected) and one.low <= one.high for one in EXPECTED)


def test_shuffled_labels_exchange_structures_of_training_cases_alone(tmp_path):
    import nibabel

    for name, shuffled in (("plain", False), ("shuffled", True)):
        write_phantom_dataset(tmp_path / name, cases=2, test_cases=1, seed=3, shuffle_labels=shuffled)

    def label(name, part, index):
        return np.asarray(nibabel.load(tmp_path / name / f"labels{part}" / f"phantom_{index:03d}.nii.gz").dataobj)

    mappings = []
    for index in (0, 1):
        plain, shuffled = label("plain", "Tr", index), label("shuffled", "Tr", index)
        mappings.append(tuple(int(np.unique(shuffled[plain == value]).item()) for value in range(6)))
        assert mappings[-1][0] == 0 and sorted(mappings[-1]) == list(range(6))
    assert mappings[0] != mappings[1]
    np.testing.assert_array_equal(label("plain", "Ts", 2), label("shuffled", "Ts", 2))
