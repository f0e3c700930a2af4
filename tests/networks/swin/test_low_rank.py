"""Low-rank adaptation: nothing changes at the start, little is trained, and the merged network is an ordinary one."""

from __future__ import annotations

import pytest
import torch

from swinssl.networks.architectures import build_network
from swinssl.networks.network_plan import NetworkPlan, SwinEncoderPlan
from swinssl.networks.swin.low_rank import adapt_encoder, merged

PLAN = NetworkPlan(
    decoder="light",
    encoder=SwinEncoderPlan(embed_dim=8, depths=(1, 2, 1, 1), heads=(1, 2, 4, 8), shrink_window=True, drop_path=0.0),
)
RANK = 2


def network():
    torch.manual_seed(0)
    return build_network(PLAN, in_channels=1, num_outputs=3)


@pytest.fixture
def image():
    return torch.randn(2, 1, 32, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def adapted():
    changed = network()
    adapt_encoder(changed.encoder, rank=RANK)
    return changed


def test_it_starts_as_the_pretrained_encoder(adapted, image):
    assert torch.equal(network().eval()(image), adapted.eval()(image))


def test_of_the_encoder_only_the_low_rank_changes_learn(adapted):
    learning = {name for name, p in adapted.encoder.named_parameters() if p.requires_grad}
    assert learning and all(name.endswith((".up", ".down")) for name in learning)
    widths = [8, 16, 16, 32, 64]
    # Rank times (in + out) of qkv, proj, fc1 and fc2.
    expected = sum(RANK * ((1 + 3) + (1 + 1) + (1 + 4) + (4 + 1)) * width for width in widths)
    assert sum(p.numel() for p in adapted.encoder.parameters() if p.requires_grad) == expected
    assert all(p.requires_grad for name, p in adapted.named_parameters() if not name.startswith("encoder."))


def test_the_merged_network_has_the_usual_names_and_the_same_output(adapted, image):
    with torch.no_grad():
        for name, p in adapted.named_parameters():
            if name.endswith(".up"):
                p.normal_(std=0.1)
    whole = merged(adapted)
    assert whole.state_dict().keys() == network().state_dict().keys()
    torch.testing.assert_close(whole.eval()(image), adapted.eval()(image), rtol=0, atol=1e-6)
    change = whole.encoder.stages[1].blocks[0].mlp.fc1.weight - network().encoder.stages[1].blocks[0].mlp.fc1.weight
    assert torch.linalg.matrix_rank(change) == RANK
    assert any(".parametrizations." in name for name in adapted.state_dict()), "the trained one is left as it is"


def test_an_unadapted_network_is_its_own_merged_one():
    plain = network()
    assert merged(plain) is plain
