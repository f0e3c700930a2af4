"""An order of models that others have published, and how far one's own results agree with it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from swinssl.core.errors import UserError
from swinssl.evaluation.statistics.bootstrap import bootstrap_interval
from swinssl.evaluation.statistics.rankings import FEWEST_MODELS, ScoreMatrix, order_probabilities, spearman_rho

REMEDY = "Write it like smit>simmim>ibot=dino>scratch, each model once."


@dataclass(frozen=True)
class ExpectedOrder:
    """Models, best first; those of a level were alike."""

    levels: tuple[tuple[str, ...], ...]

    @classmethod
    def parse(cls, text: str) -> ExpectedOrder:
        """The order that `smit > simmim > ibot = dino > scratch` says.

        Raises:
            UserError: a name is missing or stands twice, or there is one level only.
        """
        levels = tuple(tuple(name.strip() for name in level.split("=")) for level in text.split(">"))
        names = [name for level in levels for name in level]
        if not all(names) or len(set(names)) < len(names) or len(levels) < 2:
            raise UserError(f"{text!r}: no order of models. {REMEDY}")
        return cls(levels)

    def __str__(self) -> str:
        return " > ".join(" = ".join(level) for level in self.levels)

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(name for level in self.levels for name in level)

    def among(self, models: Collection[str]) -> ExpectedOrder:
        """The same without models that are not there."""
        levels = (tuple(name for name in level if name in models) for level in self.levels)
        return ExpectedOrder(tuple(level for level in levels if level))


@dataclass(frozen=True)
class ExpectedPair:
    """How probable it is that `better` is better than `worse` here too: the share of resamples of the patients."""

    better: str
    worse: str
    probability: float


@dataclass(frozen=True)
class OrderAgreement:
    """What results say about an order that was expected.

    Args:
        pairs: all that are not on one level.
        rho: Spearman's, of the order and the means here; None under three models or where all are alike.
        interval: its 95 % interval.
    """

    expected: ExpectedOrder
    pairs: tuple[ExpectedPair, ...]
    rho: float | None
    interval: tuple[float, float] | None


def agreement_with(expected: ExpectedOrder, found: ScoreMatrix) -> OrderAgreement | None:
    """How far the models that both have stand in the expected order; None where no two of them should differ.

    Patients are resampled; the expected order is taken as it is.
    """
    own = expected.among(found.models)
    if len(own.levels) < 2 or not found.units:
        return None
    level = {name: number for number, names in enumerate(own.levels) for name in names}
    place = {model: number for number, model in enumerate(found.models)}
    share = order_probabilities(found)
    pairs = tuple(
        ExpectedPair(first, second, float(share[place[first], place[second]]))
        for first, second in combinations(own.models, 2)
        if level[first] != level[second]
    )
    if len(own.models) < FEWEST_MODELS:
        return OrderAgreement(own, pairs, None, None)
    values = found.values[:, [place[model] for model in own.models]]
    levels = np.array([-level[model] for model in own.models], dtype=float)

    def rho(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        means = weights @ values
        return spearman_rho(np.broadcast_to(levels, means.shape), means)

    observed = float(rho(np.ones((1, len(values))))[0])
    if not np.isfinite(observed):
        return OrderAgreement(own, pairs, None, None)
    return OrderAgreement(own, pairs, observed, bootstrap_interval(rho, len(values)))
