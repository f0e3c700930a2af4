"""AdamW with weight decay where it belongs."""

from __future__ import annotations

import torch
from torch import nn


def make_optimiser(network: nn.Module, *, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; norms, biases and relative position tables are not decayed."""
    trainable = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    plain = [p for name, p in trainable if p.ndim <= 1 or name.endswith("relative_position_bias_table")]
    plain_ids = {id(p) for p in plain}
    decayed = [p for _, p in trainable if id(p) not in plain_ids]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    # foreach on every device: the fused kernel differs between devices in which states it keeps.
    return torch.optim.AdamW(groups, lr=learning_rate, foreach=True)
