"""A published encoder as ours: its form is read from its tensors; what they do not show comes from its source."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from swinssl.core.errors import UserError
from swinssl.core.text import listed
from swinssl.networks.checkpoints.encoder_file import blocks_of
from swinssl.networks.checkpoints.encoder_transfer import TransferReport, refuse_window_change
from swinssl.networks.checkpoints.foreign_checkpoint import Checkpoint
from swinssl.networks.checkpoints.published_encoders import KNOWN_MERGE_ORDERS, SOURCES, WHICH_MERGE_ORDER, SourceName
from swinssl.networks.checkpoints.weight_adaptation import BIAS_TABLE, FIRST_KERNEL, adapt, window_of
from swinssl.networks.checkpoints.weights_file import refuse_unusable
from swinssl.networks.network_plan import MergeOrder, SwinEncoderPlan
from swinssl.networks.swin.encoder import SwinEncoder
from swinssl.networks.swin.windows import bias_index

# A buffer that follows from the window: checked, and not kept.
BIAS_INDEX = "attn.relative_position_index"
# SwinUNETR v2 (MONAI's use_v2, VoCo) puts a residual convolution before each stage.
V2_PART = re.compile(r"layers[1-4]c\.")


@dataclass(frozen=True)
class ImportedEncoder:
    """An encoder as ours.

    Args:
        plan: its form and the meaning of its numbers.
        in_channels: of the image.
        tensors: by our names, as `SwinEncoder(plan)` has them.
        names: by our name, the file's (without the prefixes of wrappers).
        report: what was taken: our names of `matched` and `adapted`, the file's names of all else.
    """

    plan: SwinEncoderPlan
    in_channels: int
    tensors: dict[str, Tensor]
    names: dict[str, str]
    report: TransferReport


def import_encoder(
    checkpoint: Checkpoint,
    source: SourceName,
    *,
    merge_order: MergeOrder | None = None,
    own_plan: SwinEncoderPlan | None = None,
    in_channels: int | None = None,
    window: int | None = None,
) -> ImportedEncoder:
    """The encoder of a checkpoint exactly as it was trained, unless channels or window are to change.

    Args:
        source: whose names and conventions the file follows.
        merge_order: that it was trained with; None where the source or the file's hash tells it.
        own_plan: for `swinssl`: what is known of the file.
        in_channels: image channels to adapt it to.
        window: window edge to adapt it to.

    Raises:
        UserError: the file holds no whole encoder of that source, nothing tells the merge order, or the window cannot
            change.
    """
    path = checkpoint.path
    parts = _sorted_out(checkpoint, source)
    form = _form(path, parts.encoder)
    if source == "swinssl":
        plan = _own(path, own_plan)
    else:
        order = _merge_order(checkpoint, source, merge_order)
        plan = SwinEncoderPlan(**(form | dict(SOURCES[source].meaning) | {"merge_order": order}))
    _check_whole(path, parts, plan)
    _check_indices(path, parts.indices, plan)
    if window is not None and window != plan.window:
        refuse_window_change(path, plan)
    channels = in_channels or parts.encoder[FIRST_KERNEL].shape[1]
    tensors, adapted = adapt(parts.encoder, in_channels=channels, window=window or plan.window)
    report = TransferReport(
        matched=tuple(name for name in tensors if name not in adapted),
        adapted=adapted,
        missing=(),
        unexpected=parts.unexpected,
        left_out=parts.left_out,
    )
    plan = plan.model_copy(update={"window": window or plan.window})
    return ImportedEncoder(plan, channels, tensors, parts.names, report)


def source_of(checkpoint: Checkpoint) -> SourceName | None:
    """The first source whose names the checkpoint's blocks have; `monai` where `swinunetr` would do as well."""
    for name, source in SOURCES.items():
        if any(".blocks." in (source.layout.ours(tensor) or "") for tensor in checkpoint.tensors):
            return name
    return None


def known_merge_order(checkpoint: Checkpoint, source: SourceName) -> MergeOrder | None:
    """The merge order, where the file's hash tells it or the source has only one; else None."""
    orders = SOURCES[source].merge_orders
    return KNOWN_MERGE_ORDERS.get(checkpoint.sha256) or (orders[0] if len(orders) == 1 else None)


@dataclass(frozen=True)
class _Parts:
    """A checkpoint's tensors: the encoder's and its index buffers by our names, and the names of the rest."""

    encoder: dict[str, Tensor]
    indices: dict[str, Tensor]
    names: dict[str, str]
    left_out: tuple[str, ...]
    unexpected: tuple[str, ...]


def _sorted_out(checkpoint: Checkpoint, source: SourceName) -> _Parts:
    layout, path = SOURCES[source].layout, checkpoint.path
    encoder: dict[str, Tensor] = {}
    indices: dict[str, Tensor] = {}
    names: dict[str, str] = {}
    left_out: list[str] = []
    unexpected: list[str] = []
    for name, tensor in checkpoint.tensors.items():
        if V2_PART.match(name):
            raise UserError(
                f"{path}: holds {name}, so it is a SwinUNETR v2 (use_v2, as VoCo's), which has residual convolutions "
                "before its stages; swinssl's encoder has none. Give a v1 checkpoint."
            )
        own = layout.ours(name)
        if own is None:
            (left_out if name.startswith(layout.others) else unexpected).append(name)
        elif own.endswith(BIAS_INDEX):
            indices[own] = tensor
            left_out.append(name)
        else:
            encoder[own], names[own] = tensor.clone(), name
    if not any(".blocks." in own for own in encoder):
        there = source_of(checkpoint)
        hint = f"These are names of --source {there}." if there else "It holds no Swin encoder that is known here."
        raise UserError(
            f"{path}: no tensor has the name of a transformer block of --source {source}; found "
            f"{listed(list(checkpoint.tensors))}. {hint}"
        )
    return _Parts(encoder, indices, names, tuple(left_out), tuple(unexpected))


def _form(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The fields of SwinEncoderPlan that the tensors show."""
    kernel = tensors.get(FIRST_KERNEL)
    if kernel is None or kernel.ndim != 5 or kernel.shape[2:] != (2, 2, 2) or kernel.shape[1] == 0:
        found = "is missing" if kernel is None else f"has shape {tuple(kernel.shape)}"
        raise UserError(
            f"{path}: the patch embedding's kernel {found}; expected (width, channels, 2, 2, 2), that of 3D patches of "
            "2 x 2 x 2 voxels. Give another checkpoint."
        )
    names = [f"stages.{stage}.blocks.0.{BIAS_TABLE}" for stage in range(4)]
    tables = [tensors[name] for name in names if name in tensors]
    windows = {window_of(table) for table in tables}
    if len(tables) != 4 or len(windows) != 1 or 0 in windows:
        shapes = ", ".join(str(tuple(tensors[name].shape)) if name in tensors else "missing" for name in names)
        raise UserError(
            f"{path}: the bias tables of the four stages are {shapes}; expected ((2w - 1)^3, heads) with one window w. "
            "Give a checkpoint with four stages of cubic windows."
        )
    heads = tuple(table.shape[1] for table in tables)
    if any(n == 0 or kernel.shape[0] * 2**stage % n for stage, n in enumerate(heads)):
        raise UserError(f"{path}: {heads} heads do not divide the widths {kernel.shape[0]} x 1, 2, 4, 8. Give another.")
    return {
        "embed_dim": kernel.shape[0],
        "depths": tuple(blocks_of(tensors, stage) for stage in range(4)),
        "heads": heads,
        "window": windows.pop(),
        "qkv_bias": "stages.0.blocks.0.attn.qkv.bias" in tensors,
        "patch_norm": "patch_embed.norm.weight" in tensors,
        "skip_norm": "affine" if any(name.startswith("norms.") for name in tensors) else "plain",
    }


def _own(path: Path, plan: SwinEncoderPlan | None) -> SwinEncoderPlan:
    if plan is None:
        raise UserError(
            f"{path}: does not say how its encoder computes. Give an encoder that swinssl wrote, or the weights inside "
            "their model folder."
        )
    return plan


def _merge_order(checkpoint: Checkpoint, source: SourceName, asked: MergeOrder | None) -> MergeOrder:
    path, orders, known = checkpoint.path, SOURCES[source].merge_orders, known_merge_order(checkpoint, source)
    if asked is None and known is None:
        raise UserError(
            f"{path}: nothing in the file says in which order its patch merging was trained, and with another order "
            f"it computes something else without a warning. Give --merge-order: {WHICH_MERGE_ORDER}."
        )
    order = asked or known
    if order not in ((known,) if known else orders):
        expected = known or ", ".join(orders)
        raise UserError(f"{path}: --merge-order {order}, but --source {source} has {expected}. Choose that.")
    return order


def _check_whole(path: Path, parts: _Parts, plan: SwinEncoderPlan) -> None:
    """Raise unless the tensors are those of the plan's encoder, in shape and number, and finite."""
    tensors = parts.encoder
    channels = tensors[FIRST_KERNEL].shape[1]
    with torch.device("meta"):
        wanted = SwinEncoder(plan, in_channels=channels).state_dict()
    missing = [name for name in wanted if name not in tensors]
    surplus = [parts.names[name] for name in tensors if name not in wanted]
    if missing or surplus:
        said = [f"lacks {len(missing)}: {listed(missing)}"] if missing else []
        said += [f"has {len(surplus)} too many: {listed(surplus)}"] if surplus else []
        raise UserError(
            f"{path}: is no whole encoder of width {plan.embed_dim} and depths {plan.depths}. It {' and '.join(said)}. "
            "Give the complete checkpoint."
        )
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise UserError(
                f"{path}: {parts.names[name]} has shape {tuple(tensor.shape)}; expected "
                f"{tuple(wanted[name].shape)} in an encoder of width {plan.embed_dim}, heads {plan.heads} and window "
                f"{plan.window}. Give another checkpoint."
            )
    named = {parts.names[name]: tensor for name, tensor in tensors.items()}
    refuse_unusable(path, named, remedy="Give an earlier checkpoint.")


def _check_indices(path: Path, indices: Mapping[str, Tensor], plan: SwinEncoderPlan) -> None:
    """Raise where the file's own index of relative positions is not that of its window."""
    edges = (plan.window,) * 3
    expected = bias_index(edges, plan.window, legacy=False, device=torch.device("cpu"))
    for name, index in indices.items():
        if not torch.equal(index.reshape(-1).long(), expected):
            raise UserError(
                f"{path}: {name} is not the index of windows of {plan.window}^3 tokens. The file was made by a network "
                "with another geometry, which swinssl does not have."
            )
