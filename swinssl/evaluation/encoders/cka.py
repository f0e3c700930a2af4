"""Centred kernel alignment (CKA) of all layers of one or several networks at once, over minibatches, without bias.

HSIC_1 is the unbiased estimator of the Hilbert-Schmidt independence criterion (Song et al., JMLR 13, 2012), here of
linear kernels. Minibatch CKA takes its mean over the minibatches first and normalises then (Nguyen et al., arXiv
2010.15327, equations 2 and 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Form = Literal["gram", "features"]
Float64 = NDArray[np.float64]

# HSIC_1 divides by n (n - 3).
LEAST_SAMPLES = 4
# Gram matrices are made so many rows at a time: what lies in between stays small, however many samples there are.
ROWS = 128
# A multiply-add of the Gram form takes as long as so many of the feature form, whose products are larger (measured).
GRAM_COST = 1.5
# Deviations from the mean below this share of it are rounding: the features do not vary.
ROUNDING = 1e-14


@dataclass(frozen=True, eq=False)
class Cka:
    """CKA of all pairs of M layers; NaN where a layer's features do not vary.

    Args:
        matrix: (M, M), 1 on the diagonal; an estimate, so pairs that share nothing lie round 0, some below.
        standard_error: (M, M) jackknife over what was added; NaN of a single addition.
    """

    matrix: Float64
    standard_error: Float64


class MinibatchCka:
    """CKA of all pairs of layers, from minibatch after minibatch."""

    def __init__(self) -> None:
        self._hsic: list[Float64] = []

    def add(self, *minibatches: Sequence[NDArray]) -> None:
        """Take minibatches that depend on each other, such as several tokens of the same crops.

        Args:
            minibatches: of each the (n, C) features of every layer, a row a sample, always in the same order of
                layers. The samples of one minibatch must not depend on each other: the estimate would be too high.
        """
        self._hsic.append(np.mean([unbiased_hsic(layers) for layers in minibatches], axis=0))

    def result(self) -> Cka:
        """The estimate so far; something must have been added.

        The standard error is the delete-one jackknife's over the additions (Efron & Tibshirani 1993, chapter 11).
        """
        hsic = np.stack(self._hsic)
        count = len(hsic)
        error = np.full(hsic.shape[1:], np.nan)
        if count > 1:
            without_one = _normalised((hsic.sum(axis=0) - hsic) / (count - 1))
            deviations = without_one - without_one.mean(axis=0)
            error = np.sqrt((count - 1) / count * (deviations**2).sum(axis=0))
        return Cka(_normalised(hsic.mean(axis=0)), error)


def unbiased_hsic(layers: Sequence[NDArray], *, form: Form | None = None) -> Float64:
    """HSIC_1 of all pairs of layers with linear kernels (Nguyen et al., equation 3); products and sums in float64.

    Args:
        layers: (n, C) features of each, a row a sample; n >= 4, the same samples in all.
        form: by Gram matrices (n, n) or by products of features (C, C); None takes the cheaper one.

    Returns:
        (M, M) symmetric.

    Raises:
        ValueError: there are under four samples, or layers have not the same number.
    """
    counts = {len(features) for features in layers}
    if len(counts) != 1 or min(counts) < LEAST_SAMPLES:
        raise ValueError(f"{sorted(counts)} samples; expected one number of at least {LEAST_SAMPLES}")
    n = counts.pop()
    widths = [features.shape[1] for features in layers]
    starts = np.cumsum([0, *widths])
    # HSIC does not change with the layers' means. Without them no large numbers cancel, and a kernel's rows sum to 0:
    # without its diagonal to minus the diagonal.
    joined = np.concatenate(layers, axis=1, dtype=np.float64)
    mean = joined.mean(axis=0)
    joined -= mean
    sums_of = _by_grams if (form or cheaper_form(n, widths)) == "gram" else _by_features
    traces, diagonal = sums_of(joined, starts)
    totals = diagonal.sum(axis=1)
    sums = np.outer(totals, totals) / ((n - 1) * (n - 2)) - 2 / (n - 2) * (diagonal @ diagonal.T)
    hsic = (traces + sums) / (n * (n - 3))
    still = totals <= n * ROUNDING**2 * np.add.reduceat(mean**2, starts[:-1])
    hsic[still] = hsic[:, still] = 0.0
    return hsic


def cheaper_form(samples: int, channels: Sequence[int]) -> Form:
    """The form of `unbiased_hsic` that takes less time for so many samples and these channels of the layers."""
    total = sum(channels)
    return "gram" if GRAM_COST * samples * (total + len(channels) ** 2) < total**2 else "features"


def _by_grams(centred: Float64, starts: NDArray[np.int64]) -> tuple[Float64, Float64]:
    """tr(K L) of all pairs of kernels without diagonals, and the (M, n) diagonals; from upper halves of (n, n)."""
    n, layers = len(centred), [centred[:, start:stop] for start, stop in pairwise(starts)]
    traces, diagonal = np.zeros((len(layers), len(layers))), np.empty((len(layers), n))
    for start in range(0, n, ROWS):
        stop = min(start + ROWS, n)
        grams = np.empty((len(layers), stop - start, n - start))
        for gram, features in zip(grams, layers, strict=True):
            np.matmul(features[start:stop], features[start:].T, out=gram)
        diagonal[:, start:stop] = np.diagonal(grams, axis1=1, axis2=2)
        grams *= ~np.tri(stop - start, n - start, dtype=bool)
        flat = grams.reshape(len(layers), -1)
        traces += flat @ flat.T
    return 2 * traces, diagonal


def _by_features(centred: Float64, starts: NDArray[np.int64]) -> tuple[Float64, Float64]:
    """The same from the (C, C') products of layers, whose squared norms are the traces with the diagonals."""
    count = len(starts) - 1
    traces = np.empty((count, count))
    for i, (start, stop) in enumerate(pairwise(starts)):
        product = centred[:, start:stop].T @ centred[:, start:]
        squares = np.einsum("ab,ab->b", product, product)
        traces[i, i:] = traces[i:, i] = np.add.reduceat(squares, starts[i:-1] - start)
    diagonal = np.add.reduceat(centred**2, starts[:-1], axis=1).T
    return traces - diagonal @ diagonal.T, diagonal


def _normalised(hsic: Float64) -> Float64:
    """CKA from (..., M, M) HSIC."""
    own = np.diagonal(hsic, axis1=-2, axis2=-1)
    own = np.sqrt(np.where(own > 0, own, np.nan))
    return hsic / (own[..., :, None] * own[..., None, :])
