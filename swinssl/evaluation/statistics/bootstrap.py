"""Confidence intervals by resampling what a study draws from the world: test cases, and sets of training cases."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swinssl.core.rng import generator

RESAMPLES = 2000
LEVEL = 0.95
# Two cases have three resamples: no interval. Up to ten it tends to be too narrow, and is marked so.
FEWEST_CASES, FEW_CASES = 3, 10
# A headline rests on at least this many draws of training cases.
ENOUGH_DRAWS = 5

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


@dataclass(frozen=True)
class TwoWayEstimate:
    """A mean over draws of training cases and over test cases, with its 95 % interval.

    Args:
        mean: over the draws, each the mean over its test cases.
        standard_error: of it, for other draws and other test cases.
        degrees: of freedom, of Student's t.
        draws, cases: how many there are.
    """

    mean: float
    standard_error: float
    degrees: float
    draws: int
    cases: int

    @functools.cached_property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval."""
        from scipy.special import stdtrit

        reach = float(stdtrit(self.degrees, (1 + LEVEL) / 2)) * self.standard_error
        return self.mean - reach, self.mean + reach

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval shows a difference."""
        low, high = self.interval
        return low > 0 or high < 0


def two_way_bootstrap(values: NDArray[np.float64], *, seed: int = 0) -> TwoWayEstimate | None:
    """The mean of values that differ by draw of the training cases and by test case, for other draws and other cases.

    Draws and test cases are resampled at the same time, each for itself, and a value counts as often as both its draw
    and its case were drawn (Owen's pigeonhole bootstrap). T is the mean over draws of the mean over test cases:

        T = sum_k w_k m_k / sum_k w_k,    m_k = sum_i v_i d_ki / sum_i v_i  over the cases i that draw k has

    A bootstrap of K draws underestimates their variance by (K - 1) / K, which matters for few of them. So, with the
    variances A of resampling draws alone, C of cases alone and V of both,

        SE^2 = V (A K / (K - 1) + C n / (n - 1)) / (A + C)

    and the interval is T +- t SE, with Satterthwaite's degrees of freedom of A and C. Simulated coverage is 95 % or
    more from three draws on (the interaction of draw and case counts three times, so it errs to the wide side), where
    the percentiles of the resamples cover 89 to 95 %.

    Args:
        values: (K, n) a row a draw, a column a test case; NaN where a draw has no value of a case.

    Returns:
        None for under two draws or under three test cases that have a value.

    Source: Owen, Ann. Appl. Stat. 1 (2007) 386-411; Satterthwaite, Biometrics Bulletin 2 (1946) 110-114.
    """
    values = np.asarray(values, dtype=float)
    seen = np.isfinite(values)
    values, seen = values[seen.any(axis=1)][:, seen.any(axis=0)], seen[seen.any(axis=1)][:, seen.any(axis=0)]
    draws, cases = values.shape
    if draws < 2 or cases < FEWEST_CASES:
        return None
    known = np.where(seen, values, 0.0)

    def statistic(of_draws: NDArray[np.float64], of_cases: NDArray[np.float64]) -> NDArray[np.float64]:
        counts = of_cases @ seen.T
        with np.errstate(invalid="ignore", divide="ignore"):
            means = np.where(counts > 0, (of_cases @ known.T) / counts, 0.0)
            weights = of_draws * (counts > 0)
            return (weights * means).sum(axis=1) / weights.sum(axis=1)

    every_draw, every_case = np.ones((1, draws)), np.ones((1, cases))
    some_draws = resamples((draws,), seed, "bootstrap of draws")
    some_cases = resamples((cases,), seed)
    by_draw = float(np.nanvar(statistic(some_draws, every_case)))
    by_case = float(np.nanvar(statistic(every_draw, some_cases)))
    both = float(np.nanvar(statistic(some_draws, some_cases)))
    mean = float(statistic(every_draw, every_case)[0])
    if by_draw + by_case == 0:  # every value is the same
        return TwoWayEstimate(mean, 0.0, float(draws - 1), draws, cases)
    of_draws, of_cases = by_draw * draws / (draws - 1), by_case * cases / (cases - 1)
    standard_error = (both * (of_draws + of_cases) / (by_draw + by_case)) ** 0.5
    degrees = (of_draws + of_cases) ** 2 / (of_draws**2 / (draws - 1) + of_cases**2 / (cases - 1))
    return TwoWayEstimate(mean, standard_error, degrees, draws, cases)


@functools.lru_cache(maxsize=4)
def resamples(groups: tuple[int, ...], seed: int = 0, purpose: str = "bootstrap of cases") -> NDArray[np.float64]:
    """(B, n) times that each case is drawn, n being the cases of all groups together."""
    draws = generator(seed, purpose)
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
