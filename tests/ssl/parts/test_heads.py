"""Heads: shapes, the order of voxels, and what the cheaper order of layers must not change."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from swinssl.ssl.parts.heads import ConvolutionalDecoder, PooledHead, TokenNorm, VoxelShuffleHead


def test_each_token_paints_its_own_32_voxels_cube():
    head = VoxelShuffleHead(4, channels=2)
    torch.nn.init.normal_(head.proj.weight)  # it starts from zero
    last_map = torch.randn(1, 4, 1, 2, 3)
    image = head(last_map)
    assert image.shape == (1, 2, 32, 64, 96)
    changed = last_map.clone()
    changed[0, :, 0, 1, 2] += 1.0
    z, y, x = ((head(changed) - image).abs().sum((0, 1)) > 0).nonzero(as_tuple=True)
    assert z.min() >= 0 and y.min() == 32 and x.min() == 64 and (y.max(), x.max()) == (63, 95)


def test_voxels_of_a_cube_are_the_layer_s_outputs_in_z_y_x_order():
    head = VoxelShuffleHead(4, channels=2)
    torch.nn.init.normal_(head.proj.weight)
    last_map = torch.randn(1, 4, 1, 1, 1)
    flat = head.proj(last_map.flatten())
    torch.testing.assert_close(head(last_map)[0], flat.view(2, 32, 32, 32))


@pytest.mark.parametrize("painter", [VoxelShuffleHead, ConvolutionalDecoder])
def test_painters_start_from_the_mean_intensity(painter):
    head = painter(16 if painter is VoxelShuffleHead else 1, channels=2, mean=0.3)
    assert (head(torch.randn(2, 16, 1, 2, 1)) == torch.tensor(0.3)).all()


def test_the_decoder_gives_the_same_with_its_last_layer_at_full_resolution():
    decoder = ConvolutionalDecoder(4, channels=2)
    torch.nn.init.normal_(decoder.out.weight)  # it starts from zero
    x = last_map = torch.randn(2, 64, 1, 2, 2)
    for level in decoder.levels:
        x = F.interpolate(level(x), scale_factor=2, mode="trilinear", align_corners=False)
    assert x.shape == (2, 4, 32, 64, 64)
    torch.testing.assert_close(decoder(last_map), decoder.out(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("pool", "token"), [("mean", 0), ("token", 3)])
def test_a_pooled_head_reads_the_mean_or_one_token(pool, token):
    head, last_map = PooledHead(5, 7, 3, pool=pool, token=token), torch.randn(2, 5, 2, 2, 2)
    read = last_map.mean((2, 3, 4)) if pool == "mean" else last_map[:, :, 0, 1, 1]
    expected = head.mlp[2](F.gelu(head.mlp[0](read)))
    torch.testing.assert_close(head(last_map), expected)


def test_tokens_are_normalised_over_channels():
    rows = TokenNorm(16)(3 + 2 * torch.randn(2, 16, 2, 2, 2))
    assert rows.shape == (2, 8, 16)
    torch.testing.assert_close(rows.mean(-1), torch.zeros(2, 8), atol=1e-5, rtol=0)
    torch.testing.assert_close(rows.var(-1, unbiased=False), torch.ones(2, 8), atol=1e-3, rtol=0)
