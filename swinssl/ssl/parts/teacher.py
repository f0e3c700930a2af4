"""The teacher of self-distillation: an average of the student's weights, with a momentum that grows to 1."""

from __future__ import annotations

import copy

from torch import nn

from swinssl.ssl.parts.pretext_network import PretextNetwork
from swinssl.ssl.parts.schedules import cosine
from swinssl.training.engine.weight_average import move_towards

FIRST_MOMENTUM, LAST_MOMENTUM = 0.996, 1.0
# Share of a run that the first momentum averages over, where DINO's own would average over more.
REMEMBERED = 1 / 100


def first_momentum(steps: int) -> float:
    """Momentum that a run of so many steps begins with: DINO's, or less where the run is short.

    What little tells two images apart at first grows as student and teacher learn from each other, once in each of the
    teacher's times of averaging: 250 steps at 0.996, of which a run of a thousand steps has too few.
    """
    return min(FIRST_MOMENTUM, max(0.0, 1.0 - 1.0 / max(1.0, REMEMBERED * steps)))


class Teacher:
    """A copy of the student that follows it; no gradient, no stochastic depth.

    Args:
        student: its weights are the teacher's first ones.
        heads: names of the student's heads that the teacher has too.
        momentum: it begins with; None: by the length of the run.
    """

    def __init__(self, student: PretextNetwork, heads: tuple[str, ...], *, momentum: float | None = None) -> None:
        self.momentum = momentum
        self.network = copy.deepcopy(student)
        self.network.heads = nn.ModuleDict({name: self.network.heads[name] for name in heads})
        self.network.mask_token = None
        self.network.eval().requires_grad_(False)

    def update(self, student: nn.Module, *, step: int, total: int) -> None:
        """After the optimiser's step: move towards the student, buffers too.

        The momentum rises as half a cosine over the whole run, never starting again.

        Args:
            step: number of the step, from 0.
            total: steps of the run.

        Source: DINO, arXiv 2104.14294, section 3.1.
        """
        first = first_momentum(total) if self.momentum is None else self.momentum
        momentum = cosine(step / total, start=first, end=LAST_MOMENTUM)
        move_towards(self.network, student, 1.0 - momentum)
