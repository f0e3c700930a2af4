"""What a user may choose about a training run. The one place of these defaults; `swinssl_train --help` shows them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from swinssl.core.errors import UserError
from swinssl.networks import architectures
from swinssl.networks.network_plan import ArchitectureName
from swinssl.training.engine.config import LARGEST_RATE, EngineConfig
from swinssl.training.losses import registry as losses
from swinssl.training.losses.registry import LossName


class TrainingConfig(EngineConfig):
    """Choices of one fine-tuning run; None means: as planned."""

    init: str | None = Field(
        default=None,
        description="Encoder to start from: a file, a shipped name, or scratch. Default: the encoder that the plan was "
        "made for, else scratch.",
    )
    encoder_lr_scale: float = Field(
        default=1.0, gt=0, le=LARGEST_RATE, description="Factor on the encoder's learning rate."
    )
    layer_decay: float = Field(
        default=1.0, gt=0, le=1, description="Factor on the learning rate from each encoder layer to the previous one."
    )
    freeze_epochs: int = Field(default=0, ge=0, description="Epochs during which the pretrained encoder is frozen.")
    peft: Literal["none", "lora"] = Field(
        default="none",
        description="lora trains the decoder and low-rank updates of the pretrained encoder's linear layers.",
    )
    lora_rank: int = Field(default=8, ge=1, description="Rank of the LoRA updates.")
    patience: int | None = Field(
        default=None,
        ge=1,
        description="Stop after this many consecutive validations without a better Dice. Default: as planned.",
    )
    shots: int | None = Field(
        default=None, ge=1, description="Train on this many cases of the fold; nested, stratified."
    )
    ema: float = Field(
        default=0.999,
        ge=0,
        lt=1,
        description="Decay of the exponential moving average of the weights, used for validation and prediction; "
        "0 disables it.",
    )
    augmentation: Literal["default", "batchgenerators", "none"] = Field(
        default="default", description="default (the recipe of nnU-Net v2), batchgenerators (nnU-Net v1) or none."
    )
    mirror: str | None = Field(
        default=None,
        description="Axes to mirror during training and by --tta: all, none, or a list such as z,y. "
        "Default: as planned.",
    )
    preset: str | None = Field(
        default=None, description="Encoder size instead of the planned one; see swinssl_network."
    )
    decoder: Literal["full", "light"] | None = Field(default=None, description="Decoder instead of the planned one.")
    network: ArchitectureName | None = Field(default=None, description=f"{architectures.HELP} Default: as planned.")
    norm: Literal["batch", "instance"] | None = Field(
        default=None, description="Decoder norm instead of the planned one."
    )
    loss: LossName = Field(default=losses.DEFAULT, description=losses.HELP)
    dice: Literal["log", "linear"] | None = Field(
        default=None,
        description="Form of the Dice or Tversky term instead of the planned one: -log(index) or 1 - index.",
    )
    deep_supervision: bool | None = Field(default=None, description="Add losses at 1/2 and 1/4 resolution.")

    def shards(self, preset: str | None) -> bool:
        """As the engine has it; not where blocks are frozen for a while, which FSDP does not follow.

        Raises:
            UserError: both are asked for.
        """
        frozen = self.freeze_epochs > 0 or self.peft == "lora"
        if frozen and self.shard:
            raise UserError("--shard cannot be combined with --freeze-epochs or --peft lora. Omit one of them.")
        return super().shards(preset) and not frozen
