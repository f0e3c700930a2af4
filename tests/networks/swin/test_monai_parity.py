"""Imported MONAI encoders compute what MONAI computes; exported ones too. Needs tests/requirements-peers.txt."""

from __future__ import annotations

import pytest
import torch
from support.peers import NEEDS_MONAI, monai_swin_unetr

from swinssl.networks.checkpoints.encoder_export import export_to_monai
from swinssl.networks.checkpoints.encoder_import import import_encoder
from swinssl.networks.checkpoints.foreign_checkpoint import open_checkpoint
from swinssl.networks.network_plan import SwinEncoderPlan
from swinssl.networks.swin.encoder import SwinEncoder

pytestmark = NEEDS_MONAI


def legacy_merging():
    """`merging` as it was up to MONAI 1.4: the fifth to seventh neighbours are 101, 010 and 001 (MONAI issue 7324)."""

    class LegacyMerging(monai_swin_unetr().PatchMergingV2):
        def forward(self, x):
            corners = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 0), (0, 0, 1), (1, 1, 1)]
            return self.reduction(self.norm(torch.cat([x[:, i::2, j::2, k::2] for i, j, k in corners], -1)))

    return LegacyMerging


DOWNSAMPLE = {"monai": lambda: "merging", "lexicographic": lambda: "mergingv2", "monai_legacy": legacy_merging}
SIZES = {"cubic": (64, 64, 64), "not cubic": (32, 64, 96)}


def monai_network(*, order="monai", seed=0, channels=1, **options):
    """A SwinUNETR whose every weight matters: nothing is left at 0 or 1."""
    chosen = {"feature_size": 12, "num_heads": (1, 2, 3, 4), "depths": (2, 2, 2, 2), "window_size": 7} | options
    torch.manual_seed(seed)
    network = monai_swin_unetr().SwinUNETR(channels, 3, downsample=DOWNSAMPLE[order](), **chosen)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def imported(network, folder, *, order="monai"):
    path = folder / "monai.pt"
    torch.save({"state_dict": network.state_dict()}, path)
    checkpoint = open_checkpoint(path)
    return import_encoder(checkpoint, "monai", merge_order=order)


def encoder_of(imported_encoder):
    encoder = SwinEncoder(imported_encoder.plan, in_channels=imported_encoder.in_channels)
    encoder.load_state_dict(imported_encoder.tensors)
    return encoder


def noise(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def turned(volume):
    """(B, C, Z, Y, X) to (B, C, X, Y, Z), which is what MONAI's users give their networks, and back."""
    return volume.transpose(2, 4)


def worst_difference(ours, theirs):
    return max((a - turned(b)).abs().max().item() for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("window", [4, 7])
@pytest.mark.parametrize("order", DOWNSAMPLE)
def test_every_output_is_monai_s(tmp_path, size, window, order):
    network = monai_network(order=order, window_size=window)
    encoder, image = encoder_of(imported(network, tmp_path, order=order)), noise(1, 1, *size)
    with torch.no_grad():
        theirs = network.swinViT(turned(image), normalize=True)
        assert worst_difference(encoder(image), theirs) <= 1e-5
    assert worst_difference(encoder(image), theirs) <= 1e-5  # as in training


@pytest.mark.parametrize(
    "options",
    [
        {"depths": (1, 3, 4, 1), "num_heads": (2, 2, 4, 8), "window_size": 4},
        {"feature_size": 24, "num_heads": (3, 6, 12, 24)},
        {"patch_norm": True},
        {"qkv_bias": False},
        {"channels": 4},
        {"window_size": 6},
    ],
    ids=str,
)
def test_every_form_is_monai_s(tmp_path, options):
    network = monai_network(**options)
    encoder, image = encoder_of(imported(network, tmp_path)), noise(2, options.get("channels", 1), 32, 32, 96)
    with torch.no_grad():
        assert worst_difference(encoder(image), network.swinViT(turned(image), normalize=True)) <= 1e-5


@pytest.mark.parametrize(("window", "order"), [(4, "monai"), (7, "monai_legacy"), (7, "lexicographic")])
def test_gradients_are_monai_s(tmp_path, window, order):
    network = monai_network(order=order, window_size=window)
    source = imported(network, tmp_path, order=order)
    encoder, image = encoder_of(source), noise(2, 1, 32, 64, 32)
    for maps in (encoder(image), [turned(m) for m in network.swinViT(turned(image), normalize=True)]):
        sum((m * noise(*m.shape, seed=i)).sum() for i, m in enumerate(maps)).backward()
    theirs = dict(network.swinViT.named_parameters())
    for name, parameter in encoder.named_parameters():
        wanted = theirs[source.names[name]].grad
        assert wanted.norm() > 0
        error = ((parameter.grad - wanted).norm() / wanted.norm()).item()
        assert error <= 1e-4, f"{name}: {error}"


def test_the_wrong_merge_order_computes_something_else(tmp_path):
    network, image = monai_network(order="monai_legacy"), noise(1, 1, 64, 64, 64)
    wrong = encoder_of(imported(network, tmp_path, order="monai"))
    with torch.no_grad():
        assert worst_difference(wrong(image), network.swinViT(turned(image), normalize=True)) > 0.1


OURS = SwinEncoderPlan(
    embed_dim=12,
    depths=(2, 1, 2, 2),
    heads=(1, 2, 3, 4),
    qkv_bias=True,
    skip_norm="plain",
    skip_taps="merge",
    shrink_window=True,
    legacy_bias_index=True,
)


@pytest.mark.parametrize(
    "plan",
    [
        OURS.model_copy(update={"merge_order": "smit"}),
        OURS.model_copy(update={"merge_order": "monai", "window": 7, "patch_norm": False, "axis_order": "xyz"}),
        OURS.model_copy(update={"merge_order": "lexicographic", "qkv_bias": False}),
    ],
    ids=["SMIT's merge order", "as MONAI", "mergingv2"],
)
def test_an_exported_encoder_computes_the_same_in_monai(plan):
    torch.manual_seed(0)
    encoder, image = SwinEncoder(plan, in_channels=2), noise(1, 2, 64, 32, 64)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    exported = export_to_monai(encoder.state_dict(), plan)
    assert exported.differences == () and exported.left_out == ()
    network = monai_swin_unetr().SwinUNETR(out_channels=3, **exported.arguments)
    report = network.load_state_dict(exported.tensors, strict=False)
    assert report.unexpected_keys == [] and not any("swinViT" in name for name in report.missing_keys)
    turn = turned if plan.axis_order == "xyz" else lambda volume: volume
    with torch.no_grad():
        theirs = network.swinViT(turn(image), normalize=True)
        for a, b in zip(encoder(image), theirs, strict=True):
            assert (a - turn(b)).abs().max().item() <= 1e-5
