"""From a network plan to a network: the one place that knows all architectures."""

from __future__ import annotations

from torch import nn

from swinssl.networks.network_plan import NetworkPlan


def build_network(plan: NetworkPlan, *, in_channels: int, num_outputs: int) -> nn.Module:
    """The segmentor of a plan, freshly initialised from torch's global generator.

    Its forward takes (B, C, Z, Y, X), optionally the draws of stochastic depth, and gives logits (B, outputs, Z, Y, X);
    in training with deep supervision a list of them, the full resolution first.
    """
    if plan.architecture == "swin":
        from swinssl.networks.segmentor import SwinSegmentor

        return SwinSegmentor(plan, in_channels=in_channels, num_outputs=num_outputs)
    from swinssl.networks.cnn_baselines import CnnBaseline

    return CnnBaseline(plan, in_channels=in_channels, num_outputs=num_outputs)
