"""The pretrained network: the encoder, a method's heads and the mask token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from swinssl.networks.swin.encoder import FeatureLevel, SwinEncoder


class Features(NamedTuple):
    """The encoder's maps that heads read.

    Args:
        last_map: (B, 16w, Z/32, Y/32, X/32), the encoder's last map.
        tokens: (B, 8w, Z/16, Y/16, X/16), the output of the fourth stage, or of the merging before it.
        stage3: (B, 4w, Z/8, Y/8, X/8), for pictures.
    """

    last_map: Tensor
    tokens: Tensor
    stage3: Tensor


class PretextNetwork(nn.Module):
    """An encoder with heads.

    Args:
        encoder: the result of pretraining.
        heads: by name; discarded after pretraining.
        masks: whether it learns a mask token.
        feature_level: the map at 1/16 whose tokens the heads read.
    """

    def __init__(
        self, encoder: SwinEncoder, heads: Mapping[str, nn.Module], *, masks: bool, feature_level: FeatureLevel
    ) -> None:
        super().__init__()
        self.encoder, self.heads, self.feature_level = encoder, nn.ModuleDict(heads), feature_level
        self.mask_token: nn.Parameter | None = None
        if masks:
            self.mask_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(encoder.plan.embed_dim), std=0.02))

    def encode(self, images: Tensor, drop_path_draws: Tensor | None = None, *, mask: Tensor | None = None) -> Features:
        """The encoder's maps.

        Args:
            images: (B, C, Z, Y, X).
            drop_path_draws: as the encoder takes them.
            mask: (B, Z/2, Y/2, X/2) booleans, or None.
        """
        maps = self.encoder(
            images, drop_path_draws, mask=mask, mask_token=self.mask_token, feature_level=self.feature_level
        )
        return Features(last_map=maps[4], tokens=maps[5], stage3=maps[2])
