"""What the engine itself lets a user choose, whatever it trains. Fine-tuning and pretraining add to it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

# How long a run is: a longer one goes on where the shorter one ended.
END_OPTIONS = ("epochs", "steps", "max_minutes")
LENGTH_OPTIONS = {*END_OPTIONS, "patience"}
# What a run is computed with: it changes its weights by rounding at most.
MACHINE_OPTIONS = {"device", "readers", "shard", "recompute", "precision"}
# Options that may change when a run resumes; any other change would make it another run.
MAY_CHANGE_ON_RESUME = LENGTH_OPTIONS | MACHINE_OPTIONS
# Beyond it steps overflow, whatever the network.
LARGEST_RATE = 1e3

# Encoders whose weights, gradients and optimiser states are worth the sending of them.
SHARDED_PRESETS = {"smitp"}


class EngineConfig(BaseModel):
    """Choices of a run of the engine; None means: as planned. The one place of these defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: int | None = Field(default=None, ge=1, description="Length in epochs. Default: as planned.")
    steps: int | None = Field(
        default=None, ge=1, description="Length in optimiser steps; takes precedence over --epochs."
    )
    max_minutes: float | None = Field(
        default=None, gt=0, description="Time limit; the schedule fits into it, including the final validation."
    )
    lr: float | None = Field(
        default=None, gt=0, le=LARGEST_RATE, description="Peak learning rate. Default: as planned."
    )
    batch_size: int | None = Field(default=None, ge=1, description="Patches per step. Default: as planned.")
    accumulate: int = Field(default=1, ge=1, description="Split each batch into this many parts, to save memory.")
    recompute: bool = Field(
        default=False, description="Recompute the encoder's blocks in the backward pass: less memory, more time."
    )
    shard: bool | None = Field(
        default=None,
        description="With --gpus, each GPU keeps only its share of the weights and optimiser states of the encoder's "
        "blocks. Default: for the preset smitp.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of all random numbers.")
    weight_decay: float = Field(
        default=0.01, ge=0, le=LARGEST_RATE, description="Weight decay of AdamW, on weight matrices and kernels only."
    )
    warm_up: float = Field(
        default=0.03, ge=0, lt=1, description="Fraction of the run during which the learning rate rises."
    )
    clip: float = Field(default=5.0, gt=0, description="Maximum norm of the gradient.")
    clip_per: Literal["network", "tensor"] = Field(
        default="network", description="Clip the norm of the whole gradient or that of each tensor."
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="auto uses bf16 where the hardware supports it."
    )
    device: str = Field(default="auto", description="auto (cuda, else mps, else cpu), cpu, cuda, cuda:1 or mps.")
    readers: int = Field(
        default=1, ge=0, description="Threads that read and augment ahead of the step; 0 reads in the main thread."
    )

    def memory_remedy(self, batch_size: int, *, saved: bool) -> str:
        """What to type where memory does not suffice for training.

        Args:
            batch_size: of the run.
            saved: it has a checkpoint, so that options which make it another run need `--restart`.
        """
        gentle = [] if self.recompute else ["--recompute (less memory for more time)"]
        gentle += ["--readers 0"] if self.readers else []
        gentle += ["--device cpu"] if self.device != "cpu" else []
        other = [f"--accumulate {min(2 * self.accumulate, batch_size)}"] if self.accumulate < batch_size else []
        other += [f"--batch-size {batch_size // 2}"] if batch_size > 1 else []
        if other and saved:
            other[-1] += " (the last two with --restart)" if len(other) > 1 else " (with --restart)"
        choices = [*gentle, *other]
        advice = f"Rerun with {', '.join(choices[:-1])} or {choices[-1]}" if len(choices) > 1 else "".join(choices)
        where = "close other programs, or choose a smaller --patch or --preset in swinssl_plan"
        return f"{advice}; {where}." if advice else f"{where[0].upper()}{where[1:]}."

    def with_length_of(self, earlier: EngineConfig) -> Self:
        """These choices with the length of the run that they resume, where they have none of their own."""
        unset = [name for name in ("patience",) if getattr(self, name, None) is None]
        unset += END_OPTIONS if all(getattr(self, name) is None for name in END_OPTIONS) else ()
        kept = {name: value for name in unset if (value := getattr(earlier, name, None)) is not None}
        return self.model_copy(update=kept)

    def kept_length(self, asked: EngineConfig) -> str | None:
        """In words, the options of length that a resumed run keeps although they were not `asked` for; None if none."""
        kept = [name for name in (*END_OPTIONS, "patience") if getattr(self, name, None) != getattr(asked, name, None)]
        if not kept:
            return None
        typed = " ".join(f"--{name.replace('_', '-')} {getattr(self, name):g}" for name in kept)
        return f"length: {typed}, as the run was started; give --steps, --epochs or --max-minutes to change it"

    def shards(self, preset: str | None) -> bool:
        """Whether to spread the blocks of an encoder of this size over the ranks, where there are several."""
        return preset in SHARDED_PRESETS if self.shard is None else self.shard
