"""The cells of a benchmark: what is pretrained, what is trained from it and what became of the encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from swinssl.core.errors import UserError
from swinssl.experiments.benchmark.config import SCRATCH, BenchmarkConfig


@dataclass(frozen=True)
class PretrainingCell:
    """One pretraining; `seed` is None where one serves all seeds."""

    init: str
    seed: int | None = None

    @property
    def key(self) -> str:
        """Its name, and its place beneath the benchmark's folder."""
        return f"pretraining/{self.init}" + ("" if self.seed is None else f"/seed{self.seed}")

    @property
    def needs(self) -> tuple[str, ...]:
        return ()


@dataclass(frozen=True)
class TrainingCell:
    """One fine-tuning, its prediction of the test cases, and their evaluation.

    Args:
        shots: training cases, or `all`.
        needs: cells that are done before: the pretraining of its encoder and of the one that the task is planned for,
            and the cell that says how many minutes a peer has.
    """

    task: str
    init: str
    shots: int | str
    seed: int
    needs: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Its name, and its place beneath the benchmark's folder."""
        return f"cells/{self.task}/{self.init}/{self.run}"

    @property
    def run(self) -> str:
        shots = self.shots if isinstance(self.shots, str) else f"{self.shots}shots"
        return f"{shots}/seed{self.seed}"


@dataclass(frozen=True)
class ComparisonCell:
    """The encoder that a fine-tuning started from against the one that it ended with.

    Args:
        trained: that fine-tuning.
    """

    trained: TrainingCell

    @property
    def key(self) -> str:
        """Its name, and its place beneath the benchmark's folder."""
        return f"cka/{self.trained.task}/{self.trained.init}/{self.trained.run}"

    @property
    def init(self) -> str:
        return self.trained.init

    @property
    def seed(self) -> int:
        return self.trained.seed

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.trained.key,)


Cell = PretrainingCell | TrainingCell | ComparisonCell


def cells_of(config: BenchmarkConfig) -> tuple[Cell, ...]:
    """All cells, seed by seed, so that each seed completes the tables, and a cell after those that it needs.

    Raises:
        UserError: a peer has no scratch whose minutes it could be given.
    """
    cells: list[Cell] = []
    pretrained = {name: init for name, init in config.inits.items() if init.method is not None}
    cells += [PretrainingCell(name) for name, init in pretrained.items() if not init.per_seed]
    planned_for = config.planned_for
    first = [] if planned_for not in pretrained else [pretraining_of(config, planned_for, config.seeds[0]).key]
    scratch = next((name for name, init in config.inits.items() if init.start == SCRATCH), None)
    for seed in config.seeds:
        cells += [pretraining_of(config, name, seed) for name, init in pretrained.items() if init.per_seed]
        for task, options in config.tasks.items():
            for shots in options.shots:
                own: list[TrainingCell] = []
                for name, init in sorted(config.inits.items(), key=lambda item: item[1].is_peer):
                    needs = list(first)
                    if init.method is not None:
                        needs.append(pretraining_of(config, name, seed).key)
                    elif init.is_peer:
                        if scratch is None:
                            raise UserError(f"inits.{name}: has the minutes of scratch, which is no init. Add it.")
                        needs.append(TrainingCell(task, scratch, shots, seed).key)
                    own.append(TrainingCell(task, name, shots, seed, tuple(dict.fromkeys(needs))))
                cells += own
    trained = [cell for cell in cells if isinstance(cell, TrainingCell) and config.inits[cell.init].has_encoder]
    if config.cka is not False:  # one seed shows it
        cells += [ComparisonCell(cell) for cell in trained if cell.seed == config.seeds[0]]
    return tuple(cells)


def pretraining_of(config: BenchmarkConfig, init: str, seed: int) -> PretrainingCell:
    """The pretraining of an init's encoder for a seed."""
    return PretrainingCell(init, seed if config.inits[init].per_seed else None)


def chosen(cells: Sequence[Cell], patterns: Sequence[str]) -> tuple[Cell, ...]:
    """The cells whose name fits one of the patterns (`cells/organs/*/5shots/*`), with what they need; all without any.

    Raises:
        UserError: a pattern fits none.
    """
    if not patterns:
        return tuple(cells)
    names = [cell.key for cell in cells]
    for pattern in patterns:
        if not any(_fits(name, pattern) for name in names):
            raise UserError(f"--only {pattern}: fits no cell. Cells are named like {names[-1]}; --dry-run lists them.")
    wanted = {cell.key for cell in cells if any(_fits(cell.key, pattern) for pattern in patterns)}
    for cell in reversed(cells):  # a cell stands after those that it needs
        if cell.key in wanted:
            wanted.update(cell.needs)
    return tuple(cell for cell in cells if cell.key in wanted)


def _fits(name: str, pattern: str) -> bool:
    """A pattern without wildcards is a part of the name's path: an init, a task, `seed0`."""
    return fnmatchcase(name, pattern) or (not set("*?[") & set(pattern) and f"/{pattern}/" in f"/{name}/")
