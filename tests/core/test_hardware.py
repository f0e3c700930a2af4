"""What is said of the machine without torch is what torch says, or nothing."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from swinssl.core import machine as hardware
from swinssl.core.devices import select_device, use_bf16
from swinssl.planning.target_machine import target_machine


def test_it_agrees_with_torch_on_this_machine():
    assert hardware.cpu_has_bf16() in (None, use_bf16(torch.device("cpu"), "auto"))
    if hardware.has_only_cpu():
        assert select_device("auto").type == "cpu"


def test_a_limit_that_torch_was_given_is_left_to_torch(monkeypatch):
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    assert hardware.cpu_has_bf16() is None


@pytest.mark.parametrize(
    ("flags", "has"),
    [
        ({*hardware.AVX512, "avx512_bf16"}, True),
        ({*hardware.AVX512, "amx_bf16"}, True),
        (hardware.AVX512, False),
        ({"avx512f", "avx512_bf16"}, False),
        ({"bf16", "sve"}, False),  # ARM
        (set(), None),
    ],
)
def test_bf16_needs_its_instructions_and_the_kernels_that_use_them(monkeypatch, flags, has):
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    monkeypatch.setattr(hardware, "cpu_name_and_flags", lambda: ("a processor", flags))
    assert hardware.cpu_has_bf16() is has


@pytest.mark.parametrize(
    ("version", "driver", "only_cpu"),
    [
        ("cuda = None\nhip = None\n", True, True),
        ("cuda = '13.0'\nhip = None\n", False, True),
        ("cuda = '13.0'\nhip = None\n", True, False),
        ("cuda = None\nhip = '7.1'\n", False, False),
        (None, False, False),
    ],
)
def test_torch_is_asked_where_its_build_could_find_a_card(monkeypatch, tmp_path, version, driver, only_cpu):
    if version is not None:
        (tmp_path / "version.py").write_text(version)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    )
    monkeypatch.setattr(hardware, "_is_loadable", lambda library: driver)
    assert hardware.has_only_cpu() is only_cpu


def test_a_mac_is_left_to_torch(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not hardware.has_only_cpu()


@pytest.mark.skipif(not hardware.has_only_cpu() or hardware.cpu_has_bf16() is None, reason="torch has to tell here")
def test_planning_for_a_cpu_needs_no_torch():
    code = (
        "import sys; from swinssl.planning import plan_dataset\n"
        "print(plan_dataset.target_machine('auto').bf16, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(target_machine("cpu").bf16), "False"]
