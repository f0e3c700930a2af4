"""The teacher of self-distillation: an average of the student's weights, with a momentum that grows to 1."""

from __future__ import annotations

import copy

from torch import nn

from swinssl.ssl.pretext_network import PretextNetwork
from swinssl.ssl.schedules import cosine
from swinssl.training.weight_average import move_towards

FIRST_MOMENTUM, LAST_MOMENTUM = 0.996, 1.0


class Teacher:
    """A copy of the student that follows it; no gradient, no stochastic depth.

    Args:
        student: its weights are the teacher's first ones.
        heads: names of the student's heads that the teacher has too.
    """

    def __init__(self, student: PretextNetwork, heads: tuple[str, ...]) -> None:
        self.network = copy.deepcopy(student)
        self.network.heads = nn.ModuleDict({name: self.network.heads[name] for name in heads})
        self.network.mask_token = None
        self.network.eval().requires_grad_(False)

    def update(self, student: nn.Module, *, share: float) -> None:
        """After the optimiser's step: move towards the student, buffers too.

        The momentum rises as half a cosine over the whole run, never starting again.

        Args:
            share: of the run that was done before this step.

        Source: DINO, arXiv 2104.14294, section 3.1.
        """
        momentum = cosine(share, start=FIRST_MOMENTUM, end=LAST_MOMENTUM)
        move_towards(self.network, student, 1.0 - momentum)
