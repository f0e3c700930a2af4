"""How long the cells of a benchmark will take: as like ones took, else as the plan expects; else nobody knows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from statistics import median

from swinssl.experiments.benchmark import Benchmark
from swinssl.experiments.cells import Cell, PretrainingCell, TrainingCell
from swinssl.preprocessing.plans import PLANS_FILE


def minutes_of(benchmark: Benchmark, cell: Cell) -> float | None:
    """What a cell will take, without prediction and evaluation."""
    like = [record["minutes"] for own in benchmark.cells if _alike(own, cell) and (record := benchmark.record(own))]
    if like:
        return float(median(like))
    if isinstance(cell, PretrainingCell):
        options = (*benchmark.config.pretraining.options, *benchmark.config.inits[cell.init].options)
        return _option(options, "--max-minutes")
    workspace = benchmark.tasks[cell.task]
    options = (*workspace.task.train, *benchmark.config.inits[cell.init].train)
    limit = _option(options, "--max-minutes")
    if limit is not None or not (workspace.preprocessed / PLANS_FILE).is_file():
        return limit
    cost, steps = workspace.plans.cost, _option(options, "--steps")
    if steps is None or cost.device != "cpu":
        return None if cost.hours is None else cost.hours * 60
    return steps * cost.step_seconds_cpu / 60


def _alike(one: Cell, other: Cell) -> bool:
    if isinstance(one, TrainingCell) and isinstance(other, TrainingCell):
        return (one.task, one.init, one.shots) == (other.task, other.init, other.shots)
    return one.init == other.init and type(one) is type(other)


def _option(options: Sequence[str], name: str) -> float | None:
    """The number that follows an option, the last time that it is given."""
    found = None
    for here, after in itertools.pairwise(options):
        if here == name:
            try:
                found = float(after)
            except ValueError:
                return None
    return found
