"""The machine that a plan is made for: its device, memory and cores."""

from __future__ import annotations

from dataclasses import dataclass

from swinssl.core.machine import cpu_has_bf16, free_memory, has_only_cpu, usable_cores
from swinssl.core.text import counted

# Of what is free or built in, a plan uses this share: other programs, fragmentation, and the model's own error.
USABLE_SHARE = {"cpu": 0.6, "cuda": 0.85, "mps": 0.6}


@dataclass(frozen=True)
class TargetMachine:
    """What a plan has to fit into.

    Args:
        device: where training runs.
        memory_gb: free memory (CPU, MPS) or built-in memory (CUDA) in 10^9 bytes.
        cores: CPU cores that this process may use.
        bf16: whether it computes in bfloat16.
    """

    device: str
    memory_gb: float
    cores: int = 2
    bf16: bool = True

    @property
    def on_cpu(self) -> bool:
        """Whether training runs on the CPU, where time decides."""
        return self.device == "cpu"

    @property
    def usable_gb(self) -> float:
        """Memory that a training step may take."""
        return USABLE_SHARE[self.device] * self.memory_gb

    def __str__(self) -> str:
        if self.on_cpu:
            return f"CPU with {counted(self.cores, 'core')} and {self.memory_gb:.3g} GB free"
        return f"{self.device} device with {self.memory_gb:.3g} GB"


def target_machine(device: str = "auto", *, gpu_memory: float | None = None) -> TargetMachine:
    """The machine of `--device`, or a GPU of `gpu_memory` GB that need not be here.

    Raises:
        UserError: the device is not on this machine.
    """
    cores = usable_cores()
    if gpu_memory is not None:
        return TargetMachine("cuda", gpu_memory, cores)
    if device == "cpu" or (device == "auto" and has_only_cpu()):
        bf16 = cpu_has_bf16()
        if bf16 is not None:
            return TargetMachine("cpu", free_memory() / 1e9, cores, bf16)
    import torch

    from swinssl.core.devices import select_device, use_bf16

    chosen = select_device(device)
    bf16 = use_bf16(chosen, "auto")
    if chosen.type == "cuda":
        return TargetMachine("cuda", torch.cuda.get_device_properties(chosen).total_memory / 1e9, cores, bf16)
    return TargetMachine(chosen.type, free_memory() / 1e9, cores, bf16)
