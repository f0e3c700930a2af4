"""How long a run is, and where it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Length:
    """How long a run is: a number of steps, a number of minutes, or whichever ends first.

    Args:
        steps: maximum number of optimiser steps; None if only the minutes count.
        expected: expected number of steps; with a time limit it is an estimate, corrected once speed is measured.
        steps_per_epoch: steps between two lines of the log.
        minutes: time limit, including what follows the run; None is no limit.
        patience: validations in a row without a better score before the run ends; None never ends early.
    """

    steps: int | None
    expected: int
    steps_per_epoch: int
    minutes: float | None = None
    patience: int | None = None


@dataclass
class Progress:
    """Where a run is; all of it is in the checkpoint.

    Args:
        step: optimiser steps done.
        total: steps of the run; with a time limit it is corrected at the end of every epoch.
        seconds: time used so far, over all sittings.
        validation_seconds: part of that spent in validation.
        validations: number of validations.
        best_score: highest validation score.
        best_epoch: epoch in which it was reached.
        not_better: validations in a row since then.
        validated_at: step of the last validation, or of the saved weights if nothing can be validated.
        minutes: time limit under which the run ended; None if it had none.
        ended: the run is over; only a longer length makes it continue.
    """

    step: int = 0
    total: int = 0
    seconds: float = 0.0
    validation_seconds: float = 0.0
    validations: int = 0
    best_score: float = -math.inf
    best_epoch: int = 0
    not_better: int = 0
    validated_at: int = -1
    minutes: float | None = None
    ended: bool = False

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Progress:
        """The progress in a checkpoint; swinssl 0.1 did not count the validations since the best one."""
        progress = cls(**state)
        if "not_better" not in state:
            stopped_early = progress.ended and progress.step < progress.total
            progress.not_better = progress.validations if stopped_early else 0
            progress.validated_at = progress.step if progress.ended else -1
        return progress

    @property
    def is_over(self) -> bool:
        """Whether no step is left."""
        return self.ended or self.step >= self.total

    def out_of_patience(self, length: Length) -> bool:
        """Whether the score has not improved for as many validations as `length` allows."""
        return length.patience is not None and self.not_better >= length.patience
