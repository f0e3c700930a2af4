"""The committed studies: their tables are whole, belong to their TOML files, and say what the README says."""

from __future__ import annotations

import tomllib
from collections import Counter
from pathlib import Path

import pytest
from pool import STUDIES, make_text, pooled_scores

from swinssl.core.workspace import Workspace
from swinssl.experiments.benchmark.cells import TrainingCell
from swinssl.experiments.benchmark.config import read_config
from swinssl.experiments.benchmark.study import Benchmark
from swinssl.preprocessing.plans import Plans

# Finished trainings in the tables, and those of them that the TOML file has.
CELLS = {
    "organs_few_labels": (18, 18),
    "tumour_few_labels": (12, 12),
    "fine_tuning_options": (12, 11),  # averaged models are not made by swinssl_benchmark
    "miniature": (28, 28),
    "miniature_tasks": (12, 12),
    "miniature_small": (2, 2),
}
MODELS = ("smit", "simmim", "rotation")


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch):
    monkeypatch.chdir(STUDIES.parents[1])  # encoders are named from there


def test_every_study_has_its_folder():
    assert {path.parent.name for path in STUDIES.glob("*/study.toml")} == set(CELLS)


@pytest.mark.parametrize("name", CELLS)
def test_tables_belong_to_their_study(name, tmp_path):
    folder = STUDIES / name
    study = Benchmark(read_config(folder / "study.toml"), tmp_path, Workspace(tmp_path), device="cpu", results=folder)
    assert study.config.name == name
    records = study.tables.records()
    done = [cell for cell in study.cells if isinstance(cell, TrainingCell) and study.is_done(cell)]
    assert (len(records), len(done)) == CELLS[name]
    for key, record in records.items():
        assert study.tables.has_scores(key, record) and record["scores"] is not None
        assert not set(record.get("train_cases", ())) & {row["case"] for row in study.tables.scores(key)}
    for task in {cell.task for cell in done}:
        assert Plans.read(study.tables.plans_path(task)).network.preset in ("tiny", "small")
    assert not list(tmp_path.iterdir())


def test_five_cases_were_drawn_anew_for_each_seed():
    study = Benchmark(
        read_config(STUDIES / "organs_few_labels" / "study.toml"),
        STUDIES,
        Workspace(STUDIES),
        results=STUDIES / "organs_few_labels",
    )
    drawn = Counter(tuple(record["train_cases"]) for record in study.tables.records().values())
    assert len(drawn) == 3 and {len(cases) for cases in drawn} == {5}


def test_the_pooled_estimate_is_that_of_the_readme():
    studies = ["organs_few_labels", "miniature"]
    text = make_text(
        pooled_scores(studies, shots="5", models=["scratch", *MODELS]),
        studies,
        shots="5",
        baseline="scratch",
        models=MODELS,
    )
    assert text == (STUDIES / studies[0] / "pooled.md").read_text()
    readme = (STUDIES.parents[1] / "README.md").read_text()
    for line in text.splitlines()[4:7]:
        _, _, interval, _, by_draw, _ = line.split("|")
        said = interval.strip().replace("[+", "(").replace("[", "(").replace(", +", " - ").replace("]", ")")
        assert f"| {said} | {by_draw.strip()} |" in readme


def test_encoders_are_in_half_precision():
    from safetensors import safe_open

    content = tomllib.loads((STUDIES / "miniature" / "study.toml").read_text())
    files = [Path(init["encoder"]) for init in content["inits"].values() if "/" in init.get("encoder", "")]
    assert len(files) == 2
    for path in files:
        assert path.stat().st_size < 2e6 and (path.parent / "run.json").is_file()
        with safe_open(path, "pt") as stream:
            assert {str(stream.get_tensor(name).dtype) for name in stream.keys()} == {"torch.float16"}  # noqa: SIM118
