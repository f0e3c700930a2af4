"""Options that several methods share, each with its only default."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class MethodOptions(BaseModel):
    """Options of one method."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class MaskOptions(MethodOptions):
    """Options of methods that mask tokens."""

    mask_ratio: float = Field(0.75, gt=0, lt=1, description="Fraction of the cells that is masked.")
    mask_cell: str = Field(
        "16",
        description="Edge of a masked cell in voxels (16) or mm (24mm). Below 16 voxels, token distillation uses the "
        "tokens (16 voxels wide) of which more than half is masked.",
    )


class ErrorOptions(MethodOptions):
    """Options of methods that reconstruct an image."""

    reconstruction_loss: Literal["l2", "l1"] = Field(
        "l2", description="l2 is the squared error (the paper), l1 the absolute error (the public code)."
    )


class CutOutOptions(MethodOptions):
    """Options of methods that reconstruct boxes of noise."""

    cut_out: float = Field(0.3, gt=0, le=0.9, description="Fraction of the voxels that boxes of noise cover.")


class PoolOptions(MethodOptions):
    """Options of methods with a head on the pooled last map."""

    pool: Literal["mean", "token"] = Field(
        "mean", description="Heads read the mean of the last map, or one token of it (SwinUNETR's public code)."
    )


class TurnOptions(PoolOptions):
    """Options of methods that classify rotations."""

    rotation_plane: Literal["yx", "zx", "zy"] = Field(
        "yx", description="Plane of the rotations; yx is axial. The paper does not specify it."
    )


class DistillationOptions(MethodOptions):
    """Options of methods with a teacher."""

    prototypes: int = Field(8192, ge=2, description="Number of prototypes K, the classes of the distributions.")
    teacher_temperature: float = Field(
        0.07,
        gt=0,
        description="Temperature of the teacher's softmax after the warm-up, during which it rises from 0.04.",
    )
    teacher_momentum: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Initial momentum of the teacher; it rises to 1. Default: 0.996, less in runs of under 25,000 "
        "steps (an average over a hundredth of the run).",
    )
    tap: Literal["stage4", "merge3"] = Field(
        "stage4",
        description="Feature level of the tokens: stage4, the fourth stage's output, so that every stage learns; "
        "merge3, the merging before it (the public code).",
    )
    keep: Literal["teacher", "student"] = Field(
        "teacher", description="Encoder to save: the teacher's (a moving average of the student's) or the student's."
    )
