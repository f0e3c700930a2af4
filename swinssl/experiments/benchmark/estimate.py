"""How long the cells of a benchmark will take: as like ones took, else as the plan expects; else nobody knows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from statistics import median

from swinssl.experiments.benchmark.cells import Cell, ComparisonCell, PretrainingCell, TrainingCell
from swinssl.experiments.benchmark.study import Benchmark
from swinssl.preprocessing.plans import Plans


def minutes_of(
    benchmark: Benchmark, cell: Cell, plans_of: Callable[[str], Plans | None] = lambda _: None
) -> float | None:
    """What a cell will take, without prediction and evaluation; None where nothing says it.

    Args:
        plans_of: by a task's name, its plans: made or as they would be made.
    """
    like = [record["minutes"] for own in benchmark.cells if _alike(own, cell) and (record := benchmark.record(own))]
    if like:
        return float(median(like))
    if isinstance(cell, ComparisonCell):
        return None
    if isinstance(cell, PretrainingCell):
        options = (*benchmark.config.pretraining.options, *benchmark.config.inits[cell.init].options)
        return _option(options, "--max-minutes")
    init = benchmark.config.inits[cell.init]
    if init.is_peer:  # as long as training from scratch
        return minutes_of(benchmark, next(own for own in benchmark.cells if own.key == cell.needs[-1]), plans_of)
    options = (*benchmark.config.tasks[cell.task].train, *init.train)
    limit = _option(options, "--max-minutes")
    plans = None if limit is not None else plans_of(cell.task)
    if plans is None or plans.cost.hours is None:
        return limit
    planned = plans.training.epochs * plans.training.steps_per_epoch
    steps = _option(options, "--steps") or planned
    return plans.cost.hours * 60 * steps / planned


def _alike(one: Cell, other: Cell) -> bool:
    if isinstance(one, TrainingCell) and isinstance(other, TrainingCell):
        return (one.task, one.init, one.shots) == (other.task, other.init, other.shots)
    if isinstance(one, ComparisonCell) and isinstance(other, ComparisonCell):
        return one.trained.task == other.trained.task
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
