"""Several processes, one batch: ranks under torchrun, each with its part of every batch."""

from __future__ import annotations

import atexit
import datetime
import functools
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from swinssl.core.errors import UserError
from swinssl.training.engine.sharding import is_shard

LOOPBACK = "127.0.0.1"
# Longer than the first rank alone ever predicts or measures.
PATIENCE = datetime.timedelta(days=30)


@dataclass(frozen=True)
class Ranks:
    """This process among all; (0, 1) without torchrun."""

    rank: int = 0
    world: int = 1

    @classmethod
    def join(cls, device: torch.device) -> Ranks:
        """Join the group that torchrun or `--gpus` announced in the environment, if there is one.

        Raises:
            UserError: this machine has fewer GPUs than processes.
        """
        if "WORLD_SIZE" not in os.environ or int(os.environ["WORLD_SIZE"]) == 1:
            return cls()
        if device.type == "cuda":
            _take_gpu(device)
        if not dist.is_initialized():
            _join("nccl" if device.type == "cuda" else "gloo")
            # Its threads must end before Python does: one that asks for the interpreter then aborts the process.
            atexit.register(_leave)
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until all ranks have come here, however long the first one predicts and measures alone."""
        if self.world > 1:
            dist.barrier(_patient_group())

    def shard(self, count: int) -> range:
        """This rank's sample indices of a batch of `count`."""
        return range(self.rank * count // self.world, (self.rank + 1) * count // self.world)

    def sum_gradients(self, module: nn.Module) -> None:
        """Add the gradients of all ranks; each rank's loss is already its share of the batch's mean.

        Those of sharded parameters were added on the way back.
        """
        if self.world == 1:
            return
        gradients = [p.grad for p in module.parameters() if p.grad is not None and not is_shard(p.grad)]
        flat = torch.cat([g.reshape(-1) for g in gradients])
        dist.all_reduce(flat)
        place = 0
        for gradient in gradients:
            gradient.copy_(flat[place : place + gradient.numel()].view_as(gradient))
            place += gradient.numel()

    def broadcast(self, values: Iterable[float]) -> list[float]:
        """The first rank's values on every rank, so that all decide alike."""
        numbers = torch.tensor(list(values), dtype=torch.float64)
        if self.world > 1:
            moved = numbers.to(torch.device("cuda") if dist.get_backend() == "nccl" else torch.device("cpu"))
            dist.broadcast(moved, src=0)
            numbers = moved.cpu()
        return numbers.tolist()

    def broadcast_weights(self, module: nn.Module) -> None:
        """The first rank's weights on every rank."""
        if self.world > 1:
            tensors: list[Tensor] = [*module.parameters(), *module.buffers()]
            for tensor in tensors:
                dist.broadcast(tensor.data, src=0)


@functools.cache
def _patient_group() -> dist.ProcessGroup | None:
    """All ranks; those of the ordinary group give up after minutes."""
    return dist.new_group(backend="gloo", timeout=PATIENCE)


def _join(backend: str) -> None:
    """Join the group that the environment announces, under a name of its own for each attempt of torchrun's.

    torchrun keeps one store for all its restarts, where torch finds the addresses of the processes that died and waits
    for them for ever (torch 2.13, gloo).
    """
    store, rank, world = _local_store() if _all_are_here() else next(rendezvous("env://"))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    dist.init_process_group(backend, store=dist.PrefixStore(f"attempt_{attempt}", store), rank=rank, world_size=world)


def _all_are_here() -> bool:
    """Whether `--gpus` started the processes, which are then all on this machine."""
    ours = os.environ.get("MASTER_ADDR") == LOOPBACK and "TORCHELASTIC_RUN_ID" not in os.environ
    return ours and os.name != "nt"


def _local_store() -> tuple[dist.Store, int, int]:
    """Store, rank and number of processes; what torch opens by itself takes connections from every network."""
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    port, listening = int(os.environ["MASTER_PORT"]), None
    if rank == 0:
        listener = socket.create_server((LOOPBACK, port), backlog=max(world, 128))
        listening = listener.detach()
    timeout = dist.constants.default_pg_timeout
    store = dist.TCPStore(LOOPBACK, port, world, rank == 0, timeout, master_listen_fd=listening)
    return store, rank, world


def _take_gpu(device: torch.device) -> None:
    """Make this process's own GPU the one that `cuda` means."""
    if device.index is not None:
        raise UserError(f"--device {device}: is one GPU, and several processes need one each. Give --device cuda.")
    own, there = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if own >= there:
        raise UserError(f"--gpus: there are {there} on this machine, fewer than processes. Give --gpus {there}.")
    torch.cuda.set_device(own)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
