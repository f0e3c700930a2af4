"""The 3D convolutions of the decoders: torch's sums, computed where its kernels are fast and right."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Conv3d(nn.Conv3d):
    """torch's convolution, but fast where its choice of kernels is poor, and one flaw is kept away.

    oneDNN's 1 x 1 x 1 convolution in float32 takes as long as a 3 x 3 x 3 one (96 to 48 channels at 96^3: 1.0 s, the
    product 0.14 s; torch 2.13, one core).

    A small map of one sample, as windows of a prediction are, torch does not give to oneDNN: 16 channels at 32^3 take
    it 84 ms, oneDNN 6 ms (torch 2.13, one core without AVX-512). oneDNN is asked directly where no gradient is wanted,
    which would take torch's own way back.

    The flaw: on a CPU the weight gradient of a 3 x 3 x 3 convolution in bfloat16 reads memory that nobody wrote if the
    map has depth 2 (torch 2.13, oneDNN; no other depth of 1 to 16). It is multiplied by zero, which goes well until it
    holds an infinity: then the gradient is NaN. Maps of depth 2 are small: float32 costs nothing there.
    """

    def forward(self, input: Tensor) -> Tensor:
        return self.apply_weight(input, self.weight, self.bias)

    def apply_weight(self, volume: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution as it is set, with another weight (of as many or fewer input channels)."""
        if weight.shape[2:] == (1, 1, 1) and self.stride == (1, 1, 1) and self.groups == 1 and _channels_last(volume):
            return F.linear(volume.movedim(1, -1), weight.flatten(1), bias).movedim(-1, 1)
        if volume.shape[2] != 2 or volume.device.type != "cpu" or weight.shape[2] == 1:
            return self._convolve(volume, weight, bias)
        with _full_precision(volume.device):
            return self._convolve(volume.to(weight.dtype), weight, bias)

    def _convolve(self, volume: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if len(volume) != 1 or torch.is_grad_enabled() or not _is_for_onednn(volume) or self.padding_mode != "zeros":
            return self._conv_forward(volume, weight, bias)
        assert not isinstance(self.padding, str)
        return torch.mkldnn_convolution(volume, weight, bias, self.padding, self.stride, self.dilation, self.groups)


def convolve_joined(convolution: Conv3d, up: nn.ConvTranspose3d, below: Tensor, skip: Tensor) -> Tensor:
    """`convolution(cat((up(below), skip), dim=1))`, without the map of `up`, its share of the sums and the copy.

    Both are linear and `up` has no bias, so on `below` they are one transposed convolution of stride 2, whose kernel is
    the one convolved with the other: k + 1 wide for a k wide one. Past the edge both see zeros. At k = 3 a voxel takes
    8 products a pair of channels instead of 28.

    Args:
        convolution: odd kernel, stride 1, padded to keep the size; its input channels are those of `up`, then `skip`.
        up: kernel 2, stride 2.
        below: (B, C, Z, Y, X).
        skip: (B, C', 2Z, 2Y, 2X).
    """
    channels, wide = up.out_channels, convolution.kernel_size[0]
    with _full_precision(below.device):
        kernel = F.conv3d(up.weight, convolution.weight[:, :channels], padding=wide - 1)
    of_below = F.conv_transpose3d(below, kernel, stride=2, padding=wide // 2)
    of_skip = convolution.apply_weight(skip, convolution.weight[:, channels:], convolution.bias)
    return of_skip.add_(of_below)


def guard_convolutions(module: nn.Module) -> None:
    """Make every plain `nn.Conv3d` in a module of another library one of ours; weights and names stay."""
    for part in module.modules():
        if type(part) is nn.Conv3d:
            part.__class__ = Conv3d


def _full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Autocast off, where the device has it (a network without memory for its weights does not)."""
    available = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if available else nullcontext()


def _is_for_onednn(volume: Tensor) -> bool:
    if volume.device.type != "cpu" or volume.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return False
    return bool(torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled)


def _channels_last(volume: Tensor) -> bool:
    return volume.is_contiguous(memory_format=torch.channels_last_3d)
