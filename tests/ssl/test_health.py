"""Numbers of health, and the warning when features have collapsed."""

from __future__ import annotations

import math

import pytest
import torch

from swinssl.ssl.health import Health


def measure(features):
    health = Health(1, features.shape[1])
    health.observe(features[:, None])
    return health.numbers()


def test_random_directions_are_healthy():
    found = measure(torch.randn(32, 8, generator=torch.Generator().manual_seed(0)))
    assert found["feature_deviation"] == pytest.approx(1, abs=0.1) and found["effective_rank"] > 6


def test_two_directions_have_rank_one_about_their_mean():
    found = measure(torch.eye(2).repeat(20, 4))
    assert found["effective_rank"] == pytest.approx(1.0, abs=1e-3)


def test_alignment_and_uniformity_are_those_of_wang_and_isola():
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    health = Health(2, 2)
    health.observe(torch.stack([torch.stack([a, b]), torch.stack([-a, -a])]))
    found = health.numbers()
    assert found["alignment"] == pytest.approx((2 + 0) / 2)
    assert found["uniformity"] == pytest.approx(math.log(math.exp(-2 * 4)))


def test_it_remembers_the_last_samples_over_a_checkpoint():
    health, resumed = Health(1, 4), Health(1, 4)
    health.observe(torch.randn(50, 1, 4))
    resumed.load_weights({name: tensor.clone() for name, tensor in health.weights().items()})
    for one in (health, resumed):
        one.observe(torch.arange(12.0).view(3, 1, 4) + 1)
    assert health.numbers() == resumed.numbers()


@pytest.mark.parametrize(
    "numbers",
    [
        {"feature_deviation": 1e-4},
        {"feature_deviation": 1.0, "teacher_entropy": 1.0},
        {"teacher_entropy": 0},
        {"teacher_entropy": 0.8, "teacher_information": 1e-4},
    ],
)
def test_a_collapse_is_said_once(numbers, caplog):
    health = Health(1, 4)
    health.observe(torch.randn(20, 1, 4))
    health.watch(numbers, share=0.1)
    assert not caplog.text  # too early to know
    for _ in range(3):
        health.watch(numbers, share=0.5)
    assert caplog.text.count("COLLAPSE") == 1


def test_health_is_passed_over_in_silence(caplog):
    health = Health(1, 4)
    health.observe(torch.randn(20, 1, 4))
    health.watch({**health.numbers(), "teacher_entropy": 0.8, "teacher_information": 0.03}, share=0.9)
    assert not caplog.text
