"""The decoders' convolutions are torch's, whatever computes them, and do not depend on what freed memory held."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest
import torch
from torch import nn

from swinssl.networks.convolution import Conv3d, convolve_joined, guard_convolutions

GRADIENTS = """
import torch
from swinssl.networks.architectures import build_network
from swinssl.networks.network_plan import NetworkPlan, encoder_preset

torch.set_num_threads(1)
for architecture in ("swin", "plainconv"):
    torch.manual_seed(0)
    plan = NetworkPlan(architecture=architecture, preset="tiny", decoder="light", encoder=encoder_preset("tiny"))
    network = build_network(plan, in_channels=1, num_outputs=2).train().to(memory_format=torch.channels_last_3d)
    image = torch.rand(2, 1, 32, 64, 32).to(memory_format=torch.channels_last_3d)
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(image)
    logits.float().square().mean().backward()
    print(*(float(p.grad.double().norm()) for p in network.parameters() if p.grad is not None))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can fill freed memory with a pattern")
def test_gradients_do_not_depend_on_what_freed_memory_held():
    # The patterns make numbers of 1e38 of memory that nobody wrote.
    outputs = []
    for pattern in ("3", "200"):
        environment = {**os.environ, "MALLOC_PERTURB_": pattern}
        done = subprocess.run([sys.executable, "-c", GRADIENTS], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        outputs.append([float(number) for number in done.stdout.split()])
    assert len(outputs[0]) > 200
    assert outputs[0] == outputs[1] and max(outputs[0]) < 1e3


def test_is_torch_s_convolution_and_float32_for_maps_of_depth_2():
    ours = Conv3d(3, 4, kernel_size=3, padding=1)
    theirs = nn.Conv3d(3, 4, kernel_size=3, padding=1)
    theirs.load_state_dict(ours.state_dict())
    for depth, dtype in ((1, torch.bfloat16), (2, torch.float32), (3, torch.bfloat16)):
        image = torch.randn(1, 3, depth, 5, 6)
        assert torch.equal(ours(image), theirs(image))
        with torch.autocast("cpu", torch.bfloat16):
            assert ours(image).dtype == dtype


def calls_of(name, monkeypatch):
    """The arguments of every later call of a function of torch, which is still called."""
    calls, own = [], getattr(torch, name)
    monkeypatch.setattr(torch, name, lambda *given: calls.append(given) or own(*given))
    return calls


@pytest.mark.parametrize(
    "settings",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 3, "padding": 1, "bias": False},
        {"kernel_size": (3, 1, 2), "padding": (1, 0, 2), "stride": (1, 2, 3), "dilation": (2, 1, 1), "groups": 2},
    ],
    ids=["bias", "no bias", "strided"],
)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d], ids=str)
def test_a_window_of_a_prediction_is_given_to_onednn(settings, memory_format, monkeypatch):
    torch.manual_seed(0)
    convolution = Conv3d(4, 6, **settings)
    image = torch.randn(1, 4, 8, 9, 10).contiguous(memory_format=memory_format)
    calls = calls_of("mkldnn_convolution", monkeypatch)
    with torch.inference_mode():
        out = convolution(image)
        assert len(calls) == 1
        expected = nn.Conv3d.forward(convolution.double(), image.double())
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)
    assert out.is_contiguous(memory_format=memory_format)


def test_onednn_is_asked_where_torch_itself_would_not_choose_it_better(monkeypatch):
    convolution, image = Conv3d(2, 2, kernel_size=3, padding=1), torch.randn(1, 2, 4, 4, 4)
    calls = calls_of("mkldnn_convolution", monkeypatch)
    assert convolution(image).requires_grad  # trained: the way back would be torch's own
    with torch.no_grad():
        convolution(torch.cat((image, image)))  # a batch: torch chooses oneDNN itself
        convolution.double()(image.double())
        convolution.float()
        with torch.autocast("cpu", torch.bfloat16):
            convolution(image)
        with monkeypatch.context() as without:
            without.setattr(torch.backends.mkldnn, "is_available", lambda: False)
            convolution(image)
        assert not calls
        convolution(image)
        assert len(calls) == 1


def gradients(outputs, *inputs):
    weights = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(3), dtype=outputs.dtype)
    return torch.autograd.grad((outputs * weights).sum(), inputs)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_a_matrix_product_is_the_convolution_of_one_voxel(bias):
    torch.manual_seed(0)
    ours = Conv3d(5, 7, kernel_size=1, bias=bias).double()
    image = torch.randn(2, 5, 3, 4, 6).double().requires_grad_()
    last = image.contiguous(memory_format=torch.channels_last_3d)
    out, expected = ours(last), nn.Conv3d.forward(ours, image)
    assert out.is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(out, expected)
    for found, wanted in zip(
        gradients(out, image, *ours.parameters()), gradients(expected, image, *ours.parameters()), strict=True
    ):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d], ids=str)
@pytest.mark.parametrize("kernel", [1, 3])
def test_up_join_and_convolve_are_one_kernel(kernel, memory_format):
    torch.manual_seed(0)
    up = nn.ConvTranspose3d(6, 4, kernel_size=2, stride=2, bias=False).double()
    convolution = Conv3d(4 + 3, 5, kernel_size=kernel, padding=kernel // 2).double()
    below = torch.randn(2, 6, 2, 3, 4).double().to(memory_format=memory_format).requires_grad_()
    skip = torch.randn(2, 3, 4, 6, 8).double().to(memory_format=memory_format).requires_grad_()
    inputs = (below, skip, up.weight, convolution.weight, convolution.bias)
    out = convolve_joined(convolution, up, below, skip)
    expected = nn.Conv3d.forward(convolution, torch.cat((up(below), skip), dim=1))
    torch.testing.assert_close(out, expected)
    for found, wanted in zip(gradients(out, *inputs), gradients(expected, *inputs), strict=True):
        torch.testing.assert_close(found, wanted)


def test_guarding_keeps_weights_and_names():
    module = nn.Sequential(nn.Conv3d(1, 2, 3), nn.ConvTranspose3d(2, 2, 2), nn.Sequential(nn.Conv3d(2, 2, 1)))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    guard_convolutions(module)
    assert [type(part) for part in (module[0], module[1], module[2][0])] == [Conv3d, nn.ConvTranspose3d, Conv3d]
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
