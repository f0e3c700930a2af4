"""Structures that are much larger or smaller in one case than in all others: another organ, or a slip of the label."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

# With fewer cases nobody knows how much a structure varies.
LEAST_CASES = 8
# Beyond both: a factor that no organ of an adult varies by, and so many robust standard deviations of the logarithm.
# Of the largest the limit is lower: fields of view cut organs, and do not add to them.
LARGER, SMALLER, DEVIATIONS = 4.0, 20.0, 6.0
# Median absolute deviation of a normal distribution in standard deviations.
MAD = 0.6745


@dataclass(frozen=True)
class UnlikeVolume:
    """A structure of a case whose volume is unlike that of all others.

    Args:
        volume: ml.
        usual: median over the cases that have the structure, ml.
    """

    case_id: str
    structure: str
    volume: float
    usual: float

    def __str__(self) -> str:
        times = self.volume / self.usual
        ratio = f"{times:.3g} times" if times > 1 else f"1/{1 / times:.3g} of"
        return f"{self.structure!r} has {self.volume:.3g} ml, {ratio} the median over the cases ({self.usual:.3g} ml)"


def unlike_volumes(volumes: Mapping[str, Mapping[str, float]]) -> list[UnlikeVolume]:
    """The outliers of each structure.

    Args:
        volumes: ml by structure and case, of cases that have it; without lesions and targets, which vary without
            bounds.
    """
    found = []
    for structure, by_case in volumes.items():
        if len(by_case) < LEAST_CASES:
            continue
        logarithms = {case_id: math.log(ml) for case_id, ml in by_case.items()}
        middle = float(np.median([*logarithms.values()]))
        spread = float(np.median([abs(value - middle) for value in logarithms.values()])) / MAD
        for case_id, value in logarithms.items():
            limit = max(math.log(LARGER if value > middle else SMALLER), DEVIATIONS * spread)
            if abs(value - middle) > limit:
                found.append(UnlikeVolume(case_id, structure, by_case[case_id], math.exp(middle)))
    return found
