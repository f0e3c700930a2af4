"""The cost model's counts: exact where they can be known, rising where they must."""

from __future__ import annotations

import math

import pytest

from swinssl.networks.network_plan import NetworkPlan, SwinEncoderPlan, encoder_preset
from swinssl.planning.cost_model import (
    encoder_work,
    network_work,
    padded_tokens,
    step_memory_gb,
    step_seconds_cpu,
    window_edges,
)

CUBE = (64, 64, 64)


def plan(preset: str, decoder: str = "full", **changes: object) -> NetworkPlan:
    return NetworkPlan(preset=preset, decoder=decoder, encoder=encoder_preset(preset), **changes)


SMALL = plan("small", "light")


@pytest.mark.parametrize(
    ("preset", "outputs", "published"),
    [
        # Computed from instantiated networks: specification of the 64.70 M network, and the paper's section 5.7.2.
        ("smit96", 16, 64_700_336),
        ("smit96", 2, 64_699_650),
        ("smits", 16, 276_344_944),
    ],
)
def test_parameters_are_the_published_ones(preset: str, outputs: int, published: int) -> None:
    work = network_work(plan(preset), patch_size=CUBE, in_channels=1, num_outputs=outputs)
    assert work.parameters == published


@pytest.mark.parametrize(
    "network",
    [
        plan("tiny"),
        plan("small", "light"),
        plan("small", deep_supervision=True),
        NetworkPlan(architecture="plainconv"),
        NetworkPlan(architecture="plainconv", preset="tiny"),
        NetworkPlan(architecture="resenc"),
        NetworkPlan(architecture="resenc", preset="tiny"),
    ],
)
def test_parameters_are_those_of_the_built_network(network: NetworkPlan) -> None:
    torch = pytest.importorskip("torch")
    from swinssl.networks.architectures import build_network

    with torch.device("meta"):
        built = build_network(network, in_channels=2, num_outputs=5)
    counted = network_work(network, patch_size=CUBE, in_channels=2, num_outputs=5).parameters
    assert counted == sum(p.numel() for p in built.parameters())


def test_tokens_are_padded_to_whole_windows_unless_these_shrink() -> None:
    assert padded_tokens((48, 48, 48), 4, shrink=False) == 48**3
    assert padded_tokens((6, 6, 6), 4, shrink=False) == 8**3
    assert padded_tokens((6, 3, 2), 4, shrink=True) == 8 * 3 * 2
    assert window_edges((6, 3, 2), 4, shrink=True) == (4, 3, 2)


def test_one_block_counts_its_matrix_products() -> None:
    # One block of width C on T unpadded tokens: 12 C^2 T for its linear layers, 2 T N C for attention.
    two = SwinEncoderPlan(embed_dim=16, depths=(2, 2, 2, 2), heads=(1, 2, 4, 8))
    three = two.model_copy(update={"depths": (3, 2, 2, 2)})
    tokens, width, window = 32**3, 16, 64
    more = (
        encoder_work(three, patch_size=CUBE, in_channels=1).products
        - encoder_work(two, patch_size=CUBE, in_channels=1).products
    )
    assert more == 12 * width**2 * tokens + 2 * tokens * window * width


def test_full_resolution_holds_most_of_the_arithmetic_of_the_full_decoder() -> None:
    # The published network's decoder has 94 % of the arithmetic (a statement of the specification). Up blocks whose two
    # kernels are one save 15 % of the convolutions.
    work = network_work(plan("smit96"), patch_size=(96, 96, 96), in_channels=1, num_outputs=16)
    published = work.conv / 0.85
    assert published / (published + work.products) == pytest.approx(0.94, abs=0.005)


def test_arithmetic_equals_what_torch_counts() -> None:
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    from swinssl.networks.architectures import build_network

    network = plan("small", "light")
    # In training the attention is spelled out as matrix products, which the counter sees.
    with torch.device("meta"):
        built = build_network(network, in_channels=1, num_outputs=3).train()
        image = torch.empty(1, 1, 32, 64, 32)
    with FlopCounterMode(display=False) as counter:
        built(image)
    work = network_work(network, patch_size=(32, 64, 32), in_channels=1, num_outputs=3)
    # Two up blocks make one kernel of their two, of all its 4^3 x 3^3 (and 2^3 x 1) products; not once a sample.
    kernels = 64 * 32 * 32 * (4**3 * 3**3 + 2**3) + 32 * 16 * 16 * 4**3 * 3**3
    assert 2 * (work.conv + work.products + kernels) == pytest.approx(counter.get_total_flops(), rel=0.01)


@pytest.mark.parametrize("cost", [step_memory_gb, step_seconds_cpu])
def test_costs_rise_with_everything_that_grows(cost: object) -> None:
    def of(network: NetworkPlan = SMALL, patch=CUBE, batch=2, outputs=3, channels=1) -> float:
        return cost(network, patch_size=patch, batch_size=batch, in_channels=channels, num_outputs=outputs)

    base = of()
    assert of(patch=(64, 64, 96)) > base
    assert of(patch=(64, 96, 64)) == pytest.approx(of(patch=(96, 64, 64)))
    assert of(batch=3) > base
    assert of(outputs=30) > base
    assert of(channels=4) > base
    assert of(plan("tiny")) < base < of(plan("small")) < of(plan("smit96")) < of(plan("smits"))


def test_saved_numbers_grow_with_the_voxels_where_nothing_is_padded() -> None:
    network = plan("smit96")
    work = [network_work(network, patch_size=(e,) * 3, in_channels=1, num_outputs=3).saved for e in (128, 256)]
    assert work[1] == pytest.approx(work[0] * 8, rel=1e-9) and math.isfinite(work[0])
