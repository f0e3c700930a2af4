"""What a user may choose about prediction. The one place of these defaults; `swinssl_predict --help` shows them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class PredictionOptions(BaseModel):
    """Choices of one prediction run; the model's plans say the rest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    overlap: float = Field(0.5, ge=0, le=0.9, description="Least share of a window that its neighbour sees too.")
    tta: bool = Field(
        False, description="Average over mirror images along the axes that training mirrored: 2 to 8 times the work."
    )
    save_probabilities: bool = Field(
        False, description="Also write <case>.npz with the array `probabilities` (structure, z, y, x) in float32."
    )
    clean_up: bool = Field(
        True,
        description="Keep only the largest component of the structures where swinssl_train measured that this helps.",
    )
    device: str = Field("auto", description="auto (cuda, else mps, else cpu), cpu, cuda, cuda:1 or mps.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto computes in bf16 where the hardware has instructions for it."
    )
    overwrite: bool = Field(False, description="Predict anew what the output folder has already.")
