"""What was measured: the cases of an evaluation, each with the metrics of its structures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from swinssl.metrics.case_metrics import StructureMetrics
from swinssl.metrics.structures import Structure


@dataclass(frozen=True)
class CaseResult:
    """One case.

    Args:
        metrics: by structure; structures that were not annotated in this case are not in it.
    """

    case_id: str
    prediction: Path
    reference: Path
    metrics: dict[str, StructureMetrics]

    @property
    def dice(self) -> float | None:
        """Mean Dice over the structures that have one."""
        found = [m.overlap.dice for m in self.metrics.values() if m.overlap.dice is not None]
        return float(np.mean(found)) if found else None

    @property
    def worst_structure(self) -> str | None:
        """The structure with the lowest Dice; the first of equals."""
        dice = {name: m.overlap.dice for name, m in self.metrics.items() if m.overlap.dice is not None}
        return min(dice, key=lambda name: dice[name]) if dice else None


@dataclass(frozen=True)
class Evaluation:
    """Predictions against references.

    Args:
        structures: what was measured, in the order of dataset.json.
        tolerances: of the surface Dice, in mm.
        cases: by rising id.
        missing: cases with a reference and no prediction; left out.
        extra: cases with a prediction and no reference; left out.
    """

    structures: tuple[Structure, ...]
    tolerances: tuple[float, ...]
    cases: tuple[CaseResult, ...]
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()

    @cached_property
    def ranked(self) -> tuple[CaseResult, ...]:
        """The cases that have a Dice, worst first."""
        scored = [(case.dice, case.case_id, case) for case in self.cases if case.dice is not None]
        return tuple(case for *_, case in sorted(scored, key=lambda entry: entry[:2]))

    @property
    def worst(self) -> CaseResult | None:
        """The case with the lowest mean Dice."""
        return self.ranked[0] if self.ranked else None

    @property
    def median(self) -> CaseResult | None:
        """The case in the middle by mean Dice; of an even number the worse of the two."""
        return self.ranked[(len(self.ranked) - 1) // 2] if self.ranked else None
