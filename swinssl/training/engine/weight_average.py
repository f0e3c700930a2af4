"""An exponential moving average of weights, for validation and prediction."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from swinssl.training.engine.sharding import own_part


class WeightAverage:
    """Average of a network's weights and running statistics over the steps (Polyak; as in Mean Teacher).

    Args:
        network: the network that is trained.
        decay: weight of the past; early on it is smaller, (1 + step) / (10 + step), so that the random start is
            forgotten quickly.
    """

    def __init__(self, network: nn.Module, *, decay: float) -> None:
        self.decay = decay
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    def update(self, network: nn.Module, step: int) -> None:
        """Move the average towards the network's weights after step number `step` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        move_towards(self.network, network, 1.0 - decay)

    def weights(self) -> dict[str, Tensor]:
        return self.network.state_dict()

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        self.network.load_state_dict(weights)


@torch.no_grad()
def move_towards(averaged: nn.Module, current: nn.Module, share: float) -> None:
    """Move a network's weights and running statistics by `share` of the way towards another's of the same names.

    Args:
        averaged: may lack parts of `current`; counters, which have no middle, are copied.
    """
    average, latest = averaged.state_dict(), current.state_dict()
    floating = [name for name, tensor in average.items() if tensor.is_floating_point()]
    torch._foreach_lerp_([own_part(average[n]) for n in floating], [own_part(latest[n]) for n in floating], share)
    for name in average.keys() - set(floating):
        average[name].copy_(latest[name])
