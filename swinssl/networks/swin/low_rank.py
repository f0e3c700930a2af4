"""Low-rank adaptation (LoRA, arXiv 2106.09685): a pretrained encoder learns few numbers, W + B A a linear layer."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from swinssl.networks.swin.encoder import SwinBlock, SwinEncoder


class LowRank(nn.Module):
    """W + B A, with B zero at the start.

    Args:
        weight: (out, in) that is adapted.
        rank: columns of B and rows of A.
    """

    def __init__(self, weight: Tensor, *, rank: int) -> None:
        super().__init__()
        out_features, in_features = weight.shape
        # A change grows with 1 / sqrt(in), as that of a layer with PyTorch's initial weights.
        self.down = nn.Parameter(torch.empty(rank, in_features).uniform_(-1, 1) * in_features**-0.5)
        self.up = nn.Parameter(torch.zeros(out_features, rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down


def adapt_encoder(encoder: SwinEncoder, *, rank: int) -> None:
    """Freeze an encoder but for low-rank changes of its blocks' attention and MLP; in place."""
    encoder.requires_grad_(False)
    for block in encoder.modules():
        if isinstance(block, SwinBlock):
            linears: list[nn.Linear] = [block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2]
            for linear in linears:
                parametrize.register_parametrization(linear, "weight", LowRank(linear.weight, rank=rank))


def merged(network: nn.Module) -> nn.Module:
    """The network with the changes added to its weights, under their usual names; itself where there are none."""
    if not any(parametrize.is_parametrized(module) for module in network.modules()):
        return network
    whole = copy.deepcopy(network)
    for module in list(whole.modules()):
        if parametrize.is_parametrized(module, "weight"):
            # torch's own removal would also take the weight from the class, which the copy shares with the original.
            weight = cast(Tensor, module.weight).detach()
            module.__class__ = parametrize.type_before_parametrizations(module)
            del module.parametrizations
            module.weight = nn.Parameter(weight)
    return whole
