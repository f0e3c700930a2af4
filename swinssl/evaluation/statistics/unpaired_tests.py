"""Two groups of different patients: is one better than chance lets it be, and by how much."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

import numpy as np
from numpy.typing import ArrayLike, NDArray

from swinssl.evaluation.statistics.bootstrap import bootstrap_interval
from swinssl.evaluation.statistics.paired_tests import mean_ranks

# Counting every choice of patients costs about (m + n)^4; 60 take 0.1 s.
MOST_COUNTED = 60


def mann_whitney(first: ArrayLike, second: ArrayLike) -> float:
    """Two-sided p of Mann and Whitney's test: exact up to 60 patients, with ties as without; beyond, normal.

    Equal values share their mean rank, and the null distribution is that of these ranks under every choice of who is
    in the first group.

    Args:
        first, second: (m,) and (n,) values of patients.

    Source: Mann and Whitney, Ann. Math. Stat. 18 (1947) 50-60.
    """
    a, b = _checked(first), _checked(second)
    if len(a) + len(b) > MOST_COUNTED:
        from scipy.stats import mannwhitneyu

        return float(mannwhitneyu(a, b, method="asymptotic").pvalue)
    # Doubled, mean ranks are whole numbers.
    doubled = np.rint(2 * mean_ranks(np.concatenate([a, b]))).astype(int)
    rng = _rank_sums(doubled, len(a)) / comb(len(doubled), len(a))
    observed = int(doubled[: len(a)].sum())
    return float(min(1.0, 2 * min(rng[: observed + 1].sum(), rng[observed:].sum())))


def smallest_unpaired_p(first: int, second: int) -> float:
    """The smallest p that `mann_whitney` can give for so many patients: every one of a group above the other's."""
    return min(1.0, 2 / comb(first + second, first))


def shift(first: ArrayLike, second: ArrayLike) -> float:
    """The typical difference: the median of the differences of every patient of one group to every one of the other.

    Source: Hodges and Lehmann, Ann. Math. Stat. 34 (1963) 598-611.
    """
    return float(np.median(np.subtract.outer(_checked(first), _checked(second))))


def shift_interval(first: ArrayLike, second: ArrayLike, *, seed: int = 0) -> tuple[float, float] | None:
    """The 95 % interval of `shift` from resampling each group; None where one has under three patients."""
    a, b = _checked(first), _checked(second)
    differences = np.subtract.outer(a, b).ravel()
    order = np.argsort(differences, kind="stable")
    ordered = differences[order]

    def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([_weighted_median(ordered, np.outer(w[: len(a)], w[len(a) :]).ravel()[order]) for w in weights])

    return bootstrap_interval(statistic, (len(a), len(b)), seed=seed)


def _weighted_median(ordered: NDArray[np.float64], times: NDArray[np.float64]) -> float:
    below = np.cumsum(times)
    half = below[-1] / 2
    return float(ordered[np.argmax(below >= half)] + ordered[np.argmax(below > half)]) / 2


def _rank_sums(ranks: NDArray[np.int_], chosen: int) -> NDArray[np.float64]:
    """How many choices of so many ranks have each sum."""
    ways = np.zeros((chosen + 1, int(ranks.sum()) + 1))
    ways[0, 0] = 1
    for rank in ranks:
        # Backwards, so that no rank is taken twice.
        ways[1:, rank:] += ways[:-1, : ways.shape[1] - rank].copy()
    return ways[chosen]


def _checked(values: ArrayLike | Sequence[float]) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all():
        raise ValueError("expected one finite value a patient, of one patient at least")
    return array
