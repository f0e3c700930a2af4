"""Odd places and odd machines: paths with spaces and accents, other locales, clocks that jump, folders to read only."""

from __future__ import annotations

import contextlib
import itertools
import json
import locale
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.raw_folders import make_raw
from support.whole_way import STEPS

from swinssl.training.engine.checkpoint import load_checkpoint


def test_the_whole_way_in_a_folder_with_spaces_and_accents(tmp_path, typed):
    root = tmp_path / "Ordner mit Ö, 心臓 & 'quotes' %s {x}"
    make_raw(root / "raw" / "Dataset007_Toy")
    for step, arguments in STEPS.items():
        assert typed(step, *arguments(root)).code == 0, step
    assert len(list((root / "Ausgabe für Ärzte").glob("*.nii.gz"))) == 3
    assert json.loads((root / "Bericht" / "summary.json").read_text(encoding="utf-8"))["metric_per_case"]


def decimal_comma() -> str | None:
    """A locale of this machine that writes 1,5; None if there is none."""
    before = locale.setlocale(locale.LC_NUMERIC)
    try:
        for name in ("de_DE.UTF-8", "fr_FR.UTF-8", "de_DE", "nl_NL.UTF-8", "es_ES.UTF-8"):
            with contextlib.suppress(locale.Error):
                locale.setlocale(locale.LC_NUMERIC, name)
                return name
    finally:
        locale.setlocale(locale.LC_NUMERIC, before)
    return None


class TestLocale:
    @pytest.mark.parametrize("options", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}])
    def test_of_the_machine_without_any(self, tmp_path, options):
        root = tmp_path / "Ordner für Ärzte"
        make_raw(root / "raw" / "Dataset007_Toy", labels={"background": 0, "Leber": 1, "Geschwür": 2})
        said = [run(step, STEPS[step](root), options) for step in ("check", "plan", "preprocess")]
        assert "3 preprocessed" in said[-1]
        plans = json.loads((root / "preprocessed" / "Dataset007_Toy" / "swinsslPlans.json").read_bytes())
        assert "Geschwür" in json.dumps(plans, ensure_ascii=False)

    def test_with_a_decimal_comma_numbers_stay_what_they_are(self, tmp_path):
        name = decimal_comma()
        if name is None:
            pytest.skip("no such locale here")
        make_raw(tmp_path / "raw" / "Dataset007_Toy")
        code = f"import locale; locale.setlocale(locale.LC_ALL, {name!r}); "
        run("plan", (*STEPS["plan"](tmp_path), "--spacing", 1.5, 1.5, 1.5), {}, before=code)
        run("preprocess", STEPS["preprocess"](tmp_path), {}, before=code)
        plans = json.loads((tmp_path / "preprocessed" / "Dataset007_Toy" / "swinsslPlans.json").read_text())
        assert plans["spacing"] == [1.5, 1.5, 1.5]


def run(step: str, arguments: tuple, environment: dict[str, str], *, before: str = "") -> str:
    """A command in a process of its own, which must succeed; what it said."""
    code = f"{before}from swinssl.cli.{step} import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], env={**os.environ, **environment}, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.decode(errors="replace")


def test_a_clock_that_jumps_back_prints_no_nonsense(tmp_path, typed, monkeypatch):
    make_raw(tmp_path / "raw" / "Dataset007_Toy")
    for step in ("plan", "preprocess"):
        assert typed(step, *STEPS[step](tmp_path)).code == 0
    # Every reading of the wall clock is an hour before the last one; the monotonic clock stays what it is.
    hours = itertools.count()
    real = time.time()
    monkeypatch.setattr(time, "time", lambda: real - 3600 * next(hours))
    for step in ("train", "predict", "evaluate"):
        done = typed(step, *STEPS[step](tmp_path))
        assert done.code == 0 and not re.search(r"-\d+(\.\d+)?\s*(s|min|h)\b", done.out + done.err), done
    run_file = json.loads((tmp_path / "results" / "Dataset007_Toy" / "toy" / "fold_0" / "run.json").read_text())
    assert run_file["seconds"] >= 0


@pytest.mark.slow
def test_a_monotonic_clock_that_began_anew_after_a_restart_of_the_machine_does_not_disturb_a_resumed_run(
    tmp_path, typed, monkeypatch
):
    make_raw(tmp_path / "raw" / "Dataset007_Toy")
    for step in ("plan", "preprocess", "train"):
        assert typed(step, *STEPS[step](tmp_path)).code == 0
    real = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() - 1e9)
    longer = list(STEPS["train"](tmp_path))
    longer[longer.index("--steps") + 1] = 2
    assert typed("train", *longer).code == 0
    fold = tmp_path / "results" / "Dataset007_Toy" / "toy" / "fold_0"
    assert load_checkpoint(fold / "checkpoints").step == 2
    assert 0 <= json.loads((fold / "run.json").read_text())["seconds"] < 600


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permissions do not bind the superuser")
def test_a_folder_to_read_only_is_named(tmp_path, typed):
    make_raw(tmp_path / "raw" / "Dataset007_Toy")
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    done = typed("plan", tmp_path / "raw" / "Dataset007_Toy", "--root", locked, "--device", "cpu", "--workers", 0)
    assert done.code == 2 and str(locked) in done.error and "permission" in done.error.lower()


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_is_passed_over_and_the_run_ends_the_same(tmp_path, typed, caplog):
    make_raw(tmp_path / "raw" / "Dataset007_Toy")
    for step in ("plan", "preprocess", "train"):
        assert typed(step, *STEPS[step](tmp_path)).code == 0
    longer = list(STEPS["train"](tmp_path))
    longer[longer.index("--steps") + 1] = 2
    assert typed("train", *longer).code == 0
    newest = tmp_path / "results" / "Dataset007_Toy" / "toy" / "fold_0" / "checkpoints" / "step_000000002"
    weights = (newest / "weights.safetensors").read_bytes()
    spoil(newest / "state.pt")
    assert typed("train", *longer).code == 0
    assert f"{newest}: damaged" in caplog.text and "resuming after step 1 of 2" in caplog.text
    assert (newest / "weights.safetensors").read_bytes() == weights


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
