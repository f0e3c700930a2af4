"""How far a model stays behind the best one of its task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

K = TypeVar("K")


def performance_gaps(accuracies: Mapping[K, float]) -> dict[K, float]:
    """(accuracy - best) / best * 100, in per cent; 0 for the best, negative for all others.

    Args:
        accuracies: of one task: by model, or by model and number of shots.

    Source: arXiv 2605.18491, section 4.3: the reference is the best accuracy of any model on the task.
    """
    best = max(accuracies.values())
    if best <= 0:
        raise ValueError(f"the best accuracy is {best}: a gap to it is not defined")
    return {key: (value - best) / best * 100 for key, value in accuracies.items()}
