"""Published Swin encoders: how each source names its tensors, and what its numbers mean.

One table a layout, read both ways. No torch here, so that commands start fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from swinssl.networks.network_plan import MergeOrder

SourceName = Literal["monai", "swinunetr", "smit", "swinssl"]
Pairs = tuple[tuple[str, str], ...]
STAGES = range(4)


@dataclass(frozen=True)
class Layout:
    """Names of an encoder's tensors beside ours.

    Args:
        parts: beginnings of names, theirs beside ours; the first that fits holds, theirs or ours.
        inside: middles of names, theirs beside ours.
        others: beginnings of names that may stand beside an encoder's and are none of it: heads of pretraining, the
            mask token, and a segmentor's convolutional parts (`encoder1.` to `encoder10.`, `decoder1.` ..., `out.`).
    """

    parts: Pairs
    inside: Pairs = ()
    others: tuple[str, ...] = ()

    def ours(self, name: str) -> str | None:
        """Our name of their tensor; None where it is of none of the parts."""
        return _renamed(name, self.parts, self.inside)

    def theirs(self, name: str) -> str | None:
        """Their name of our tensor; None where they have none."""
        return _renamed(name, _swapped(self.parts), _swapped(self.inside))


def _renamed(name: str, parts: Pairs, inside: Pairs) -> str | None:
    for old, new in parts:
        if name.startswith(old):
            name = new + name[len(old) :]
            for old_middle, new_middle in inside:
                name = name.replace(old_middle, new_middle)
            return name
    return None


def _swapped(pairs: Pairs) -> Pairs:
    return tuple((second, first) for first, second in pairs)


OTHERS = (
    *("mask_token", "rotation_head.", "contrastive_head.", "conv.", "head.", "norm.", "norm_"),
    *("encoder", "decoder", "out."),
)

MONAI = Layout(
    parts=(
        ("patch_embed.", "patch_embed."),
        *((f"layers{i + 1}.0.blocks.", f"stages.{i}.blocks.") for i in STAGES),
        *((f"layers{i + 1}.0.downsample.", f"stages.{i}.merging.") for i in STAGES),
        # Disrupted autoencoders (DAE) wrap each stage once more; never written, since the lines above come first.
        *((f"layers{i + 1}.0.0.blocks.", f"stages.{i}.blocks.") for i in STAGES),
        *((f"layers{i + 1}.0.0.downsample.", f"stages.{i}.merging.") for i in STAGES),
    ),
    inside=((".mlp.linear1.", ".mlp.fc1."), (".mlp.linear2.", ".mlp.fc2.")),
    others=OTHERS,
)

SMIT = Layout(
    parts=(
        ("patch_embed.", "patch_embed."),
        *((f"layers.{i}.blocks.", f"stages.{i}.blocks.") for i in STAGES),
        *((f"layers.{i}.downsample.", f"stages.{i}.merging.") for i in STAGES),
        *((f"norm{i}.", f"norms.{i}.") for i in STAGES),
    ),
    others=OTHERS,
)

OURS = Layout(
    parts=(("patch_embed.", "patch_embed."), ("stages.", "stages."), ("norms.", "norms.")),
    others=("bridge.", "ups.", "skips.", "head.", "deep_heads.", "mask_token"),
)

# The convolutional parts of MONAI's SwinUNETR, whose names SMIT's segmentor kept.
DECODER = Layout(
    parts=(
        *((f"encoder{i + 1}.layer.", f"skips.{i}.") for i in STAGES),
        ("encoder10.layer.", "bridge."),
        *((f"decoder{5 - i}.transp_conv.conv.", f"ups.{i}.up.") for i in range(5)),
        *((f"decoder{5 - i}.conv_block.", f"ups.{i}.block.") for i in range(5)),
        ("out.conv.conv.", "head."),
    ),
    inside=(
        (".conv1.conv.", ".conv1."),
        (".conv2.conv.", ".conv2."),
        (".conv3.conv.", ".projection.0."),
        (".norm3.", ".projection.1."),
    ),
)


@dataclass(frozen=True)
class Source:
    """Where encoders come from, and what nothing in their tensors says.

    Args:
        layout: names of the tensors.
        meaning: fields of SwinEncoderPlan that every encoder of this source has.
        merge_orders: those that its encoders may have been trained with.
    """

    layout: Layout
    meaning: Mapping[str, object] = field(default_factory=dict)
    merge_orders: tuple[MergeOrder, ...] = ()


# Window 7 is shrunken to the deepest map of every 96^3 patch, so MONAI's weights were trained with the biases that its
# cut of the index reads there; SMIT never shrinks a window.
_MONAI = Source(
    MONAI,
    {
        "axis_order": "xyz",
        "skip_taps": "merge",
        "skip_norm": "plain",
        "shrink_window": True,
        "legacy_bias_index": True,
    },
    ("monai", "monai_legacy", "lexicographic"),
)
SOURCES: dict[SourceName, Source] = {
    "monai": _MONAI,
    "swinunetr": _MONAI,
    "smit": Source(SMIT, {"axis_order": "xyz", "skip_taps": "stage"}, ("smit",)),
    "swinssl": Source(OURS),
}

# SHA-256 of published files whose merge order is known for certain. Nothing in such a file says it.
KNOWN_MERGE_ORDERS: dict[str, MergeOrder] = {}

WHICH_MERGE_ORDER = (
    "monai_legacy for everything published before 2025 (model_swinvit.pt, SwinUNETR of BTCV and BRATS, VoCo, DAE: "
    "MONAI up to 1.4), monai for your own training with MONAI 1.5 or later, lexicographic for downsample='mergingv2'"
)
