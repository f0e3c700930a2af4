"""Confidence intervals by resampling the cases, since cases are what a study draws from the world."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from swinssl.randomness import generator

RESAMPLES = 2000
LEVEL = 0.95
# Two cases have three resamples: no interval. Up to ten it tends to be too narrow, and is marked so.
FEWEST_CASES, FEW_CASES = 3, 10

# (B, n) times that each case was drawn -> (B,) the statistic; NaN where it is undefined.
Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def bootstrap_interval(
    statistic: Statistic, cases: int | tuple[int, ...], *, seed: int = 0
) -> tuple[float, float] | None:
    """The 95 % interval of a statistic, bias-corrected and accelerated (BCa), from 2000 resamples of the cases.

    The draws depend on the number of cases only, so that two statistics of the same cases see the same resamples.

    Args:
        statistic: of the cases, each drawn so many times.
        cases: their number; those of each group, one after the other, where groups are resampled apart.

    Returns:
        (low, high); None for fewer than three cases in a group, or where the statistic is undefined in most resamples.

    Source: Efron, J. Am. Stat. Assoc. 82 (1987) 171-185, eqs. 2.3, 4.1 and 6.6.
    """
    from scipy.special import ndtr, ndtri

    groups = (cases,) if isinstance(cases, int) else cases
    if min(groups) < FEWEST_CASES:
        return None
    values = statistic(resamples(groups, seed))
    values = values[np.isfinite(values)]
    observed = statistic(np.ones((1, sum(groups))))[0]
    if len(values) < RESAMPLES / 2 or not np.isfinite(observed):
        return None
    # Ties count half: a statistic that takes few values is otherwise taken for a biased one.
    below = (np.mean(values < observed) + np.mean(values <= observed)) / 2
    bias = ndtri(np.clip(below, 1 / RESAMPLES, 1 - 1 / RESAMPLES))
    without_one = statistic(1.0 - np.eye(sum(groups)))
    # Within its group, a case's influence is about (n - 1) / n of what leaving it out changes.
    parts = np.split(without_one, np.cumsum(groups)[:-1])
    influence = np.concatenate([(np.nanmean(own) - own) * (len(own) - 1) / len(own) for own in parts])
    influence = influence[np.isfinite(influence)]
    spread = np.sum(influence**2) ** 1.5
    acceleration = np.sum(influence**3) / (6 * spread) if spread > 0 else 0.0
    ends = bias + ndtri([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    low, high = np.quantile(values, ndtr(bias + ends / (1 - acceleration * ends)))
    return float(low), float(high)


@functools.lru_cache(maxsize=4)
def resamples(groups: tuple[int, ...], seed: int = 0) -> NDArray[np.float64]:
    """(B, n) times that each case is drawn, n being the cases of all groups together."""
    draws = generator(seed, "bootstrap of cases")
    times = np.zeros((RESAMPLES, sum(groups)))
    start = 0
    for cases in groups:
        drawn = start + draws.integers(cases, size=(RESAMPLES, cases))
        np.add.at(times, (np.arange(RESAMPLES)[:, None], drawn), 1.0)
        start += cases
    times.flags.writeable = False
    return times


def mean_interval(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, float] | None:
    """The 95 % interval of the mean of (n,) cases' values."""
    numbers = np.asarray(values, dtype=float)
    return bootstrap_interval(ratio_of_sums(numbers, np.ones(len(numbers))), len(numbers))


def ratio_of_sums(numerators: NDArray[np.float64], denominators: NDArray[np.float64]) -> Statistic:
    """Sum over sum, each case as often as it was drawn; with denominators of 1 it is the mean.

    Args:
        numerators: (n,) or, for k ratios at once, (n, k); 0 where a case has no value.
        denominators: the same shape; 0 where a case has no value.
    """

    def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(invalid="ignore", divide="ignore"):
            return (weights @ numerators) / (weights @ denominators)

    return statistic
