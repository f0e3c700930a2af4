"""What an evaluation comes to: each structure's numbers over the cases, with confidence intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swinssl.core.text import counted, listed
from swinssl.evaluation.results import Evaluation
from swinssl.evaluation.statistics.bootstrap import FEW_CASES, bootstrap_interval, mean_interval, ratio_of_sums
from swinssl.metrics.case_metrics import StructureMetrics
from swinssl.metrics.lesions import LesionCounts
from swinssl.metrics.registry import DICE, METRICS, Number, metrics_at
from swinssl.metrics.structures import Structure

Interval = tuple[float, float] | None


@dataclass(frozen=True)
class Average:
    """A number over the cases that have it.

    Args:
        n: those cases.
        mean: None without any; so are the others.
        median: of them.
        interval: 95 % interval of the mean (`bootstrap.py`).
    """

    n: int
    mean: float | None = None
    median: float | None = None
    interval: Interval = None


@dataclass(frozen=True)
class LesionReport:
    """Lesions over all cases together, with 95 % intervals from resampling the cases."""

    total: LesionCounts
    sensitivity_interval: Interval
    precision_interval: Interval
    f1_interval: Interval
    false_per_case: float


@dataclass(frozen=True)
class StructureReport:
    """One structure over all cases in which it was annotated.

    Args:
        annotated: those cases.
        both_empty: cases in which neither map has it; nothing is measured there.
        false_negative: cases in which only the reference has it: Dice 0, no distance.
        false_positive: cases in which only the prediction has it: Dice 0, no distance.
        averages: by the name of the metric.
        worst_case: the case with the lowest Dice.
        lesions: None for structures that are no lesions.
    """

    structure: Structure
    annotated: int
    both_empty: tuple[str, ...]
    false_negative: tuple[str, ...]
    false_positive: tuple[str, ...]
    averages: dict[str, Average]
    worst_case: str | None
    lesions: LesionReport | None


@dataclass(frozen=True)
class Report:
    """All structures.

    Args:
        dice: mean over structures of their mean Dice (nnU-Net's foreground mean); `n` counts the cases with a Dice,
            `median` is that of the cases' mean Dice.
    """

    structures: tuple[StructureReport, ...]
    dice: Average


def make_report(evaluation: Evaluation) -> Report:
    """Sum an evaluation up."""
    structures = tuple(_structure_report(evaluation, structure) for structure in evaluation.structures)
    return Report(structures, _foreground_dice(evaluation))


def remarks(evaluation: Evaluation, report: Report) -> list[str]:
    """What a reader must know before believing the numbers, in words."""
    lines = []
    cases = len(evaluation.cases)
    if cases < FEW_CASES:
        what = "the intervals are rough and rather too narrow" if report.dice.interval else "too few for an interval"
        lines.append(f"only {counted(cases, 'case')}: {what}; one case can change the means.")
    distances = " and ".join(metric.title for metric in METRICS if metric.unit == "mm")
    for one in report.structures:
        name, measured = one.structure.name, one.averages[DICE].n
        if one.annotated < cases:
            lines.append(f"{name}: annotated in {one.annotated} of {cases} cases; the others do not count.")
        if one.both_empty:
            lines.append(f"{name}: in neither map in {_named(one.both_empty)}: nothing to measure there.")
        others = measured - len(one.false_negative) - len(one.false_positive)
        rest = f"Dice 0 there; {distances} are over the other {others}." if others else "Dice 0 there."
        if one.false_negative:
            lines.append(f"{name}: missed in {_named(one.false_negative)}: {rest}")
        if one.false_positive:
            lines.append(f"{name}: predicted but not in the reference in {_named(one.false_positive)}: {rest}")
    return lines


def _structure_report(evaluation: Evaluation, structure: Structure) -> StructureReport:
    name = structure.name
    annotated = [(case.case_id, case.metrics[name]) for case in evaluation.cases if name in case.metrics]
    averages = {
        key: _average(metric(m) for _, m in annotated)
        for key, metric in metrics_at(evaluation.tolerances, lesions=structure.lesions).items()
    }
    dice = [(m.overlap.dice, case_id) for case_id, m in annotated if m.overlap.dice is not None]
    return StructureReport(
        structure,
        annotated=len(annotated),
        both_empty=tuple(case_id for case_id, m in annotated if m.both_empty),
        false_negative=tuple(case_id for case_id, m in annotated if m.false_negative),
        false_positive=tuple(case_id for case_id, m in annotated if m.false_positive),
        averages=averages,
        worst_case=min(dice)[1] if dice else None,
        lesions=_lesion_report(counts) if (counts := [m.lesions for _, m in annotated if m.lesions]) else None,
    )


def _average(values: Iterable[Number]) -> Average:
    """Of the numbers that are defined."""
    numbers = np.array([value for value in values if value is not None], dtype=float)
    if not len(numbers):
        return Average(0)
    return Average(len(numbers), float(numbers.mean()), float(np.median(numbers)), mean_interval(numbers))


def _foreground_dice(evaluation: Evaluation) -> Average:
    cases = evaluation.ranked
    if not cases:
        return Average(0)
    names = [structure.name for structure in evaluation.structures]
    dice = np.array([[_dice(case.metrics.get(name)) for name in names] for case in cases])
    defined = np.isfinite(dice)
    per_structure = ratio_of_sums(np.where(defined, dice, 0.0), defined.astype(float))

    def mean_of_means(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        means = per_structure(weights)
        known = np.isfinite(means)
        return np.where(known, means, 0.0).sum(axis=1) / known.sum(axis=1)

    return Average(
        len(cases),
        float(mean_of_means(np.ones((1, len(cases))))[0]),
        float(np.median([case.dice for case in cases])),
        bootstrap_interval(mean_of_means, len(cases)),
    )


def _dice(metrics: StructureMetrics | None) -> float:
    dice = None if metrics is None else metrics.overlap.dice
    return np.nan if dice is None else dice


def _lesion_report(counts: Sequence[LesionCounts]) -> LesionReport:
    reference, found, predicted, true = np.array([(c.reference, c.found, c.predicted, c.true) for c in counts]).T
    sensitivity, precision = ratio_of_sums(found, reference), ratio_of_sums(true, predicted)

    def f1(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        # As LesionCounts.f1: 0 where nothing was found.
        s, p = np.nan_to_num(sensitivity(weights)), np.nan_to_num(precision(weights))
        return np.where(s + p > 0, 2 * s * p / np.where(s + p > 0, s + p, 1), 0.0)

    n = len(counts)
    return LesionReport(
        LesionCounts(*(int(column.sum()) for column in (reference, found, predicted, true))),
        bootstrap_interval(sensitivity, n),
        bootstrap_interval(precision, n),
        bootstrap_interval(f1, n),
        float((predicted - true).mean()),
    )


def _named(case_ids: Sequence[str]) -> str:
    """`2 cases (a, b)`."""
    return f"{counted(len(case_ids), 'case')} ({listed(case_ids, most=5)})"
