"""The network as data: what a plan says about it, and the named sizes. No torch here, so that commands start fast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from swinssl.core.errors import UserError
from swinssl.core.text import did_you_mean
from swinssl.networks.architectures import ARCHITECTURES, DEFAULT

if TYPE_CHECKING:
    ArchitectureName = str
else:  # the choices that commands show derive from it
    ArchitectureName = Literal[tuple(ARCHITECTURES)]
MergeOrder = Literal["lexicographic", "smit", "monai", "monai_legacy"]
AxisOrder = Literal["zyx", "xyz"]
# Plans and encoders come from strangers too: what is far beyond any network would only fill the memory.
Depth = Annotated[int, Field(ge=1, le=128)]
Heads = Annotated[int, Field(ge=1, le=1024)]


class SwinEncoderPlan(BaseModel):
    """A 3D Swin encoder.

    Args:
        embed_dim: channels after the patch embedding; stage i has embed_dim * 2**i.
        depths: transformer blocks of the four stages.
        heads: attention heads of the four stages.
        window: window edge in tokens, on every axis.
        qkv_bias: bias of the query, key and value projections; the paper's networks have none.
        patch_norm: LayerNorm after the patch embedding (SMIT has it, MONAI does not).
        skip_norm: LayerNorm of the skip outputs: learned (SMIT) or without parameters (MONAI).
        skip_taps: skips are the blocks' outputs (`stage`, SMIT) or the patch embedding and the merged maps (`merge`).
        merge_order: order of the eight neighbours in patch merging; `monai_legacy` duplicates two of them.
        axis_order: of the arrays that the weights were trained on; the encoder turns its input and its maps, so that
            arrays outside it stay (z, y, x). An encoder is not symmetric under exchange of axes.
        legacy_bias_index: cut the bias index of a shrunken window as MONAI does; only for its weights.
        shrink_window: where a map is not larger than the window, shrink the window and do not shift (MONAI); else
            pad and shift always (SMIT).
        mask_padding: padded tokens are no keys; published encoders let them take part in the softmax.
        drop_path: stochastic depth of the last block, rising linearly from 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    embed_dim: int = Field(48, ge=1, le=1024)
    depths: tuple[Depth, Depth, Depth, Depth] = (2, 2, 8, 2)
    heads: tuple[Heads, Heads, Heads, Heads] = (4, 4, 8, 16)
    window: int = Field(4, ge=1, le=32)
    qkv_bias: bool = False
    patch_norm: bool = True
    skip_norm: Literal["affine", "plain"] = "affine"
    skip_taps: Literal["stage", "merge"] = "stage"
    merge_order: MergeOrder = "smit"
    axis_order: AxisOrder = "zyx"
    legacy_bias_index: bool = False
    shrink_window: bool = False
    mask_padding: bool = False
    drop_path: float = Field(0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _heads_divide_widths(self) -> Self:
        for stage, heads in enumerate(self.heads):
            if self.embed_dim * 2**stage % heads:
                raise ValueError(f"{self.embed_dim * 2**stage} channels of stage {stage + 1} are not {heads} heads")
        return self


class NetworkPlan(BaseModel):
    """Encoder and decoder of a segmentor.

    Args:
        architecture: one of ARCHITECTURES.
        preset: name of the size, one of PRESETS or that of a published encoder.
        decoder: `full` (the paper's) or `light` (at most 16 channels at full resolution).
        norm: normalisation of the decoder's convolutions.
        deep_supervision: losses at lower decoder resolutions too.
        encoder: the Swin encoder; unused by other architectures.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: ArchitectureName = DEFAULT
    preset: str = "small"
    decoder: Literal["full", "light"] = "full"
    norm: Literal["batch", "instance"] = "batch"
    deep_supervision: bool = False
    encoder: SwinEncoderPlan = SwinEncoderPlan()

    @property
    def has_swin_encoder(self) -> bool:
        """Whether it has a Swin encoder, which can start from pretrained weights."""
        return ARCHITECTURES[self.architecture].swin_encoder

    @property
    def short_name(self) -> str:
        """Name in lists and of models: the size of a Swin network, else the architecture."""
        return self.preset if self.has_swin_encoder else self.architecture


# Widths are multiples of 16, so that vector units are full. smitp's heads are a documented guess: the paper names
# neither heads nor window, and of the plain (V1) blocks this choice rounds to its 586.1 M parameters.
# tiny and small are made for small patches on a CPU: there half of the deepest window would be padding, hence shrunken
# windows and masked padding; the others keep the arithmetic of the published encoders.
PRESETS: dict[str, SwinEncoderPlan] = {
    "tiny": SwinEncoderPlan(
        embed_dim=16, depths=(2, 2, 2, 2), heads=(1, 2, 4, 8), shrink_window=True, mask_padding=True
    ),
    "small": SwinEncoderPlan(
        embed_dim=32, depths=(2, 2, 2, 2), heads=(2, 4, 8, 16), shrink_window=True, mask_padding=True
    ),
    "smit96": SwinEncoderPlan(),
    "smit128": SwinEncoderPlan(),
    "smits": SwinEncoderPlan(embed_dim=96, depths=(2, 2, 18, 2)),
    "smitp": SwinEncoderPlan(embed_dim=128, depths=(2, 2, 40, 4), heads=(8, 16, 32, 64)),
}


def encoder_preset(name: str) -> SwinEncoderPlan:
    """The encoder of a size preset.

    Raises:
        UserError: there is no such preset; the nearest name is given.
    """
    if name in PRESETS:
        return PRESETS[name]
    raise UserError(f"--preset {name}: unknown. {did_you_mean(name, PRESETS)}Choose one of {', '.join(PRESETS)}.")
