"""What pretraining puts on the encoder and throws away afterwards."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swinssl.networks.convolution import Conv3d
from swinssl.networks.normalisation import InstanceNorm

Pool = Literal["mean", "token"]

# The encoder's last map has a thirty-second of the image's resolution.
REDUCTION = 32
LEAKY_SLOPE = 0.01
HIDDEN, BOTTLENECK = 2048, 256


class VoxelShuffleHead(nn.Module):
    """One linear layer from each token of the last map to the 32 x 32 x 32 voxels that it stands for (SimMIM, SMIT).

    A matrix product, not the convolution of a kernel of 1 that it also is: on a CPU the gradient of that one, with
    32768 outputs, takes 40 % of a step.

    Args:
        width: of a token.
        channels: of the image.
        mean: intensity, which it starts by painting everywhere. With random weights all features would first become
            alike, the shortest way to less noise in the image; without the mean they would, to brighten it together.
    """

    def __init__(self, width: int, *, channels: int, mean: float = 0.0) -> None:
        super().__init__()
        self.channels = channels
        self.proj = nn.Linear(width, channels * REDUCTION**3)
        nn.init.zeros_(self.proj.weight)
        nn.init.constant_(self.proj.bias, mean)

    def forward(self, last_map: Tensor) -> Tensor:
        """(B, width, Z, Y, X) to (B, channels, 32 Z, 32 Y, 32 X), float32."""
        with torch.autocast(last_map.device.type, enabled=False):
            cells = self.proj(last_map.float().movedim(1, -1))
        batch, z, y, x, _ = cells.shape
        cells = cells.view(batch, z, y, x, self.channels, REDUCTION, REDUCTION, REDUCTION)
        return cells.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(batch, self.channels, *(REDUCTION * n for n in (z, y, x)))


class ConvolutionalDecoder(nn.Module):
    """Five times convolution, instance norm, LeakyReLU and twice the resolution; no skips (SwinUNETR's pretraining).

    Channels: 16w - 8w - 4w - 2w - w - w - image. The last, linear, layer comes before the last interpolation, which
    gives the same numbers and spares w channels at full resolution.

    Args:
        embed_dim: w; the last map has 16 w channels.
        channels: of the image.
        mean: intensity, which it starts by painting everywhere.
    """

    def __init__(self, embed_dim: int, *, channels: int, mean: float = 0.0) -> None:
        super().__init__()
        widths = [embed_dim * factor for factor in (16, 8, 4, 2, 1, 1)]
        self.levels = nn.ModuleList(
            nn.Sequential(
                Conv3d(wide, narrow, kernel_size=3, padding=1), InstanceNorm(narrow), nn.LeakyReLU(LEAKY_SLOPE)
            )
            for wide, narrow in pairwise(widths)
        )
        self.out = Conv3d(widths[-1], channels, kernel_size=1)
        assert self.out.bias is not None
        nn.init.zeros_(self.out.weight)
        nn.init.constant_(self.out.bias, mean)

    def forward(self, last_map: Tensor) -> Tensor:
        """(B, 16w, Z, Y, X) to (B, channels, 32 Z, 32 Y, 32 X), float32."""
        x = last_map
        for level in self.levels[:-1]:
            x = _twice(level(x))
        x = self.levels[-1](x)
        with torch.autocast(x.device.type, enabled=False):
            return _twice(self.out(x.float()))


class TokenNorm(nn.Module):
    """LayerNorm over channels of a map, its voxels as rows."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, feature_map: Tensor) -> Tensor:
        """(B, C, Z, Y, X) to (B, Z * Y * X, C)."""
        return self.norm(feature_map.flatten(2).transpose(1, 2))


class PrototypeHead(nn.Module):
    """Three-layer MLP, then cosine similarities with K prototypes (DINO's head, without batch norm).

    Linear - GELU - linear - GELU - linear - L2 norm - weight-normalised linear without bias, its gain held at 1.

    Source: DINO, arXiv 2104.14294, appendix C; widths 2048, 2048, 256 as there.
    """

    def __init__(self, width: int, *, prototypes: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, BOTTLENECK)
        )
        self.prototypes = nn.Parameter(torch.empty(prototypes, BOTTLENECK))
        for part in self.mlp:
            if isinstance(part, nn.Linear):
                nn.init.trunc_normal_(part.weight, std=0.02)
                nn.init.zeros_(part.bias)
        nn.init.trunc_normal_(self.prototypes, std=0.02)

    def forward(self, rows: Tensor, *, frozen: bool = False) -> Tensor:
        """(..., width) to (..., K) float32, within -1 and 1.

        Args:
            frozen: the prototypes get no gradient.
        """
        embedded = self.mlp(rows)
        with torch.autocast(rows.device.type, enabled=False):
            prototypes = self.prototypes.detach() if frozen else self.prototypes
            return F.normalize(embedded.float(), dim=-1) @ F.normalize(prototypes.float(), dim=-1).T


class PooledHead(nn.Module):
    """The last map as one vector, then linear layers with GELU between.

    Args:
        widths: of the input, of hidden layers, of the output.
        pool: `mean` over the map, or the one `token` that SwinUNETR's public code reads.
        token: its place in the flattened map.
    """

    def __init__(self, *widths: int, pool: Pool = "mean", token: int = 0) -> None:
        super().__init__()
        self.pool, self.token = pool, token
        layers: list[nn.Module] = []
        for wide, narrow in pairwise(widths):
            layers += [nn.GELU()] if layers else []
            layers.append(nn.Linear(wide, narrow))
        self.mlp = nn.Sequential(*layers)

    def forward(self, last_map: Tensor) -> Tensor:
        """(B, C, Z, Y, X) to (B, out)."""
        rows = last_map.flatten(2)
        return self.mlp(rows.mean(2) if self.pool == "mean" else rows[:, :, self.token])


def _twice(feature_map: Tensor) -> Tensor:
    return F.interpolate(feature_map, scale_factor=2, mode="trilinear", align_corners=False)
