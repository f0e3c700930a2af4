"""Options that several methods share; each default stands here alone."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class MethodOptions(BaseModel):
    """Choices of one method."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class MaskOptions(MethodOptions):
    """Of the methods that mask tokens."""

    mask_ratio: float = Field(0.75, gt=0, lt=1, description="Share of the cells that is masked.")
    mask_cell: str = Field(
        "16",
        description="Edge of a masked cell in voxels (16) or mm (24mm). Under 16 voxels the distillation of tokens, "
        "each 16 voxels wide, takes those of which more than half is masked.",
    )


class ErrorOptions(MethodOptions):
    """Of the methods that paint an image."""

    reconstruction_loss: Literal["l2", "l1"] = Field(
        "l2", description="l2 is the paper's squared error, l1 what the public code used."
    )


class CutOutOptions(MethodOptions):
    """Of the methods that paint over boxes of noise."""

    cut_out: float = Field(0.3, gt=0, le=0.9, description="Share of the voxels that boxes of noise cover.")


class PoolOptions(MethodOptions):
    """Of the methods with a head on the whole of the last map."""

    pool: Literal["mean", "token"] = Field(
        "mean", description="A head reads the mean of the last map, or one token of it (SwinUNETR's public code)."
    )


class TurnOptions(PoolOptions):
    """Of the methods that tell rotations apart."""

    rotation_plane: Literal["yx", "zx", "zy"] = Field(
        "yx", description="Plane of the quarter turns; yx is axial. The paper does not name it: a documented guess."
    )


class DistillationOptions(MethodOptions):
    """Of the methods with a teacher."""

    prototypes: int = Field(8192, ge=2, description="Prototypes that distributions are over (K).")
    teacher_temperature: float = Field(
        0.07, gt=0, description="Of the teacher's softmax after the warm-up, in which it rises from 0.04."
    )
    teacher_momentum: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Of the teacher's average over the student at the start; it rises to 1. Default: 0.996, less in "
        "runs of under 25,000 steps (an average over a hundredth of the run).",
    )
    tap: Literal["stage4", "merge3"] = Field(
        "stage4",
        description="Tokens are the fourth stage's output, so that every stage learns, or that of the merging before "
        "it (the public code).",
    )
    keep: Literal["teacher", "student"] = Field(
        "teacher", description="Whose encoder is the result; the teacher's is an average of the student's."
    )
