"""Pretrained encoders as modules, and the lists of what there is."""

from __future__ import annotations

import pytest
import torch

import swinssl
from swinssl.networks.network_plan import PRESETS

SHIPPED = "tiny_smit_headneck_ct"


def test_the_feature_maps_are_those_of_its_tensors():
    encoder = swinssl.load_encoder(SHIPPED)
    assert not encoder.training
    image = torch.randn(2, 1, 32, 64, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps = encoder(image)
        expected = encoder.swin(image)
    edges = [(16, 32, 16), (8, 16, 8), (4, 8, 4), (2, 4, 2), (1, 2, 1)]
    assert [tuple(m.shape) for m in maps] == [(2, w, *e) for w, e in zip(encoder.info.widths, edges, strict=True)]
    for given, own in zip(maps, expected, strict=True):
        torch.testing.assert_close(given, own, rtol=0, atol=0)
    from safetensors.torch import load_file

    stored = load_file(encoder.info.file)
    for name, tensor in encoder.swin.state_dict().items():
        torch.testing.assert_close(tensor, stored[name].to(tensor.dtype), rtol=0, atol=0)


def test_what_its_file_says():
    (info,) = swinssl.list_encoders()
    assert info == swinssl.load_encoder(SHIPPED).info
    assert (info.name, info.preset, info.channels, info.axis_order) == (SHIPPED, "tiny", 1, "zyx")
    assert info.widths == (16, 32, 64, 128, 256) and info.modality == "CT" and info.licence == "MIT"
    assert info.spacing is not None and info.intensity is not None and info.window == PRESETS["tiny"].window


def test_other_channels():
    encoder = swinssl.load_encoder(SHIPPED, channels=3)
    assert encoder.info.channels == 3
    image = torch.randn(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for one, three in zip(
            swinssl.load_encoder(SHIPPED)(image), encoder(image.expand(-1, 3, -1, -1, -1)), strict=True
        ):
            torch.testing.assert_close(one, three, rtol=1e-4, atol=1e-4)


def test_refusals():
    encoder = swinssl.load_encoder(SHIPPED)
    for shape in ((1, 1, 30, 32, 32), (1, 2, 32, 32, 32), (1, 32, 32, 32)):
        with pytest.raises(ValueError, match=r"expected \(B, 1, Z, Y, X\) with edges that are multiples of 32"):
            encoder(torch.zeros(shape))
    with pytest.raises(swinssl.UserError, match=f"Did you mean {SHIPPED}"):
        swinssl.load_encoder(SHIPPED[:-1])


def test_methods_are_those_with_a_command():
    methods = swinssl.list_methods()
    assert len(methods) == len({method.name for method in methods}) >= 9
    smit = next(method for method in methods if method.name == "smit")
    assert smit.command == "swinssl_pretrain_smit" and smit.summary and smit.options


def test_presets_count_the_parameters_of_their_encoder():
    # The tiny encoder of the package is for one channel.
    tiny = swinssl.list_presets()[0]
    assert tiny.parameters == swinssl.list_encoders()[0].parameters
    assert {preset.name: preset.depths for preset in swinssl.list_presets()} == {
        n: p.depths for n, p in PRESETS.items()
    }
