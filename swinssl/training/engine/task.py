"""What the engine runs: fine-tuning and every pretext task are a `Task`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from swinssl.core.rng import KeyedRng


@dataclass(frozen=True)
class StepResult:
    """What one part of a batch gave.

    Args:
        losses: (B,) loss of each sample, so that the mean over ranks and parts is the mean over the batch.
        log: numbers worth a place in the log, each a mean over the part's samples.
    """

    losses: Tensor
    log: dict[str, float] = field(default_factory=dict)


class Task(Protocol):
    """One learning problem. The engine does not know which one runs.

    Attributes:
        network: the trained module; its parameters are optimised and stored.
        batch_size: samples a step, over all ranks.
        validation_cost: of one `validate`, in training steps; from counts, not clocks, so that a resumed run validates
            when the uninterrupted one would have.
        closing_cost: of what follows the run, likewise.
    """

    batch_size: int
    validation_cost: float
    closing_cost: float

    @property
    def network(self) -> nn.Module: ...

    @property
    def averaged_networks(self) -> Sequence[nn.Module]:
        """Networks of the same form that follow the trained one (averages, teachers)."""
        ...

    def load(self, rng: KeyedRng) -> Any:
        """Read and augment one sample on the CPU; called ahead of the step, from reader threads."""
        ...

    def views(self, samples: Sequence[Any], rngs: Sequence[KeyedRng], device: torch.device) -> Any:
        """The inputs of a step from its samples, on the device."""
        ...

    def before_step(self, step: int, total: int) -> None:
        """What a step depends on beside its samples: how far the run is (temperatures, what is still frozen)."""
        ...

    def step(self, inputs: Any) -> StepResult:
        """The loss of each sample."""
        ...

    def after_step(self, step: int, total: int) -> None:
        """What follows the optimiser's step (weight averages, teachers)."""
        ...

    def validate(self) -> dict[str, float]:
        """Metrics; empty where there is nothing to validate on. `score` is the one to be maximised."""
        ...

    def extra_weights(self) -> dict[str, Tensor]:
        """Tensors beside the network's that a checkpoint needs (averages, teachers, centres), on any device."""
        ...

    def load_extra_weights(self, weights: dict[str, Tensor]) -> None:
        """Take them back."""
        ...

    def keep_best(self) -> None:
        """Write the result files: the last validation was the best so far, or there is none and the run has ended."""
        ...
