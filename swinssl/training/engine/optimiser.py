"""AdamW with weight decay where it belongs, and a pretrained encoder's own pace: later, slower, early layers least."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

BLOCK = re.compile(r"encoder\.stages\.(\d+)\.blocks\.(\d+)\.")
STAGE = re.compile(r"encoder\.(?:stages|norms)\.(\d+)\.")
BIAS_TABLE = "relative_position_bias_table"


@dataclass(frozen=True)
class EncoderLrSchedule:
    """How a pretrained encoder learns beside the rest of the network.

    Args:
        scale: factor of its learning rate.
        layer_decay: factor from each layer to the one before it (ELECTRA, BEiT); the last block has it once.
        first_step: step in which it begins to learn.
    """

    scale: float = 1.0
    layer_decay: float = 1.0
    first_step: int = 0


AS_THE_REST = EncoderLrSchedule()


def make_optimiser(
    network: nn.Module, *, learning_rate: float, weight_decay: float, encoder_lr: EncoderLrSchedule = AS_THE_REST
) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; norms, biases and relative position tables are not decayed.

    Args:
        network: a pretrained encoder is its `encoder`.
        learning_rate: of the rest of the network.
        weight_decay: on weight matrices and kernels.
        encoder_lr: of the encoder.
    """
    depths = _depths(network)
    members: dict[tuple[float, bool, int], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        scale, first_step = 1.0, 0
        if name.startswith("encoder."):
            scale = encoder_lr.scale * encoder_lr.layer_decay ** (sum(depths) + 1 - _layer(name, depths))
            first_step = encoder_lr.first_step
        decayed = parameter.ndim > 1 and not name.endswith(BIAS_TABLE)
        members.setdefault((scale, decayed, first_step), []).append(parameter)
    groups = [
        {
            "params": parameters,
            "weight_decay": weight_decay if decayed else 0.0,
            "lr_scale": scale,
            "first_step": first_step,
        }
        for (scale, decayed, first_step), parameters in members.items()
    ]
    # foreach on every device: the fused kernel differs between devices in which states it keeps.
    return torch.optim.AdamW(groups, lr=learning_rate, foreach=True)


def set_lr(optimiser: torch.optim.Optimizer, *, learning_rate: float, step: int) -> None:
    """Give each group its learning rate in `step`; what is not to learn yet gets no gradient, which saves its time."""
    for group in optimiser.param_groups:
        group["lr"] = learning_rate * group["lr_scale"]
        learns = step >= group["first_step"]
        for parameter in group["params"]:
            parameter.requires_grad_(learns)


def _depths(network: nn.Module) -> Sequence[int]:
    """Blocks of each stage of the network's Swin encoder; none where it has no such encoder."""
    plan = getattr(getattr(network, "encoder", None), "plan", None)
    return () if plan is None else plan.depths


def _layer(name: str, depths: Sequence[int]) -> int:
    """0 for the patch embedding, then one a block; merging and norms count as their stage's last block."""
    if block := BLOCK.match(name):
        return sum(depths[: int(block[1])]) + int(block[2]) + 1
    if stage := STAGE.match(name):
        return sum(depths[: int(stage[1]) + 1])
    return 0


def cosine_with_warm_up(step: int, total: int, *, warm_up: float) -> float:
    """Factor of the peak learning rate at `step` of `total` (from 0).

    Rises linearly over the first `warm_up` share of the run, never from exactly 0, then falls as half a cosine to 0.
    """
    rising = round(warm_up * total)
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1.0 + math.cos(math.pi * (step - rising) / max(total - rising, 1)))
