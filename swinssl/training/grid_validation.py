"""Validation while training runs: Dice of whole volumes, by sliding window, on the plan's grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from swinssl.inference.predictor import Predictor
from swinssl.metrics.case_metrics import case_overlaps
from swinssl.metrics.structures import coded_structures
from swinssl.planning.patch import window_count
from swinssl.preprocessing.plans import Plans
from swinssl.preprocessing.store import PreprocessedCase

# Forward, gradient of the input, gradient of the weights: a window costs a third of a training patch.
PASSES_OF_A_STEP = 3
# A run is validated this often at least, within its share of the time, as long as so many cases remain.
LEAST_VALIDATIONS, LEAST_CASES = 20, 5
VALIDATION_SHARE = 0.05

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class GridValidation:
    """Measures a network on stored cases.

    Args:
        cases: annotated; those looked at while training runs.
        all_cases: those that are predicted after it.
        training_cases: those of the training that are predicted after it too.
        bf16: compute in bfloat16.
    """

    cases: Sequence[PreprocessedCase]
    all_cases: Sequence[PreprocessedCase]
    plans: Plans
    device: torch.device
    bf16: bool
    training_cases: Sequence[PreprocessedCase] = ()

    @classmethod
    def within_budget(
        cls,
        cases: Sequence[PreprocessedCase],
        plans: Plans,
        *,
        steps: int,
        device: torch.device,
        bf16: bool,
        training_cases: Sequence[PreprocessedCase] = (),
    ) -> GridValidation:
        """As many of the annotated cases, evenly spread, as can be validated twenty times in a run of so many steps."""
        annotated = [case for case in cases if case.properties.annotated]
        budget = VALIDATION_SHARE * steps / LEAST_VALIDATIONS
        number = len(annotated)
        while number > LEAST_CASES and _steps(spread(annotated, number), plans) > budget:
            number -= 1
        return cls(spread(annotated, number), annotated, plans, device, bf16, training_cases)

    @property
    def cost(self) -> float:
        """Of one validation, in training steps."""
        return _steps(self.cases, self.plans)

    @property
    def closing_cost(self) -> float:
        """Of predicting every case after the run, likewise."""
        return _steps([*self.all_cases, *self.training_cases], self.plans)

    def measure(self, network: nn.Module) -> dict[str, float]:
        """`score`, the mean Dice over structures, and `dice_<structure>`, each the mean over the cases that have one.

        A case has no Dice for a structure that neither its label nor the prediction shows, or that was not annotated.
        Where no structure has any, the score is 0: nothing was learnt. Empty without cases.
        """
        if not self.cases:
            return {}
        labels = self.plans.labels
        predictor = Predictor.of([network], self.plans, device=self.device, bf16=self.bf16)
        dice_of: dict[str, list[float]] = {name: [] for name in labels.names}
        for case in self.cases:
            annotated = case.properties.labels_present
            structures = [s for s in coded_structures(labels) if annotated is None or s.name in annotated]
            predicted = labels.encode(labels.output_to_raw(predictor.segment_on_grid(case.image())))
            reference = case.label()
            # Outside the mask is background, as for the loss.
            reference = np.where(reference == labels.outside_code, 0, reference)
            overlaps = case_overlaps(reference, predicted, structures=structures, ignore=labels.ignore_code)
            for name, overlap in overlaps.items():
                if overlap.dice is not None:
                    dice_of[name].append(overlap.dice)
        means = {f"dice_{name}": float(np.mean(values)) for name, values in dice_of.items() if values}
        return {"score": float(np.mean(list(means.values()))) if means else 0.0, **means}


def _steps(cases: Sequence[PreprocessedCase], plans: Plans) -> float:
    windows = sum(window_count(plans.patch_size, case.shape) for case in cases)
    return windows / (PASSES_OF_A_STEP * plans.training.batch_size)


def spread(cases: Sequence[T], number: int) -> list[T]:
    """`number` of the cases, evenly spread over their order."""
    if number >= len(cases):
        return list(cases)
    return [cases[math.floor((i + 0.5) * len(cases) / number)] for i in range(number)]
