"""The 3D convolution of the decoders: torch's, kept away from a fault of its bfloat16 kernels on CPUs."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Conv3d(nn.Conv3d):
    """A convolution that computes maps of depth 2 in float32 on a CPU.

    There the weight gradient of a 3 x 3 x 3 convolution in bfloat16 reads memory that nobody wrote (torch 2.13, oneDNN;
    seen with every map of depth 2 and with no other of depth 1 to 16). It is multiplied by zero, which goes well until
    it holds an infinity: then the gradient is NaN. Maps of depth 2 are small, so float32 costs nothing there.
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.shape[2] != 2 or input.device.type != "cpu" or self.kernel_size[0] == 1:
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.to(self.weight.dtype))


def guard_convolutions(module: nn.Module) -> None:
    """Make every plain `nn.Conv3d` in a module of another library one of ours; weights and names stay."""
    for part in module.modules():
        if type(part) is nn.Conv3d:
            part.__class__ = Conv3d
