"""The architectures: one table, from which names, help texts, checks and the builder derive.

No torch here, so that commands start fast: a network's module is imported when it is built.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from swinssl.core.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from swinssl.networks.network_plan import NetworkPlan


@dataclass(frozen=True)
class Architecture:
    """One value of `--network`.

    Args:
        purpose: what it is, in a few words, for help texts and plans.
        network: `module:Class`; called with the plan, `in_channels` and `num_outputs`.
        swin_encoder: it has a Swin encoder, which can start from pretrained weights.
        requires: package that it needs and that an installation may lack.
    """

    purpose: str
    network: str
    swin_encoder: bool = False
    requires: str | None = None


ARCHITECTURES: Mapping[str, Architecture] = {
    "swin": Architecture("the Swin segmentor of SMIT", "swinssl.networks.segmentor:SwinSegmentor", swin_encoder=True),
    "plainconv": Architecture(
        "nnU-Net's plain UNet",
        "swinssl.networks.cnn_baselines:CnnBaseline",
        requires="dynamic-network-architectures",
    ),
    "resenc": Architecture(
        "nnU-Net's residual-encoder UNet",
        "swinssl.networks.cnn_baselines:CnnBaseline",
        requires="dynamic-network-architectures",
    ),
}
DEFAULT = "swin"
HELP = f"Architecture: {'; '.join(f'{name}, {row.purpose}' for name, row in ARCHITECTURES.items())}."


def build_network(plan: NetworkPlan, *, in_channels: int, num_outputs: int) -> nn.Module:
    """Build the segmentor of a plan, initialised from torch's global generator.

    Its forward takes an image (B, C, Z, Y, X) and optionally the draws of stochastic depth. It returns logits
    (B, outputs, Z, Y, X); in training with deep supervision a list of them, full resolution first.

    Raises:
        UserError: the architecture needs a package that is not installed.
    """
    row = ARCHITECTURES[plan.architecture]
    module, _, name = row.network.partition(":")
    try:
        network_class = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if row.requires is None or missing != row.requires.replace("-", "_"):
            raise
        raise UserError(
            f"--network {plan.architecture}: needs the package {row.requires}, which is not installed. "
            f"Run: pip install {row.requires}"
        ) from error
    network: nn.Module = network_class(plan, in_channels=in_channels, num_outputs=num_outputs)
    return network
