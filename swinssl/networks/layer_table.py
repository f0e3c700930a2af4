"""The layer table of a network: what each part puts out and how many parameters it has."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from swinssl.networks.architectures import build_network
from swinssl.networks.network_plan import NetworkPlan
from swinssl.networks.swin.encoder import Stage

# What is shown by its parts, by name or type; of the lists only those whose members are alike are one row.
SHOWN_BY_PARTS = {"encoder", "decoder", "unet"}
CONTAINERS = (Stage, nn.ModuleList, nn.Sequential)
ONE_ROW = {"blocks", "norms", "deep_heads"}
HALVINGS = 6


@dataclass(frozen=True)
class LayerRow:
    """One part of the network.

    Args:
        name: its path in the network, as in the names of its weights.
        kind: what it is; "8 x SwinBlock" for a chain of eight.
        output: (C, Z, Y, X) of what it puts out for one patch; None where there is no single or no used output.
        parameters: its trained numbers.
    """

    name: str
    kind: str
    output: tuple[int, ...] | None
    parameters: int


def layer_table(
    plan: NetworkPlan, *, in_channels: int, num_outputs: int, patch_size: tuple[int, int, int]
) -> list[LayerRow]:
    """Rows of the network's parts for a patch of that size; their parameters add up to the network's.

    Runs on the meta device: no voxel is computed and no weight is held.

    Raises:
        ValueError: an edge of the patch is not a multiple of 32.
    """
    with torch.device("meta"):
        network = build_network(plan, in_channels=in_channels, num_outputs=num_outputs).eval()
        image = torch.empty(1, in_channels, *patch_size)
    parts = list(_parts(network, "", seen=set()))
    outputs: dict[nn.Module, Tensor] = {}
    hooks = [_speaker(name, part).register_forward_hook(partial(_record, outputs)) for name, part in parts]
    with torch.no_grad():
        network(image)
    for hook in hooks:
        hook.remove()
    return [
        LayerRow(
            name=name,
            kind=f"{len(part)} x {_type(part[0])}" if isinstance(part, nn.ModuleList) else _type(part),
            output=_shape(outputs.get(_speaker(name, part)), patch_size),
            parameters=sum(p.numel() for p in part.parameters()),
        )
        for name, part in parts
    ]


def _parts(module: nn.Module, prefix: str, *, seen: set[nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    """The parts that have a row, each once (the CNN's decoder also holds its encoder)."""
    for name, child in module.named_children():
        if child in seen or isinstance(child, nn.Identity):
            continue
        seen.add(child)
        if name not in ONE_ROW and (name in SHOWN_BY_PARTS or isinstance(child, CONTAINERS)):
            yield from _parts(child, f"{prefix}{name}.", seen=seen)
        else:
            yield prefix + name, child


def _speaker(name: str, part: nn.Module) -> nn.Module:
    """The module whose output is the part's: the last of a chain. Norms and heads are side by side: none of them."""
    return part[-1] if isinstance(part, nn.ModuleList) and name.endswith("blocks") else part


def _type(part: nn.Module) -> str:
    return type(part).__name__


def _record(outputs: dict[nn.Module, Tensor], part: nn.Module, _inputs: Any, output: Tensor) -> None:
    outputs[part] = output


def _shape(output: Tensor | None, patch_size: tuple[int, int, int]) -> tuple[int, ...] | None:
    """(C, Z, Y, X) of a map (1, C, Z, Y, X), or of the tokens (1, L, C) of one of the halved grids."""
    if output is None:
        return None
    if output.ndim == 5:
        return tuple(output.shape[1:])
    _, tokens, width = output.shape
    grids = [tuple(edge // 2**times for edge in patch_size) for times in range(HALVINGS)]
    return width, *next(grid for grid in grids if math.prod(grid) == tokens)
