"""CKA of all pairs of blocks of two encoders beside the formula spelled out: same numbers, less time.

    python benchmarks/speed/cka.py --out cka.json

Needs no peer. The features are made up: layers that share a few directions, as wide as those of an encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import side_by_side as sbs
from numpy.typing import NDArray

from swinssl.evaluation.encoders.cka import MinibatchCka, cheaper_form
from swinssl.networks.network_plan import PRESETS

# Each pair from its two Gram matrices, as the formula reads; and the same from Gram matrices that are all kept.
PAIRWISE, ONCE = "a pair at a time", "all Gram matrices kept"
GOAL, TOLERANCE = 10.0, 1e-6
Minibatches = Sequence[Sequence[NDArray]]
Matrix = NDArray[np.float64]


def comparisons(quick: bool) -> Iterator[sbs.Comparison]:
    """The 14 blocks of the paper's encoder, twice; a small encoder on many samples; minibatches as swinssl_cka's."""
    yield _comparison("CKA, smit96, 768 tokens", "smit96", samples=768, minibatches=2 if quick else 8, goal=GOAL)
    yield _comparison("CKA, tiny, 2048 tokens", "tiny", samples=2048, minibatches=1 if quick else 4)
    yield _comparison("CKA, smit96, 48 tokens", "smit96", samples=48, minibatches=16 if quick else 128)


def _comparison(name: str, preset: str, *, samples: int, minibatches: int, goal: float | None = None) -> sbs.Comparison:
    plan = PRESETS[preset]
    widths = [plan.embed_dim * 2**stage for stage, depth in enumerate(plan.depths) for _ in range(depth)] * 2
    data = [_features(samples, widths, seed) for seed in range(minibatches)]
    ways = [sbs.Way(sbs.OURS, partial(_ours, data))]
    ways += [sbs.Way(PAIRWISE, partial(_cka, data, _pairwise)), sbs.Way(ONCE, partial(_cka, data, _once))]

    def check() -> dict[str, Any]:
        ours, direct, kept = (way.run() for way in ways)
        apart = max(float(np.abs(ours - other).max()) for other in (direct, kept))
        assert apart <= TOLERANCE, f"largest difference {apart:.1e}"
        between = ours[: len(widths) // 2, len(widths) // 2 :]
        return {
            "largest difference": f"{apart:.1e}",
            "CKA between the encoders": f"{between.min():.3f} to {between.max():.3f}",
            "form": cheaper_form(samples, widths),
        }

    return sbs.Comparison(
        name,
        f"2 x {len(widths) // 2} blocks of {min(widths)} to {max(widths)} channels, {samples} tokens x {minibatches} "
        "minibatches, unbiased HSIC",
        ways,
        check,
        [sbs.Goal(PAIRWISE, goal)] if goal else [],
    )


def _features(samples: int, widths: Sequence[int], seed: int) -> list[NDArray[np.float32]]:
    rng, mixing = np.random.default_rng(seed), np.random.default_rng(2**32)
    common = rng.normal(size=(samples, 32))
    layers = []
    for width in widths:
        shared = np.tanh(common @ mixing.normal(size=(32, width)) / 4)
        own = rng.normal(size=(samples, width))
        layers.append((shared + 0.5 * own + 2 * mixing.normal(size=width)).astype(np.float32))
    return layers


def _ours(data: Minibatches) -> Matrix:
    cka = MinibatchCka()
    for layers in data:
        cka.add(layers)
    return cka.result().matrix


def _cka(data: Minibatches, hsic_of_pairs: Callable[[Sequence[NDArray]], Matrix]) -> Matrix:
    hsic = np.mean([hsic_of_pairs(layers) for layers in data], axis=0)
    own = np.sqrt(np.diag(hsic))
    return hsic / np.outer(own, own)


def _pairwise(layers: Sequence[NDArray]) -> Matrix:
    """Both Gram matrices of every pair, which is computed once for its two places."""
    hsic = np.empty((len(layers),) * 2)
    for i, x in enumerate(layers):
        for j, y in enumerate(layers[: i + 1]):
            hsic[i, j] = hsic[j, i] = _hsic(_gram(x), _gram(y))
    return hsic


def _once(layers: Sequence[NDArray]) -> Matrix:
    """Every Gram matrix once, all of them in memory together."""
    grams, n = np.stack([_gram(x) for x in layers]), len(layers[0])
    flat, rows = grams.reshape(len(layers), -1), grams.sum(axis=2)
    sums = np.outer(rows.sum(axis=1), rows.sum(axis=1)) / ((n - 1) * (n - 2)) - 2 / (n - 2) * rows @ rows.T
    return (flat @ flat.T + sums) / (n * (n - 3))


def _gram(features: NDArray) -> Matrix:
    exact = features.astype(np.float64)
    gram = exact @ exact.T
    np.fill_diagonal(gram, 0.0)
    return gram


def _hsic(k: Matrix, el: Matrix) -> float:
    """HSIC_1 (Nguyen et al., arXiv 2010.15327, equation 3)."""
    n = len(k)
    sums = k.sum() * el.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (k.sum(axis=0) @ el.sum(axis=0))
    return float((np.vdot(k, el) + sums) / (n * (n - 3)))


if __name__ == "__main__":
    sbs.main(__doc__, comparisons)
