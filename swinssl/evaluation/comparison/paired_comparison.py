"""Two models of a score table: patients paired where both have them, or two groups of different patients.

What a difference is for other training cases is told by the draws of these (seeds): `over_draws`. The test of patients
(`p`, `effect`) is of the trainings that there are, and says nothing about others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from swinssl.evaluation.comparison.score_table import ScoreTable
from swinssl.evaluation.statistics.bootstrap import ENOUGH_DRAWS, TwoWayEstimate, two_way_bootstrap
from swinssl.evaluation.statistics.paired_tests import (
    hodges_lehmann,
    hodges_lehmann_interval,
    paired_wilcoxon,
    smallest_p,
)
from swinssl.evaluation.statistics.unpaired_tests import mann_whitney, shift, shift_interval, smallest_unpaired_p
from swinssl.metrics.registry import DICE

SIGNIFICANT = 0.05
# A difference is found four times in five where it is so many standard errors large: 1.96 + 0.84.
DETECTED = 2.8


@dataclass(frozen=True)
class Compared:
    """Scores of `first` less those of `second`; what is signed is positive where `first` has more.

    Args:
        seeds: that were averaged.
        first_values: of patients.
        second_values: of patients, the same ones in the same order if `paired`.
        by_draw: differences of pairs, a row a seed, a column a patient, NaN where one of the two has no value; empty
            where the models were tested on different patients.
    """

    first: str
    second: str
    seeds: tuple[str, ...]
    first_values: tuple[float, ...]
    second_values: tuple[float, ...]
    paired: bool = True
    by_draw: tuple[tuple[float, ...], ...] = ()

    @property
    def differences(self) -> tuple[float, ...]:
        """Of the pairs."""
        return tuple(a - b for a, b in zip(self.first_values, self.second_values, strict=True))

    @property
    def n(self) -> int:
        """Pairs, or the patients of the smaller group."""
        return min(len(self.first_values), len(self.second_values))

    @property
    def means(self) -> tuple[float, float]:
        return float(np.mean(self.first_values)), float(np.mean(self.second_values))

    @property
    def mean(self) -> float:
        """Difference of the means."""
        return float(np.mean(self.differences)) if self.paired else self.means[0] - self.means[1]

    @cached_property
    def p(self) -> float:
        """Two-sided, of Wilcoxon's signed ranks or of Mann and Whitney's test."""
        if self.paired:
            return paired_wilcoxon(self.differences)
        return mann_whitney(self.first_values, self.second_values)

    @property
    def smallest_p(self) -> float:
        """Below which no p can fall with so many patients."""
        if self.paired:
            return smallest_p(self.n)
        return smallest_unpaired_p(len(self.first_values), len(self.second_values))

    @cached_property
    def effect(self) -> float:
        """The typical difference: the Hodges-Lehmann estimate."""
        return hodges_lehmann(self.differences) if self.paired else shift(self.first_values, self.second_values)

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of `effect` from resampling patients."""
        if self.paired:
            return hodges_lehmann_interval(self.differences)
        return shift_interval(self.first_values, self.second_values)

    @cached_property
    def over_draws(self) -> TwoWayEstimate | None:
        """The difference for other draws of training cases and other patients; None for a single draw."""
        return two_way_bootstrap(np.array(self.by_draw)) if len(self.by_draw) > 1 else None

    @property
    def headline(self) -> tuple[float, tuple[float, float] | None]:
        """The difference that a reader is shown first: over draws where there are several, else the typical one."""
        if self.over_draws is not None:
            return self.over_draws.mean, self.over_draws.interval
        return self.effect, self.interval

    @property
    def is_shown(self) -> bool:
        """Whether enough draws show a difference: a single training, or few, cannot."""
        found = self.over_draws
        return found is not None and found.draws >= ENOUGH_DRAWS and found.excludes_zero

    @property
    def typical(self) -> str:
        """`effect` with its interval, in words."""
        return signed_with_interval(self.effect, self.interval)

    @property
    def detectable(self) -> float | None:
        """The smallest mean difference that patients who scatter like these show four times in five; None for one."""
        if self.n < 2:
            return None
        groups = (self.differences,) if self.paired else (self.first_values, self.second_values)
        return DETECTED * float(np.sqrt(sum(np.var(own, ddof=1) / len(own) for own in groups)))


def compare_pairs(
    table: ScoreTable, first: str, second: str, *, metric: str = DICE, structures: Sequence[str] | None = None
) -> Compared | None:
    """The patients that both models have, each averaged over the seeds that both have; None where there are none."""
    seeds = table.common_seeds(first, second)
    here, there = (
        table.unit_means(model, metric=metric, structures=structures, seeds=seeds) for model in (first, second)
    )
    both = [unit for unit in here if unit in there]
    if not both:
        return None
    first_values, second_values = (tuple(own[unit] for unit in both) for own in (here, there))
    by_draw = _by_draw(table, first, second, seeds, metric=metric, structures=structures)
    return Compared(first, second, seeds, first_values, second_values, by_draw=by_draw)


def _by_draw(
    table: ScoreTable, first: str, second: str, seeds: Sequence[str], *, metric: str, structures: Sequence[str] | None
) -> tuple[tuple[float, ...], ...]:
    """The differences of each seed, patient by patient. A draw counts with the patients that it has."""
    of_seeds: list[dict[str, float]] = []
    for seed in seeds:
        here, there = (
            table.unit_means(model, metric=metric, structures=structures, seeds=[seed]) for model in (first, second)
        )
        of_seeds.append({unit: here[unit] - there[unit] for unit in here if unit in there})
    units = sorted({unit for own in of_seeds for unit in own})
    return tuple(tuple(own.get(unit, np.nan) for unit in units) for own in of_seeds)


def compare_groups(
    table: ScoreTable, first: str, second: str, *, metric: str = DICE, structures: Sequence[str] | None = None
) -> Compared | None:
    """All patients of both, taken for different ones; each averaged over all seeds of its model."""
    here, there = (table.unit_means(model, metric=metric, structures=structures) for model in (first, second))
    if not here or not there:
        return None
    return Compared(first, second, (), tuple(here.values()), tuple(there.values()), paired=False)


def signed_with_interval(value: float, interval: tuple[float, float] | None, digits: int = 3) -> str:
    """`+0.039 [+0.026, +0.052]`."""
    ends = "" if interval is None else f" [{interval[0]:+.{digits}f}, {interval[1]:+.{digits}f}]"
    return f"{value:+.{digits}f}{ends}"
