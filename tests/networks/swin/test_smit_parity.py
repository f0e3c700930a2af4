"""An imported SMIT encoder computes what a plain SMIT forward pass computes on (x, y, z) arrays."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from support import foreign_files
from support.reference_swin import block, layer_norm

from swinssl.networks.checkpoints.encoder_import import import_encoder
from swinssl.networks.checkpoints.foreign_checkpoint import open_checkpoint
from swinssl.networks.swin.encoder import SwinEncoder

# SMIT never shrinks a window: it pads and shifts always, and padded tokens take part.
RULES = SimpleNamespace(window=4, shrink_window=False, legacy_bias_index=False, mask_padding=False)


def smit_forward(state, image):
    """The four normalised stage outputs and the last merged map, read by SMIT's own names; image (B, C, X, Y, Z)."""
    x = F.conv3d(image, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=2)
    x = layer_norm(x.permute(0, 2, 3, 4, 1), state, "patch_embed.norm")
    maps = []
    for stage, (depth, heads) in enumerate(zip(foreign_files.DEPTHS, foreign_files.HEADS, strict=True)):
        for number in range(depth):
            x = block(x, state, f"layers.{stage}.blocks.{number}", RULES, heads, shifted=number % 2 == 1)
        maps.append(layer_norm(x, state, f"norm{stage}"))
        corners = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1), (1, 0, 1), (1, 1, 1)]
        x = torch.cat([x[:, i::2, j::2, k::2] for i, j, k in corners], dim=-1)
        name = f"layers.{stage}.downsample"
        x = layer_norm(x, state, f"{name}.norm") @ state[f"{name}.reduction.weight"].T
    return [m.permute(0, 4, 1, 2, 3) for m in (*maps, x)]


@pytest.mark.parametrize("size", [(64, 64, 64), (96, 32, 64)], ids=["cubic", "not cubic"])
@pytest.mark.parametrize("bias", [False, True], ids=["no qkv bias", "qkv bias"])
def test_every_output_is_smit_s(tmp_path, size, bias):
    torch.save({"student": foreign_files.smit(bias=bias)}, tmp_path / "smit.pt")
    checkpoint = open_checkpoint(tmp_path / "smit.pt")
    source = import_encoder(checkpoint, "smit")
    encoder = SwinEncoder(source.plan, in_channels=1)
    encoder.load_state_dict(source.tensors)
    image = torch.randn(1, 1, *size, generator=torch.Generator().manual_seed(1))  # z, y, x
    with torch.no_grad():
        theirs = smit_forward(checkpoint.tensors, image.transpose(2, 4))
        for a, b in zip(encoder(image), theirs, strict=True):
            # The last map is not normalised: its values are some ten times larger.
            assert (a - b.transpose(2, 4)).abs().max().item() <= 1e-5 * max(1.0, b.abs().max().item())
