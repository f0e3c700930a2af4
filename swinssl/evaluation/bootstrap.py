"""Confidence intervals by resampling the cases, since cases are what a study draws from the world."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from swinssl.randomness import generator

RESAMPLES = 2000
LEVEL = 0.95
# Two cases have three resamples: no interval. Up to ten it tends to be too narrow, and is marked so.
FEWEST_CASES, FEW_CASES = 3, 10

# (B, n) times that each case was drawn -> (B,) the statistic; NaN where it is undefined.
Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def bootstrap_interval(statistic: Statistic, cases: int, *, seed: int = 0) -> tuple[float, float] | None:
    """The 95 % interval of a statistic, bias-corrected and accelerated (BCa), from 2000 resamples of the cases.

    The draws depend on the number of cases only, so that two statistics of the same cases see the same resamples.

    Args:
        statistic: of the cases, each drawn so many times.
        cases: their number.

    Returns:
        (low, high); None for fewer than three cases, or where the statistic is undefined in most resamples.

    Source: Efron, J. Am. Stat. Assoc. 82 (1987) 171-185, eqs. 2.3, 4.1 and 6.6.
    """
    from scipy.special import ndtr, ndtri

    if cases < FEWEST_CASES:
        return None
    values = statistic(_resamples(cases, seed))
    values = values[np.isfinite(values)]
    observed = statistic(np.ones((1, cases)))[0]
    if len(values) < RESAMPLES / 2 or not np.isfinite(observed):
        return None
    # Ties count half: a statistic that takes few values is otherwise taken for a biased one.
    below = (np.mean(values < observed) + np.mean(values <= observed)) / 2
    bias = ndtri(np.clip(below, 1 / RESAMPLES, 1 - 1 / RESAMPLES))
    without_one = statistic(1.0 - np.eye(cases))
    influence = np.nanmean(without_one) - without_one
    influence = influence[np.isfinite(influence)]
    spread = np.sum(influence**2) ** 1.5
    acceleration = np.sum(influence**3) / (6 * spread) if spread > 0 else 0.0
    ends = bias + ndtri([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    low, high = np.quantile(values, ndtr(bias + ends / (1 - acceleration * ends)))
    return float(low), float(high)


@functools.lru_cache(maxsize=4)
def _resamples(cases: int, seed: int) -> NDArray[np.float64]:
    """(B, n) times that each case is drawn."""
    drawn = generator(seed, "bootstrap of cases").integers(cases, size=(RESAMPLES, cases))
    times = np.zeros((RESAMPLES, cases))
    np.add.at(times, (np.arange(RESAMPLES)[:, None], drawn), 1.0)
    times.flags.writeable = False
    return times


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
