"""A whole SwinUNETR in our segmentor gives its logits. Needs tests/requirements-peers.txt for MONAI's own network."""

from __future__ import annotations

import pytest
import torch
from support.peers import NEEDS_MONAI, monai_swin_unetr

from swinssl.core.errors import UserError
from swinssl.networks.architectures import build_network
from swinssl.networks.checkpoints.encoder_import import import_encoder
from swinssl.networks.checkpoints.foreign_checkpoint import open_checkpoint
from swinssl.networks.checkpoints.segmentor_import import import_segmentor

pytestmark = NEEDS_MONAI


def swinunetr(**options):
    """A SwinUNETR whose every weight and running statistic matters."""
    torch.manual_seed(0)
    chosen = {"feature_size": 12, "num_heads": (1, 2, 3, 4), "window_size": 4} | options
    network = monai_swin_unetr().SwinUNETR(2, 3, **chosen).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for name, buffer in network.named_buffers():
            if "running" in name:
                buffer.add_(torch.rand_like(buffer))
    return network


@pytest.fixture
def imported(tmp_path):
    def whole(state):
        torch.save({"state_dict": state}, tmp_path / "fold0.pt")
        checkpoint = open_checkpoint(tmp_path / "fold0.pt")
        return import_segmentor(checkpoint, import_encoder(checkpoint, "monai", merge_order="monai"))

    return whole


@pytest.mark.parametrize("norm", ["instance", ("instance", {"affine": True}), "batch"], ids=str)
def test_the_logits_are_swinunetr_s(imported, norm):
    network = swinunetr(norm_name=norm)
    whole = imported(network.state_dict())
    ours = build_network(whole.plan, in_channels=whole.in_channels, num_outputs=whole.num_outputs).eval()
    ours.load_state_dict(whole.tensors, strict=True)
    image = torch.randn(1, 2, 64, 32, 96, generator=torch.Generator().manual_seed(1))  # z, y, x
    with torch.no_grad():
        theirs = network(image.transpose(2, 4)).transpose(2, 4)
        assert (ours(image) - theirs).abs().max().item() <= 1e-5 * theirs.abs().max().item()
    report = whole.report
    assert set(report.matched) | set(report.adapted) == set(whole.tensors)
    assert (report.missing, report.unexpected) == ((), ())
    assert all(name.endswith("relative_position_index") for name in report.left_out)
    # Norms without scale and offset get 1 and 0, and only they.
    assert bool(report.adapted) == (norm == "instance") and all("norm" in n or ".1." in n for n in report.adapted)


def test_unused_projections_of_old_files_are_left_out(imported):
    # MONAI 0.8 made conv3 and norm3 also where no channels change, and never used them.
    old = {"encoder2.layer.conv3.conv.weight": torch.zeros(12, 12, 1, 1, 1)}
    whole = imported(swinunetr().state_dict() | old)
    assert "encoder2.layer.conv3.conv.weight" in whole.report.left_out and whole.report.unexpected == ()


def test_a_file_without_the_whole_decoder_is_refused(imported):
    state = swinunetr().state_dict()
    with pytest.raises(UserError, match=r"fold0\.pt: holds an encoder and no decoder.*without --whole"):
        imported({n: t for n, t in state.items() if "swinViT" in n})
    with pytest.raises(UserError, match=r"its decoder is not that of a SwinUNETR.*bridge\.conv1\.weight"):
        imported({n: t for n, t in state.items() if "encoder10" not in n})
