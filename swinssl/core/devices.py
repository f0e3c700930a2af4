"""The device that a command computes on, and sums over the processes that share its work."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from swinssl.core.errors import UserError

Precision = Literal["auto", "fp32", "bf16"]


def select_device(name: str = "auto") -> torch.device:
    """The device of a `--device` flag; `auto` selects CUDA, else MPS, else the CPU.

    Raises:
        UserError: the device is unknown or not available on this machine.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name}: unknown. Give auto, cpu, cuda, cuda:0, cuda:1 ... or mps.") from None
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    available = count.get(device.type, 0)
    if (device.index or 0) >= available:
        found = f"{available} of this kind" if available else "none of this kind"
        raise UserError(f"--device {name}: not available, this machine has {found}. Give --device auto or cpu.")
    return device


def use_bf16(device: torch.device, precision: Precision) -> bool:
    """Whether to compute in bfloat16: if requested, or with `auto` if the hardware has instructions for it."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.backends.cpu.get_cpu_capability().startswith("AVX512") and _cpu_has_bf16()


def autocast(device: torch.device, *, bf16: bool) -> AbstractContextManager:
    """The context in which matrix products and convolutions run in bfloat16, or in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16)


def _cpu_has_bf16() -> bool:
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def several_ranks() -> bool:
    """Whether this process is one of a group that computes a batch together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum over all ranks, on each; its gradient is the sum of the ranks' gradients."""
    return _Sum.apply(values) if several_ranks() else values


class _Sum(torch.autograd.Function):
    """A differentiable all-reduce: each rank's values enter every rank's sum, so the gradients are summed too."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return _reduced(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _reduced(gradients[0])


def _reduced(values: Tensor) -> Tensor:
    summed = values.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(summed)
    return summed
