"""What a user may choose about a training run. The one place of these defaults; `swinssl_train --help` shows them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

# Fields that may change when a run goes on; any other change would make it another run.
MAY_CHANGE_ON_RESUME = {"epochs", "steps", "max_minutes", "patience", "device", "readers"}


class TrainingConfig(BaseModel):
    """Choices of one fine-tuning run; None means: as planned."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    init: str = Field("scratch", description="scratch, or an encoder file to start from.")
    epochs: int | None = Field(None, ge=1, description="Length in epochs. Default: as planned.")
    steps: int | None = Field(None, ge=1, description="Length in optimiser steps; stands above --epochs.")
    max_minutes: float | None = Field(
        None, gt=0, description="Longest time; the schedule is fitted into it, final validation included."
    )
    lr: float | None = Field(None, gt=0, description="Peak learning rate. Default: as planned.")
    encoder_lr_scale: float = Field(1.0, gt=0, description="Factor of the encoder's learning rate.")
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="Factor of the learning rate from each encoder layer to the one before it."
    )
    freeze_epochs: int = Field(0, ge=0, description="Epochs in which the pretrained encoder stays as it is.")
    peft: Literal["none", "lora"] = Field(
        "none", description="lora trains low-rank changes of the pretrained encoder's linear layers, and the decoder."
    )
    lora_rank: int = Field(8, ge=1, description="Rank of these changes.")
    batch_size: int | None = Field(None, ge=1, description="Patches a step. Default: as planned.")
    accumulate: int = Field(1, ge=1, description="Parts that a batch is computed in, to save memory.")
    recompute: bool = Field(
        False, description="Compute the encoder's blocks again in the backward pass: less memory, more time."
    )
    patience: int | None = Field(
        None, ge=1, description="Epochs without a better validation Dice before stopping. Default: as planned."
    )
    shots: int | None = Field(None, ge=1, description="Train on this many cases of the fold; nested, stratified.")
    seed: int = Field(0, ge=0, description="Seed of every random draw.")
    ema: float = Field(
        0.999, ge=0, lt=1, description="Decay of the weight average used for validation and prediction; 0 is off."
    )
    augmentation: Literal["default", "batchgenerators", "none"] = Field(
        "default", description="default (own, nnU-Net's strength), batchgenerators (nnU-Net v1's) or none."
    )
    preset: str | None = Field(None, description="Encoder size instead of the planned one; see swinssl_network.")
    decoder: Literal["full", "light"] | None = Field(None, description="Decoder instead of the planned one.")
    network: Literal["swin", "plainconv", "resenc"] | None = Field(
        None, description="Architecture instead of the planned one; plainconv and resenc are CNN baselines."
    )
    norm: Literal["batch", "instance"] | None = Field(None, description="Decoder norm instead of the planned one.")
    deep_supervision: bool | None = Field(None, description="Losses at 1/2 and 1/4 resolution too.")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's, on weight matrices and kernels only.")
    warm_up: float = Field(0.03, ge=0, lt=1, description="Share of the run in which the learning rate rises.")
    clip: float = Field(5.0, gt=0, description="Largest norm of the gradient.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto computes in bf16 where the hardware has instructions for it."
    )
    device: str = Field("auto", description="auto (cuda, else mps, else cpu), cpu, cuda, cuda:1 or mps.")
    readers: int = Field(1, ge=0, description="Threads that read and augment ahead of the step; 0 reads in place.")
