"""Schedules of a pretraining run, as functions of the fraction of the run that is done."""

from __future__ import annotations

import math

# 30 of the paper's 500 epochs: the learning rate's warm-up, and the rise of the teacher's temperature.
WARM_UP = 30 / 500
# DINO freezes its last layer for 1 of 100 epochs.
LAST_LAYER_FROZEN = 1 / 100


def linear_rise(share: float, *, start: float, end: float, over: float = WARM_UP) -> float:
    """Linear from `start` to `end` over the first fraction `over` of the run, then `end`."""
    return end if share >= over else start + (end - start) * share / over


def cosine(share: float, *, start: float, end: float) -> float:
    """Half a cosine from `start` to `end` over the whole run."""
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * min(share, 1.0)))
