"""Learning rate over the run. Schedules count steps and always end with the run."""

from __future__ import annotations

import math


def cosine_with_warm_up(step: int, total: int, *, warm_up: float) -> float:
    """Factor of the peak learning rate at `step` of `total` (from 0).

    Rises linearly over the first `warm_up` share of the run, never from exactly 0, then falls as half a cosine to 0.
    """
    rising = round(warm_up * total)
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1.0 + math.cos(math.pi * (step - rising) / max(total - rising, 1)))
