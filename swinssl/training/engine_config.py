"""What the engine itself lets a user choose, whatever it trains. Fine-tuning and pretraining add to it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

# Fields that may change when a run goes on; any other change would make it another run.
MAY_CHANGE_ON_RESUME = {"epochs", "steps", "max_minutes", "patience", "device", "readers", "shard"}

# Encoders whose weights, gradients and optimiser states are worth the sending of them.
SHARDED_PRESETS = {"smitp"}


class EngineConfig(BaseModel):
    """Choices of a run of the engine; None means: as planned. The one place of these defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int | None = Field(None, ge=1, description="Length in epochs. Default: as planned.")
    steps: int | None = Field(None, ge=1, description="Length in optimiser steps; stands above --epochs.")
    max_minutes: float | None = Field(
        None, gt=0, description="Longest time; the schedule is fitted into it, final validation included."
    )
    lr: float | None = Field(None, gt=0, description="Peak learning rate. Default: as planned.")
    batch_size: int | None = Field(None, ge=1, description="Patches a step. Default: as planned.")
    accumulate: int = Field(1, ge=1, description="Parts that a batch is computed in, to save memory.")
    recompute: bool = Field(
        False, description="Compute the encoder's blocks again in the backward pass: less memory, more time."
    )
    shard: bool | None = Field(
        None,
        description="With --gpus: each keeps its share of the encoder's blocks alone, weights and optimiser states, "
        "instead of all of them. Default: for the preset smitp.",
    )
    seed: int = Field(0, ge=0, description="Seed of every random draw.")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's, on weight matrices and kernels only.")
    warm_up: float = Field(0.03, ge=0, lt=1, description="Share of the run in which the learning rate rises.")
    clip: float = Field(5.0, gt=0, description="Largest norm of the gradient.")
    clip_per: Literal["network", "tensor"] = Field(
        "network", description="Clip the norm of the whole gradient, or of each tensor's."
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto computes in bf16 where the hardware has instructions for it."
    )
    device: str = Field("auto", description="auto (cuda, else mps, else cpu), cpu, cuda, cuda:1 or mps.")
    readers: int = Field(1, ge=0, description="Threads that read and augment ahead of the step; 0 reads in place.")

    def shards(self, preset: str | None) -> bool:
        """Whether to spread the blocks of an encoder of this size over the ranks, where there are several."""
        return preset in SHARDED_PRESETS if self.shard is None else self.shard
