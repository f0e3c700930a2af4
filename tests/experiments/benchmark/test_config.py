"""A benchmark's TOML file: what it means, and what is refused with the place where it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from swinssl.core.errors import UserError
from swinssl.experiments.benchmark.cells import cells_of, chosen
from swinssl.experiments.benchmark.config import read_config

TEXT = """
seeds = [0, 1]
named = ["smit:scratch"]

[pretraining]
datasets = ["100"]
options = "--preset tiny --steps 20"

[inits.scratch]
[inits.smit]
method = "smit"
options = ["--mask-cell", "8"]
[inits.half]
method = "simmim"
cases = 50
per_seed = true
[inits.nnunet]

[tasks.organs]
dataset = "101"
test = 20
shots = [5, "all"]
train = "--steps 30 --note 'two words'"
"""


def read(tmp_path, text=TEXT):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return read_config(path)


def test_it_is_named_after_its_file_and_options_are_split_as_a_shell_does(tmp_path):
    config = read(tmp_path)
    assert config.name == "mine"
    assert config.tasks["organs"].train == ("--steps", "30", "--note", "two words")
    assert config.inits["smit"].options == ("--mask-cell", "8")
    assert config.inits["scratch"].start == "scratch" and config.inits["nnunet"].is_peer
    assert config.datasets_of(config.inits["smit"]) == ("100",)
    assert config.planned_for == "smit"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('method = "smit"', 'method = "smitt"', "smitt"),
        ('method = "smit"', 'method = "smit"\nencoder = "a.safetensors"', "encoder and method"),
        ("[inits.nnunet]", "[inits.nothing]", "has none"),
        ('named = ["smit:scratch"]', 'named = ["smit:scratchh"]', "scratchh"),
        ("test = 20\n", "", "test_dataset"),
        ("test = 20", "test = 20\nsteps = 3", "steps"),
        ("seeds = [0, 1]", "seeds = [1, 1]", "each once"),
        ("[inits.half]", "[inits.'../half']", "cannot be used"),
        ('datasets = ["100"]\n', "", "nothing to pretrain on"),
        ("[pretraining]", "[pretraining", "TOML"),
        ("seeds = [0, 1]", "seeds = " + "[" * 5000, "TOML"),
        ("seeds = [0, 1]", "seeds = [true, 1]", "seeds"),
        ("seeds = [0, 1]", "seeds = [-1]", "seeds"),
        ("seeds = [0, 1]", f"seeds = {list(range(100_000))}", "800,000 trainings"),
        ('shots = [5, "all"]', "shots = [0]", "shots"),
        ('shots = [5, "all"]', "shots = [3, 3]", "shots"),
        ('shots = [5, "all"]', "shots = []", "shots"),
        ('shots = [5, "all"]', "shots = [true]", "shots"),
        ("test = 20", "test = true", "test"),
        ("test = 20", 'test = 20\npredict = "-o ../elsewhere"', "tasks.organs.predict: -o is set by the benchmark"),
        ("test = 20", 'test = 20\npredict = "--output=elsewhere"', "--output is set"),
        ("test = 20", 'test = 20\npredict = "-oelsewhere"', "-o is set"),
        ("--mask-cell", "--out", "inits.smit.options: --out is set"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, old, new, said):
    assert old in TEXT
    with pytest.raises(UserError, match=r"mine\.toml") as error:
        read(tmp_path, TEXT.replace(old, new))
    assert said in str(error.value)


def test_every_init_has_a_cell_for_every_task_shots_and_seed(tmp_path):
    cells = cells_of(read(tmp_path))
    keys = [cell.key for cell in cells]
    assert len(set(keys)) == len(keys) == 1 + 2 + 4 * 2 * 2 + 2 * 2
    assert [key for key in keys if key.startswith("cka/")] == [
        f"cka/organs/{init}/{shots}/seed0" for shots in ("5shots", "all") for init in ("smit", "half")
    ]
    assert {"pretraining/smit", "pretraining/half/seed1", "cells/organs/nnunet/all/seed0"} <= {*keys}
    for cell in cells:
        assert all(keys.index(need) < keys.index(cell.key) for need in cell.needs)


def test_a_cell_needs_its_encoder_the_planned_one_and_a_peer_the_minutes_of_scratch(tmp_path):
    needs = {cell.key: set(cell.needs) for cell in cells_of(read(tmp_path))}
    assert needs["cells/organs/scratch/5shots/seed1"] == {"pretraining/smit"}
    assert needs["cells/organs/half/5shots/seed1"] == {"pretraining/smit", "pretraining/half/seed1"}
    assert needs["cells/organs/nnunet/5shots/seed1"] == {"pretraining/smit", "cells/organs/scratch/5shots/seed1"}


def test_a_peer_without_scratch_is_refused(tmp_path):
    config = read(tmp_path, TEXT.replace("[inits.scratch]\n", "").replace('named = ["smit:scratch"]\n', ""))
    with pytest.raises(UserError, match="scratch"):
        cells_of(config)


def test_a_part_of_the_cells_brings_what_it_needs(tmp_path):
    cells = cells_of(read(tmp_path))
    keys = [cell.key for cell in chosen(cells, ["cells/organs/nnunet/5shots/seed1"])]
    assert keys == ["pretraining/smit", "cells/organs/scratch/5shots/seed1", "cells/organs/nnunet/5shots/seed1"]
    assert {cell.seed for cell in chosen(cells, ["seed1"])} == {1, None}
    assert chosen(cells, []) == cells
    with pytest.raises(UserError, match="seed7"):
        chosen(cells, ["seed7"])


@pytest.mark.parametrize("path", ["configs/paper/paper.toml", "benchmarks/studies/miniature/study.toml"])
def test_the_configurations_that_come_with_swinssl_can_be_read(path):
    config = read_config(Path(__file__).parents[3] / path)
    assert len(cells_of(config)) >= len(config.seeds) * len(config.inits) * len(config.tasks)
