"""Several models on the same test cases: every pair, on the mean of all structures, on groups and on each structure.

What was named in advance stands as it is. All other pairs on the mean over structures are one family for Holm's
correction, all other comparisons on groups and structures a second one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from swinssl.core.errors import UserError
from swinssl.core.terminal import track
from swinssl.core.text import counted, did_you_mean, listed
from swinssl.evaluation.comparison.organ_groups import groups_within
from swinssl.evaluation.comparison.paired_comparison import SIGNIFICANT, Compared, compare_groups, compare_pairs
from swinssl.evaluation.comparison.performance_gap import performance_gaps
from swinssl.evaluation.comparison.score_table import ScoreTable
from swinssl.evaluation.statistics.bootstrap import ENOUGH_DRAWS
from swinssl.evaluation.statistics.paired_tests import holm
from swinssl.evaluation.statistics.rankings import (
    CriticalDifference,
    critical_difference,
    order_probabilities,
    score_matrix,
)
from swinssl.metrics.registry import DICE, lower_is_better, metric_named

ALL = "all structures"


@dataclass(frozen=True)
class StructureGroup:
    """What is averaged: all structures, a group of them, or one."""

    name: str
    structures: tuple[str, ...]

    @property
    def is_all(self) -> bool:
        return self.name == ALL


@dataclass(frozen=True)
class PairwiseTest:
    """One comparison.

    Args:
        prespecified: chosen before the results were seen; its p is not corrected.
        corrected: p after Holm's correction; None if prespecified.
    """

    scope: StructureGroup
    compared: Compared
    prespecified: bool
    corrected: float | None = None

    @property
    def p(self) -> float:
        """What counts."""
        return self.compared.p if self.corrected is None else self.corrected


@dataclass(frozen=True)
class ModelScores:
    """A model's scores of a scope over patients.

    Args:
        values: by patient, over all seeds of the model.
        gap: to the best model, in per cent; None where less is better.
    """

    model: str
    seeds: tuple[str, ...]
    scope: StructureGroup
    values: dict[str, float]
    gap: float | None = None

    @property
    def mean(self) -> float | None:
        return float(np.mean(list(self.values.values()))) if self.values else None

    @property
    def spread(self) -> float | None:
        """Standard deviation over patients."""
        return float(np.std(list(self.values.values()), ddof=1)) if len(self.values) > 1 else None


@dataclass(frozen=True, eq=False)
class ModelComparison:
    """All of it.

    Args:
        tests: named ones first, then in the order of scopes and models.
        orders: (models, models) probability that the row is better than the column; None for different patients.
        notes: what a reader must know to believe the numbers.
    """

    metric: str
    models: tuple[str, ...]
    scopes: tuple[StructureGroup, ...]
    scores: tuple[ModelScores, ...]
    tests: tuple[PairwiseTest, ...]
    ranking: CriticalDifference | None
    orders: NDArray[np.float64] | None
    paired: bool
    notes: tuple[str, ...]

    def of_scope(self, scope: StructureGroup) -> tuple[ModelScores, ...]:
        """The models' scores there, in their order."""
        return tuple(one for one in self.scores if one.scope == scope)


def compare_models(
    table: ScoreTable,
    *,
    named: Sequence[str] = (),
    reference: str | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    metric: str = DICE,
    paired: bool = True,
) -> ModelComparison:
    """Compare the models of a table, which is of one setting.

    Args:
        named: comparisons named in advance: `A:B`, or `A:B:SCOPE` for a group or structure.
        reference: compare all models with this one only; None compares every pair.
        groups: structures by group.
        paired: the models were tested on the same patients.

    Raises:
        UserError: there are fewer than two models, a name is unknown, or the metric is no score.
    """
    if len(table.models) < 2:
        raise UserError(f"only {listed(table.models)}: nothing to compare. Give the results of two models or more.")
    if not table.structures:
        raise UserError(f"no structure that all of {listed(table.models)} have. Evaluate them on the same structures.")
    if metric not in table.metrics:
        raise UserError(
            f"--metric {metric}: no such score. {did_you_mean(metric, table.metrics)}Have {listed(table.metrics)}."
        )
    known = metric_named(metric)
    if known is not None and known.better is None:
        usable = [name for name in table.metrics if (row := metric_named(name)) is None or row.better]
        raise UserError(f"--metric {metric}: neither high nor low is better. Choose one of {listed(usable)}.")
    scopes = _scopes(table, groups_within(groups or {}, table.structures))
    chosen = [_named(one, table.models, scopes) for one in named]
    pairs = _pairs(table.models, reference, chosen)
    compare = compare_pairs if paired else compare_groups
    tests: list[PairwiseTest] = []
    for scope in scopes:
        for first, second in pairs:
            found = compare(table, first, second, metric=metric, structures=scope.structures)
            if found is not None:
                tests.append(PairwiseTest(scope, found, (first, second, scope) in chosen))
    for pairwise in track(tests, "comparing models"):
        _ = pairwise.compared.interval, pairwise.compared.over_draws  # which takes the time; it is kept
    corrected = _corrected(tests)
    place = {one: number for number, one in enumerate(chosen)}
    corrected.sort(key=lambda c: place.get((c.compared.first, c.compared.second, c.scope), len(place)))
    everything = score_matrix(table, metric=metric) if paired else None
    scores = [score for scope in scopes for score in _scores(table, scope, metric)]
    return ModelComparison(
        metric,
        table.models,
        scopes,
        tuple(scores),
        tuple(corrected),
        critical_difference(everything) if everything else None,
        order_probabilities(everything) if everything else None,
        paired,
        tuple(_notes(table, corrected, chosen, paired=paired)),
    )


def _scopes(table: ScoreTable, groups: Mapping[str, Sequence[str]]) -> tuple[StructureGroup, ...]:
    if len(table.structures) == 1:
        return (StructureGroup(ALL, table.structures),)
    singles = [StructureGroup(name, (name,)) for name in table.structures]
    return (
        StructureGroup(ALL, table.structures),
        *(StructureGroup(name, tuple(own)) for name, own in groups.items()),
        *singles,
    )


def _named(given: str, models: Sequence[str], scopes: Sequence[StructureGroup]) -> tuple[str, str, StructureGroup]:
    parts = given.split(":")
    if len(parts) not in (2, 3):
        raise UserError(f"--named {given}: expected A:B, or A:B:STRUCTURE. Write it so.")
    for model in parts[:2]:
        if model not in models:
            raise UserError(f"--named {given}: no model {model!r}. {did_you_mean(model, models)}Have {listed(models)}.")
    if parts[0] == parts[1]:
        raise UserError(f"--named {given}: a model against itself. Name two.")
    known = {scope.name: scope for scope in scopes}
    name = parts[2] if len(parts) == 3 else ALL
    if name not in known:
        raise UserError(f"--named {given}: no structure {name!r}. {did_you_mean(name, known)}Have {listed([*known])}.")
    return parts[0], parts[1], known[name]


def _pairs(
    models: Sequence[str], reference: str | None, chosen: Sequence[tuple[str, str, StructureGroup]]
) -> list[tuple[str, str]]:
    """First less second; what was named comes as it was named."""
    if reference is not None and reference not in models:
        raise UserError(
            f"--against {reference}: no such model. {did_you_mean(reference, models)}Have {listed(models)}."
        )
    told = dict.fromkeys((first, second) for first, second, _ in chosen)
    # Unless something else is said, what came first is what the others are measured by.
    others = (
        [(later, earlier) for earlier, later in combinations(models, 2)]
        if reference is None
        else [(model, reference) for model in models if model != reference]
    )
    return [*told, *(pair for pair in others if pair not in told and pair[::-1] not in told)]


def _corrected(tests: Sequence[PairwiseTest]) -> list[PairwiseTest]:
    done = {id(one): one for one in tests}
    for on_all in (True, False):
        family = [one for one in tests if not one.prespecified and one.scope.is_all == on_all]
        for one, p in zip(family, holm([one.compared.p for one in family]), strict=True):
            done[id(one)] = replace(one, corrected=p)
    return list(done.values())


def _scores(table: ScoreTable, scope: StructureGroup, metric: str) -> list[ModelScores]:
    scores = [
        ModelScores(
            model, table.seeds(model), scope, table.unit_means(model, metric=metric, structures=scope.structures)
        )
        for model in table.models
    ]
    means = {one.model: one.mean for one in scores if one.mean is not None}
    if not means or lower_is_better(metric) or max(means.values()) <= 0:
        return scores
    gaps = performance_gaps(means)
    return [replace(one, gap=gaps.get(one.model)) for one in scores]


def _notes(
    table: ScoreTable, tests: Sequence[PairwiseTest], chosen: Sequence[tuple[str, str, StructureGroup]], *, paired: bool
) -> list[str]:
    notes = []
    if not chosen:
        notes.append("No comparison was named in advance: all are corrected.")
    if len(chosen) > 1:
        notes.append(f"{len(chosen)} comparisons were named in advance; each stands as if it were the only one.")
    if table.partial_structures:
        notes.append(f"Left out, since not every model has them: {listed(table.partial_structures)}.")
    done = {(one.compared.first, one.compared.second, one.scope) for one in tests}
    if lost := [f"{first} and {second}" for first, second, scope in chosen if (first, second, scope) not in done]:
        notes.append(f"Named, but without a patient and a seed in common: {listed(lost)}.")
    on_all = [one.compared for one in tests if one.scope.is_all]
    if on_all:
        few = min(on_all, key=lambda one: one.n)
        if few.smallest_p >= SIGNIFICANT:
            what = "pair" if paired else "patient"
            notes.append(
                f"Too few: with {counted(few.n, what)} ({few.first} and {few.second}) no p can fall below "
                f"{few.smallest_p:.2g}, whatever the differences."
            )
    if paired and on_all and (fewest := min(len(one.by_draw) for one in on_all)) < ENOUGH_DRAWS:
        most = max(len(one.by_draw) for one in on_all)
        draws = f"{fewest} to {most} draws" if fewest < most else "One draw" if most == 1 else f"Only {most} draws"
        notes.append(
            f"{draws} of training cases (seeds), where a headline needs {ENOUGH_DRAWS}: test cases alone cannot tell "
            "what other training cases would give."
        )
    if paired and len({table.seeds(model) for model in table.models}) > 1:
        seeds = "; ".join(f"{model} {', '.join(table.seeds(model))}" for model in table.models)
        notes.append(f"Not all models have the same seeds; differences are over those that both have: {seeds}.")
    if paired and len({len(own) for own in _units(table)}) > 1:
        notes.append("Not all models have the same patients; differences are over those that both have.")
    return notes


def _units(table: ScoreTable) -> list[set[str]]:
    return [set(table.unit_means(model)) for model in table.models]
