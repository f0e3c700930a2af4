"""Which model is best, second ... on the same patients, and how sure that order is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swinssl.core.text import counted
from swinssl.evaluation.comparison.score_table import ScoreTable
from swinssl.evaluation.statistics.bootstrap import bootstrap_interval, resamples
from swinssl.metrics.registry import DICE, lower_is_better

FEWEST_MODELS, FEWEST_PATIENTS = 3, 10
SIGNIFICANT = 0.05


@dataclass(frozen=True, eq=False)
class ScoreMatrix:
    """Several models on the patients that all of them have.

    Args:
        units: the patients.
        values: (patients, models), turned so that more is better.
    """

    models: tuple[str, ...]
    units: tuple[str, ...]
    values: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CriticalDifference:
    """Average ranks, 1 the best, and by how much two must differ (Friedman, then Nemenyi).

    Args:
        forbidden: why nothing may be concluded; None where it may.
        p: of Friedman's test that no model is better than another, in Iman and Davenport's form.
        difference: of average ranks that is significant; None where it is not permitted.
    """

    models: tuple[str, ...]
    ranks: tuple[float, ...]
    patients: int
    p: float | None
    difference: float | None
    forbidden: str | None

    @property
    def cliques(self) -> tuple[tuple[str, ...], ...]:
        """Largest runs of neighbours, best first, that cannot be told apart; none of a single model."""
        if self.difference is None:
            return ()
        order = sorted(range(len(self.models)), key=lambda i: self.ranks[i])
        runs: list[tuple[int, int]] = []
        for start, first in enumerate(order):
            stop = max(k for k, last in enumerate(order) if self.ranks[last] - self.ranks[first] <= self.difference)
            if stop > start and (not runs or stop > runs[-1][1]):
                runs.append((start, stop))
        return tuple(tuple(self.models[i] for i in order[start : stop + 1]) for start, stop in runs)


def score_matrix(table: ScoreTable, *, metric: str = DICE, structures: Sequence[str] | None = None) -> ScoreMatrix:
    """The models of a table on the patients that all have, each averaged over its common seeds if there are such."""
    seeds = table.common_seeds(*table.models) or None
    columns = [table.unit_means(model, metric=metric, structures=structures, seeds=seeds) for model in table.models]
    units = [unit for unit in columns[0] if all(unit in own for own in columns)]
    values = np.array([[own[unit] for own in columns] for unit in units]).reshape(len(units), len(columns))
    return ScoreMatrix(table.models, tuple(units), -values if lower_is_better(metric) else values)


def critical_difference(one: ScoreMatrix) -> CriticalDifference:
    """Ranks over the patients, and Nemenyi's critical difference where Friedman's test permits it.

    Source: Demsar, J. Mach. Learn. Res. 7 (2006) 1-30, section 3.2.2.
    """
    from scipy.stats import f, rankdata, studentized_range

    patients, models = one.values.shape
    ranks = rankdata(-one.values, axis=1).mean(axis=0) if patients else np.full(models, np.nan)
    forbidden, p, difference = None, None, None
    if models < FEWEST_MODELS:
        forbidden = f"{counted(models, 'model')}: two are compared by the paired test"
    elif patients < FEWEST_PATIENTS:
        forbidden = (
            f"{counted(patients, 'patient')} that all models have: under {FEWEST_PATIENTS} the test is too rough"
        )
    else:
        chi = _friedman(one.values)
        # All patients agreeing on the order would divide by zero.
        rest = patients * (models - 1) - chi
        statistic = (patients - 1) * chi / rest if rest > 0 else np.inf
        p = float(f.sf(statistic, models - 1, (models - 1) * (patients - 1)))
        if p < SIGNIFICANT:
            quantile = studentized_range.ppf(1 - SIGNIFICANT, models, np.inf) / 2**0.5
            difference = float(quantile * (models * (models + 1) / (6 * patients)) ** 0.5)
        else:
            forbidden = f"Friedman's test finds no model better than another (p {p:.2g})"
    return CriticalDifference(one.models, tuple(map(float, ranks)), patients, p, difference, forbidden)


def order_probabilities(one: ScoreMatrix, *, seed: int = 0) -> NDArray[np.float64]:
    """(models, models): in which share of resamples of the patients the row's mean is above the column's.

    Equal means count half; the diagonal is NaN. All NaN without a patient.
    """
    models = len(one.models)
    if not one.units:
        return np.full((models, models), np.nan)
    means = resamples((len(one.units),), seed) @ one.values / len(one.units)
    above = means[:, :, None] - means[:, None, :]
    share = (np.sign(np.where(np.abs(above) < 1e-12, 0, above)) + 1).mean(axis=0) / 2
    np.fill_diagonal(share, np.nan)
    return share


def rank_correlation(
    first: ScoreMatrix, second: ScoreMatrix, *, seed: int = 0
) -> tuple[float, tuple[float, float] | None] | None:
    """Spearman's rho of the orders that two settings put the same models in, by their means, and its 95 % interval.

    The interval resamples the patients of both settings, each for itself. None for under three common models.

    Source: Spearman, Am. J. Psychol. 15 (1904) 72-101.
    """
    common = [model for model in first.models if model in second.models]
    if len(common) < FEWEST_MODELS or not first.units or not second.units:
        return None
    here, there = (one.values[:, [one.models.index(model) for model in common]] for one in (first, second))

    def rho(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return spearman_rho(weights[:, : len(here)] @ here, weights[:, len(here) :] @ there)

    groups = (len(here), len(there))
    return float(rho(np.ones((1, sum(groups))))[0]), bootstrap_interval(rho, groups, seed=seed)


def spearman_rho(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """(B, models) twice -> (B,) of their rows; NaN where all models of a row are equal."""
    from scipy.stats import rankdata

    a, b = (rankdata(np.round(own, 12), axis=1) for own in (first, second))
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))


def _friedman(values: NDArray[np.float64]) -> float:
    """The chi-square of ranks, with its correction for ties; 0 where all models are equal everywhere."""
    from scipy.stats import rankdata

    patients, models = values.shape
    ranks = rankdata(values, axis=1)
    ties = sum(float((n**3 - n).sum()) for row in values for n in [np.unique(row, return_counts=True)[1]])
    correction = 1 - ties / (patients * models * (models**2 - 1))
    if correction <= 0:
        return 0.0
    between = 12 / (patients * models * (models + 1)) * (ranks.sum(axis=0) ** 2).sum() - 3 * patients * (models + 1)
    return float(between / correction)
