"""Our encoder under the names that MONAI's SwinUNETR loads, and what MONAI will compute differently, if anything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from swinssl.core import files
from swinssl.networks.checkpoints.encoder_import import BIAS_INDEX
from swinssl.networks.checkpoints.published_encoders import MONAI
from swinssl.networks.checkpoints.weight_adaptation import BIAS_TABLE, FIRST_KERNEL
from swinssl.networks.checkpoints.weights_file import write_weights
from swinssl.networks.network_plan import MergeOrder, SwinEncoderPlan
from swinssl.networks.swin.windows import MERGE_ORDERS, bias_index

# Where SwinUNETR keeps its encoder.
PREFIX = "swinViT."


@dataclass(frozen=True)
class MonaiEncoder:
    """An encoder for MONAI.

    Args:
        tensors: by SwinUNETR's names, its index buffers included.
        arguments: of SwinUNETR, for a network that these tensors fit.
        differences: what MONAI computes otherwise than we do, in words; empty where the numbers are the same.
        left_out: our names of tensors that have no place there.
    """

    tensors: dict[str, Tensor]
    arguments: dict[str, Any]
    differences: tuple[str, ...]
    left_out: tuple[str, ...]


def export_to_monai(tensors: dict[str, Tensor], plan: SwinEncoderPlan) -> MonaiEncoder:
    """The encoder for MONAI 1.5 or later; SMIT's merge order becomes MONAI's by an exact permutation.

    Args:
        tensors: by our names.
    """
    order: MergeOrder = "monai" if plan.merge_order == "smit" else plan.merge_order
    named: dict[str, Tensor] = {}
    left_out = []
    for name, tensor in tensors.items():
        monai_name = MONAI.theirs(name)
        if monai_name is None:
            left_out.append(name)
            continue
        if ".merging." in name:
            tensor = _regrouped(tensor, plan.merge_order, order)
        named[PREFIX + monai_name] = tensor
        if name.endswith(BIAS_TABLE):
            named[PREFIX + monai_name.removesuffix(BIAS_TABLE) + BIAS_INDEX] = _index(plan.window)
    arguments = {
        "in_channels": tensors[FIRST_KERNEL].shape[1],
        "feature_size": plan.embed_dim,
        "depths": list(plan.depths),
        "num_heads": list(plan.heads),
        "window_size": plan.window,
        "qkv_bias": plan.qkv_bias,
        "patch_norm": plan.patch_norm,
        "downsample": "mergingv2" if order == "lexicographic" else "merging",
    }
    return MonaiEncoder(named, arguments, _differences(plan), tuple(left_out))


def write_for_monai(path: Path, encoder: MonaiEncoder) -> None:
    """Write the tensors; the ending decides: safetensors, or a dict with `state_dict` as torch.save writes it.

    The latter holds nothing but tensors and loads with `weights_only=True`.
    """
    if path.suffix == ".safetensors":
        write_weights(path, encoder.tensors, metadata={})
        return
    with files.atomic_path(path) as temporary:
        torch.save({"state_dict": encoder.tensors}, temporary)


def _regrouped(tensor: Tensor, old: MergeOrder, new: MergeOrder) -> Tensor:
    """A merging's tensor with its last axis, eight groups of neighbours, in another complete order."""
    if old == new:
        return tensor
    groups = tensor.chunk(8, dim=-1)
    return torch.cat([groups[MERGE_ORDERS[old].index(parity)] for parity in MERGE_ORDERS[new]], dim=-1)


def _index(window: int) -> Tensor:
    slots = window**3
    edges = (window,) * 3
    return bias_index(edges, window, legacy=False, device=torch.device("cpu")).view(slots, slots).clone()


def _differences(plan: SwinEncoderPlan) -> tuple[str, ...]:
    """How MONAI's Swin encoder differs from this one."""
    said = {
        "merging: MONAI 1.5 and later have lost the legacy order; load the file with MONAI 1.4 or earlier": (
            plan.merge_order == "monai_legacy"
        ),
        "skips: MONAI's are the patch embedding and the merged maps, normalised without weights; ours are the stages' "
        "outputs": plan.skip_taps == "stage",
        "skips: MONAI normalises them without weights": plan.skip_taps == "merge" and plan.skip_norm == "affine",
        "small maps: where a map is not larger than the window, MONAI shrinks the window and does not shift; here the "
        "map is padded": not plan.shrink_window,
        "small maps: in shrunken windows MONAI reads the biases of other offsets": (
            plan.shrink_window and not plan.legacy_bias_index
        ),
        "padding: where a map is no multiple of the window, MONAI lets padded tokens take part in attention": (
            plan.mask_padding
        ),
    }
    return tuple(words for words, holds in said.items() if holds)
