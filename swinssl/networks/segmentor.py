"""The Swin segmentor: encoder, bridge, and a convolutional decoder fed by the encoder's maps at every resolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swinssl.networks.convolution import Conv3d, convolve_joined
from swinssl.networks.network_plan import NetworkPlan
from swinssl.networks.normalisation import make_norm
from swinssl.networks.swin.encoder import SwinEncoder

LEAKY_SLOPE = 0.01
# Most channels of the light decoder at full resolution, where the full one spends most of its arithmetic. There it also
# has one convolution instead of a residual block of two: 0.7 of a step's time, and the same Dice after as many steps
# (0.841 and 0.844: hippocampus, tiny preset, 500 steps).
LIGHT_CHANNELS = 16

# Up to here the two kernels of an up block are made one: more channels come with fewer voxels, until making the kernel
# takes longer than it saves.
MOST_CHANNELS_OF_ONE_KERNEL = 96


class SwinSegmentor(nn.Module):
    """Swin encoder with a UNet-like decoder (arXiv 2605.18491, section 5.7.2).

    Args:
        plan: encoder, decoder, norm and deep supervision.
        in_channels: image channels.
        num_outputs: channels of the logits.
    """

    def __init__(self, plan: NetworkPlan, *, in_channels: int, num_outputs: int) -> None:
        super().__init__()
        self.encoder = SwinEncoder(plan.encoder, in_channels=in_channels)
        widths = self.encoder.widths
        light = plan.decoder == "light"
        full = min(LIGHT_CHANNELS, widths[0]) if light else widths[0]
        norm = plan.norm
        top = ConvBlock if light else ResidualBlock
        # Maps that enter the decoder: the image at full resolution, then the encoder's; the one at 1/16 as it is.
        self.skips = nn.ModuleList(
            [
                top(in_channels, full, norm=norm),
                *(ResidualBlock(width, width, norm=norm) for width in widths[:3]),
                nn.Identity(),
            ]
        )
        self.bridge = ResidualBlock(widths[4], widths[4], norm=norm)
        skip_widths = (full, *widths[:4])
        below = (widths[0], *widths[1:])
        self.ups = nn.ModuleList(
            UpBlock(below[level], skip_widths[level], norm=norm, block=top if level == 0 else ResidualBlock)
            for level in reversed(range(5))
        )
        self.head = Conv3d(full, num_outputs, kernel_size=1)
        # Logits at 1/2 and 1/4 for the deep losses.
        self.deep_heads = (
            nn.ModuleList(Conv3d(skip_widths[level], num_outputs, kernel_size=1) for level in (1, 2))
            if plan.deep_supervision
            else None
        )

    def forward(self, image: Tensor, drop_path_draws: Tensor | None = None) -> Tensor | list[Tensor]:
        """Logits of every voxel.

        Args:
            image: (B, C, Z, Y, X), edges multiples of 32.
            drop_path_draws: (B, blocks, 2) uniform in [0, 1) for the encoder's stochastic depth; None drops nothing.

        Returns:
            (B, outputs, Z, Y, X); in training with deep supervision a list of them at 1, 1/2 and 1/4.
        """
        maps = [image, *self.encoder(image, drop_path_draws)]
        x = self.bridge(maps[5])
        by_level: dict[int, Tensor] = {}
        for up, level in zip(self.ups, reversed(range(5)), strict=True):
            x = up(x, self.skips[level](maps[level]))
            by_level[level] = x
        logits = self.head(x)
        if self.deep_heads is None or not self.training:
            return logits
        return [logits, *(head(by_level[level]) for head, level in zip(self.deep_heads, (1, 2), strict=True))]


class ResidualBlock(nn.Module):
    """conv-norm-act-conv-norm, plus the input (projected where channels differ), then act."""

    def __init__(self, channels_in: int, channels_out: int, *, norm: str) -> None:
        super().__init__()
        self.conv1 = Conv3d(channels_in, channels_out, kernel_size=3, padding=1, bias=False)
        self.norm1 = make_norm(norm, channels_out)
        self.conv2 = Conv3d(channels_out, channels_out, kernel_size=3, padding=1, bias=False)
        self.norm2 = make_norm(norm, channels_out)
        self.projection = (
            nn.Sequential(Conv3d(channels_in, channels_out, kernel_size=1, bias=False), make_norm(norm, channels_out))
            if channels_in != channels_out
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        return self._finish(self.conv1(x), self.projection(x))

    def of_joined(self, up: nn.ConvTranspose3d, below: Tensor, skip: Tensor) -> Tensor:
        """The block of `up(below)` and the skip, joined."""
        assert isinstance(self.projection, nn.Sequential)
        projection, norm = self.projection
        assert isinstance(projection, Conv3d)
        shortcut = norm(convolve_joined(projection, up, below, skip))
        return self._finish(convolve_joined(self.conv1, up, below, skip), shortcut)

    def _finish(self, first: Tensor, shortcut: Tensor) -> Tensor:
        out = F.leaky_relu(self.norm1(first), LEAKY_SLOPE, inplace=True)
        return F.leaky_relu(self.norm2(self.conv2(out)).add_(shortcut), LEAKY_SLOPE, inplace=True)


class ConvBlock(nn.Module):
    """conv-norm-act."""

    def __init__(self, channels_in: int, channels_out: int, *, norm: str) -> None:
        super().__init__()
        self.conv = Conv3d(channels_in, channels_out, kernel_size=3, padding=1, bias=False)
        self.norm = make_norm(norm, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return self._finish(self.conv(x))

    def of_joined(self, up: nn.ConvTranspose3d, below: Tensor, skip: Tensor) -> Tensor:
        """The block of `up(below)` and the skip, joined."""
        return self._finish(convolve_joined(self.conv, up, below, skip))

    def _finish(self, first: Tensor) -> Tensor:
        return F.leaky_relu(self.norm(first), LEAKY_SLOPE, inplace=True)


class UpBlock(nn.Module):
    """Double the resolution by transposed convolution, concatenate the skip, then `block`."""

    def __init__(
        self, channels_below: int, channels_skip: int, *, norm: str, block: type[ConvBlock] | type[ResidualBlock]
    ) -> None:
        super().__init__()
        self.up = nn.ConvTranspose3d(channels_below, channels_skip, kernel_size=2, stride=2, bias=False)
        self.block = block(2 * channels_skip, channels_skip, norm=norm)
        self.one_kernel = channels_below <= MOST_CHANNELS_OF_ONE_KERNEL

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:
        if self.one_kernel:
            return self.block.of_joined(self.up, below, skip)
        return self.block(torch.cat((self.up(below), skip), dim=1))
