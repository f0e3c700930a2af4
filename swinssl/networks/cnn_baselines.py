"""CNN baselines: nnU-Net's plain and residual-encoder UNets, through the same plan, engine and loss as Swin."""

from __future__ import annotations

from typing import Any

from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import Tensor, nn

from swinssl.networks.convolution import guard_convolutions
from swinssl.networks.network_plan import NetworkPlan
from swinssl.networks.normalisation import BatchNorm, InstanceNorm

# nnU-Net's rule: 32 channels, doubled at each stage, at most 320 in 3D; a patch edge of 32 allows five halvings.
STAGES = 6
MOST_FEATURES = 320
RESIDUAL_BLOCKS = (1, 3, 4, 6, 6, 6)


class CnnBaseline(nn.Module):
    """A UNet of dynamic-network-architectures behind the segmentor's interface.

    Args:
        plan: architecture, norm, deep supervision; `preset` `tiny` starts from 16 channels, every other from 32.
    """

    def __init__(self, plan: NetworkPlan, *, in_channels: int, num_outputs: int) -> None:
        super().__init__()
        first = 16 if plan.preset == "tiny" else 32
        shared = {
            "input_channels": in_channels,
            "n_stages": STAGES,
            "features_per_stage": [min(first * 2**i, MOST_FEATURES) for i in range(STAGES)],
            "conv_op": nn.Conv3d,
            "kernel_sizes": 3,
            "strides": [1, *[2] * (STAGES - 1)],
            "num_classes": num_outputs,
            "conv_bias": True,
            "norm_op": BatchNorm if plan.norm == "batch" else InstanceNorm,
            "norm_op_kwargs": {},
            "nonlin": nn.LeakyReLU,
            "nonlin_kwargs": {"inplace": True},
            "deep_supervision": True,
        }
        decoder = {"n_conv_per_stage_decoder": [1 if plan.architecture == "resenc" else 2] * (STAGES - 1)}
        if plan.architecture == "resenc":
            self.unet = ResidualEncoderUNet(n_blocks_per_stage=list(RESIDUAL_BLOCKS), **shared, **decoder)
        else:
            self.unet = PlainConvUNet(n_conv_per_stage=[2] * STAGES, **shared, **decoder)
        guard_convolutions(self.unet)
        self.deep_supervision = plan.deep_supervision
        self.first_names = _first_names(self)
        self.register_state_dict_post_hook(_leave_out_second_names)
        self.register_load_state_dict_pre_hook(_give_second_names)

    def forward(self, image: Tensor, drop_path_draws: Tensor | None = None) -> Tensor | list[Tensor]:
        """Logits as the Swin segmentor's; stochastic depth is the Swin encoder's own and ignored here."""
        self.unet.decoder.deep_supervision = self.deep_supervision and self.training
        out = self.unet(image)
        return out[:3] if isinstance(out, list) else out


def _first_names(network: nn.Module) -> dict[str, str]:
    """Of each tensor that has several names, its first by each of the others.

    The library registers its layers more than once (`conv` and `all_modules.0`, `encoder` and `decoder.encoder`), and a
    weights file holds a tensor once.
    """
    names: dict[int, str] = {}
    seconds = {}
    for name, tensor in network.state_dict(keep_vars=True).items():
        first = names.setdefault(id(tensor), name)
        if first != name:
            seconds[name] = first
    return seconds


def _leave_out_second_names(network: CnnBaseline, weights: dict[str, Any], prefix: str, _: Any) -> None:
    for second in network.first_names:
        weights.pop(prefix + second, None)


def _give_second_names(network: CnnBaseline, weights: dict[str, Any], prefix: str, *_: Any) -> None:
    for second, first in network.first_names.items():
        if prefix + first in weights:
            weights.setdefault(prefix + second, weights[prefix + first])
