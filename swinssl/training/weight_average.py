"""An exponential moving average of weights, for validation and prediction."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


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

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move the average towards the network's weights after step number `step` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averaged, current = self.network.state_dict(), network.state_dict()
        floating = [name for name, tensor in current.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([averaged[n] for n in floating], [current[n] for n in floating], 1.0 - decay)
        for name in current.keys() - set(floating):
            averaged[name].copy_(current[name])

    def weights(self) -> dict[str, Tensor]:
        return self.network.state_dict()

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        self.network.load_state_dict(weights)
