"""The encoder's transformer blocks spread over the ranks (FSDP2): each keeps its share of weights and their states."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
import torch.distributed as dist
from torch import Tensor, nn

from swinssl.networks.swin.encoder import SwinBlock

if TYPE_CHECKING:  # FSDP takes 0.7 s to import, which most runs do without
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor


@dataclass
class _Place:
    """Where a sharded block is, and a block of its form without memory."""

    parent: nn.Module
    name: str
    sharded: nn.Module
    form: nn.Module


class Shards:
    """The networks of a run with their transformer blocks spread over all ranks; without any, whole as they were.

    A block's weights are gathered when it computes and let go again, its gradients are summed to whom they belong.
    Everything else in a network stays with every rank.

    Args:
        networks: the trained one and those that follow it; changed in place.
        optimiser: of the trained one; keeps each rank's share of its state from here on.
        device: of the networks.
    """

    def __init__(
        self, networks: Sequence[nn.Module], optimiser: torch.optim.Optimizer, *, device: torch.device
    ) -> None:
        self.places: list[_Place] = []
        # What the optimiser moves, plain tensors that share their memory with this rank's part of a parameter.
        self.shares: dict[nn.Parameter, DTensor] = {}
        if not networks:
            return
        from torch.distributed.device_mesh import init_device_mesh

        # The outputs that torch warns of here are changed by nobody in place.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
        mesh = init_device_mesh(device.type, (dist.get_world_size(),))
        before = dict(networks[0].named_parameters())
        for network in networks:
            self.places += _sharded(network, mesh)
        after = dict(networks[0].named_parameters())
        self._take_over(optimiser, {parameter: after[name] for name, parameter in before.items()})

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """All networks with all of their weights on every rank while the block runs, to be read and not to be trained.

        All ranks enter it together; what happens inside needs none of the others.
        """
        self._gather()
        try:
            yield
        finally:
            for place in self.places:
                setattr(place.parent, place.name, place.sharded)

    def end(self) -> None:
        """All networks are whole again on every rank, for good. All ranks come here together."""
        self._gather()
        self.places = []

    def step(self, optimiser: torch.optim.Optimizer) -> None:
        """A step of the optimiser, each rank with its part, and no gradient is left."""
        for share, parameter in self.shares.items():
            # Anew each time: at its first use FSDP may move a part to where it can be padded.
            share.data = own_part(parameter.detach())
            share.grad = None if parameter.grad is None else own_part(parameter.grad)
            parameter.grad = None
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    def optimiser_state(self, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
        """Its state as that of a process that trains alone, on the first rank. All ranks come here together."""
        state = optimiser.state_dict()
        if not self.shares:
            return state
        order = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        by_number = {
            number: {name: self._gathered(value, order[number]) for name, value in of_one.items()}
            for number, of_one in state["state"].items()
        }
        return {**state, "state": by_number}

    def _gathered(self, value: Any, parameter: nn.Parameter) -> Any:
        like = self.shares.get(parameter)
        if like is None or not isinstance(value, Tensor) or value.ndim == 0:  # the count of steps has no dimension
            return value
        from torch.distributed.tensor import DTensor

        part = DTensor.from_local(
            value, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
        )
        whole = part.full_tensor()
        return whole.cpu() if dist.get_rank() == 0 else None

    def _take_over(self, optimiser: torch.optim.Optimizer, now: dict[nn.Parameter, nn.Parameter]) -> None:
        """Let the optimiser go on with this rank's parts of its parameters and of its state."""
        for group in optimiser.param_groups:
            for number, before in enumerate(group["params"]):
                after = now[before]
                if not is_shard(after):
                    continue
                share = nn.Parameter(own_part(after.detach()))
                self.shares[share] = after
                group["params"][number] = share
                if before in optimiser.state:
                    state = optimiser.state.pop(before)
                    optimiser.state[share] = {name: _part_of(value, after) for name, value in state.items()}

    @torch.no_grad()
    def _gather(self) -> None:
        for place in self.places:
            weights = {name: _full(tensor) for name, tensor in place.sharded.state_dict().items()}
            block = copy.deepcopy(place.form)
            block.load_state_dict(weights, assign=True)
            setattr(place.parent, place.name, block.train(place.sharded.training))


def is_shard(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether other ranks have the rest of it."""
    return hasattr(tensor, "to_local")


def own_part(tensor: Tensor) -> Tensor:
    """The numbers of a tensor that this rank has; all of them unless it is sharded."""
    return tensor.to_local() if is_shard(tensor) else tensor


def norms_over_ranks(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The norm of each tensor, of those that are sharded over the parts of all ranks."""
    norms = torch.stack(torch._foreach_norm([own_part(tensor) for tensor in tensors]))
    sharded = [number for number, tensor in enumerate(tensors) if is_shard(tensor)]
    if sharded:
        squares = norms[sharded].square()
        dist.all_reduce(squares)
        norms[sharded] = squares.sqrt()
    return list(norms)


def _sharded(network: nn.Module, mesh: DeviceMesh) -> list[_Place]:
    """Shard the transformer blocks of a network; where they are."""
    from torch.distributed.fsdp import fully_shard

    places = []
    for parent in list(network.modules()):
        for name, block in list(parent.named_children()):
            if isinstance(block, SwinBlock):
                form = copy.deepcopy(block).to("meta")
                sharded = fully_shard(block, mesh=mesh, reshard_after_forward=True)
                # Each rank's loss is its share of the batch's mean already: gradients are summed.
                sharded.set_gradient_divide_factor(1.0)
                sharded.set_force_sum_reduction_for_comms(True)
                places.append(_Place(parent, name, block, form))
    return places


def _part_of(value: Any, like: DTensor) -> Any:
    """This rank's part of a state tensor that every rank has whole."""
    if not isinstance(value, Tensor) or value.ndim == 0:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None).to_local().clone()


def _full(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if is_shard(tensor) else tensor
