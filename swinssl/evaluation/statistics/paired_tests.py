"""Two models on the same cases: is the difference more than chance, how large is it, and what several tests cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from swinssl.evaluation.statistics.bootstrap import Statistic, bootstrap_interval

# That are in memory at once, of 8 bytes each.
MOST_NUMBERS = 500_000


def paired_wilcoxon(differences: ArrayLike) -> float:
    """Two-sided p of Wilcoxon's signed-rank test: exact for any number of cases, with ties as without.

    Differences of 0 are left out. Equal ones share their mean rank, and the null distribution is that of these ranks
    under every choice of signs, so that nothing is approximated. Time grows with the third power of the cases (0.1 s
    for 500).

    Args:
        differences: (n,) of a case's two values.

    Returns:
        p; 1 where no case differs. It cannot fall below `smallest_p(n)`.

    Source: Wilcoxon, Biometrics Bulletin 1 (1945) 80-83.
    """
    values = _checked(differences)
    values = values[values != 0]
    if not len(values):
        return 1.0
    # Doubled, mean ranks are whole numbers.
    doubled = np.rint(2 * mean_ranks(np.abs(values))).astype(int)
    rng = np.ones(1)
    for rank in doubled:
        longer = np.zeros(len(rng) + rank)
        longer[: len(rng)] += rng / 2
        longer[rank:] += rng / 2
        rng = longer
    positive = int(doubled[values > 0].sum())
    return float(min(1.0, 2 * min(rng[: positive + 1].sum(), rng[positive:].sum())))


def smallest_p(cases: int) -> float:
    """The smallest p that `paired_wilcoxon` can give: every case differs, all in one direction."""
    return min(1.0, 2.0 ** (1 - cases))


def hodges_lehmann(differences: ArrayLike) -> float:
    """The typical difference: the median of the means of all pairs of cases, each with itself too.

    It is what the signed-rank test tests, and one odd case moves it little.

    Args:
        differences: (n,) of a case's two values, n > 0.

    Source: Hodges and Lehmann, Ann. Math. Stat. 34 (1963) 598-611.
    """
    values = _checked(differences)
    return float(_hodges_lehmann_of(values)(np.ones((1, len(values))))[0])


def hodges_lehmann_interval(differences: ArrayLike, *, seed: int = 0) -> tuple[float, float] | None:
    """The 95 % interval of `hodges_lehmann` from resampling the cases (`bootstrap.py`); None for under three."""
    values = _checked(differences)
    return bootstrap_interval(_hodges_lehmann_of(values), len(values), seed=seed)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """p-values of several tests, corrected so that any false alarm among them is as rare as one test's.

    Args:
        p_values: (n,) of the tests.

    Returns:
        (n,) corrected, in the order that they came in.

    Source: Holm, Scand. J. Stat. 6 (1979) 65-70.
    """
    order = np.argsort(p_values, kind="stable")
    left = len(p_values) - np.arange(len(p_values))
    rising = np.maximum.accumulate(np.asarray(p_values, dtype=float)[order] * left)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(rising, 1.0)
    return tuple(map(float, corrected))


def _checked(differences: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(differences, dtype=float)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError("expected one finite difference a case, of one case at least")
    return values


def mean_ranks(sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks (n,) from 1 for the smallest; equal ones share the mean of their ranks."""
    _, where, count = np.unique(sizes, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return (last - (count - 1) / 2)[where]


def _hodges_lehmann_of(values: NDArray[np.float64]) -> Statistic:
    """The estimate from cases that count as often as they were drawn."""
    first, second = np.triu_indices(len(values))
    means = (values[first] + values[second]) / 2
    order = np.argsort(means, kind="stable")
    first, second, means = first[order], second[order], means[order]

    def of_some(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        # w copies of a case make w (w + 1) / 2 pairs among themselves, itself with itself included.
        pairs = np.where(first == second, (weights[:, first] + 1) / 2, weights[:, second]) * weights[:, first]
        below = np.cumsum(pairs, axis=1)
        half = below[:, -1:] / 2
        # The middle pair, or the two middle ones of an even number.
        return (means[np.argmax(below >= half, axis=1)] + means[np.argmax(below > half, axis=1)]) / 2

    def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        # A part of the resamples at a time: all at once took 1 GB for 200 cases.
        rows = max(1, MOST_NUMBERS // len(means))
        return np.concatenate([of_some(weights[start : start + rows]) for start in range(0, len(weights), rows)])

    return statistic
