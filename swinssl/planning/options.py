"""What a user may choose about a plan. The one place of these defaults; `swinssl_plan --help` shows them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from swinssl.core.geometry import Shape, Spacing
from swinssl.dataset.normalisations import normalisation_forms
from swinssl.networks import architectures
from swinssl.networks.network_plan import ArchitectureName


class PlanOptions(BaseModel):
    """Choices of one plan; None means: decide from the data, the device and the time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: Literal["auto", "paper"] = Field(
        default="auto",
        description="auto plans for these data and this device; paper is the source paper's protocol "
        "(2 x 1.5 x 1.5 mm, 96 x 96 x 96, batch 3, smit96).",
    )
    max_minutes: float | None = Field(
        default=None, gt=0, description="Time that training may take; on a CPU also sets network, patch and spacing."
    )
    gpu_memory: float | None = Field(
        default=None, gt=0, description="Plan for a GPU of so many GB, also on a machine without one."
    )
    spacing: Spacing | None = Field(default=None, description="Grid that images are resampled to: z y x in mm.")
    patch: Shape | None = Field(default=None, description="Training patch: z y x voxels, multiples of 32.")
    batch_size: int | None = Field(default=None, ge=1, description="Patches a step.")
    preset: str | None = Field(
        default=None, description="Size of the encoder: tiny, small, smit96, smit128, smits or smitp."
    )
    decoder: Literal["full", "light"] | None = Field(
        default=None, description="full (the paper's) or light (at most 16 channels at full resolution, for CPUs)."
    )
    network: ArchitectureName = Field(default=architectures.DEFAULT, description=architectures.HELP)
    intensity: str | None = Field(
        default=None,
        description=f"auto, {', '.join(normalisation_forms())} or encoder; one for all channels, "
        "or one for each channel, separated by commas.",
    )
    sampling: Literal["organ", "tumour"] | None = Field(
        default=None, description="organ draws the class first; tumour draws patches with and without tumour 1:1."
    )
    mirror: str | None = Field(
        default=None,
        description="Axes that training and --tta may mirror: all, none, or such as z,y. Default: left-right (x) only "
        "where no structure has a side.",
    )


SPACING = (2.0, 1.5, 1.5)
PATCH = (96, 96, 96)
BATCH, EPOCHS, PRESET, LEARNING_RATE = 3, 1000, "smit96", 2e-4
# The paper stops early and does not say when: a documented guess.
PATIENCE = 100
# CT for fine-tuning and for pretraining in HU; MR by the case's own percentiles.
CT_WINDOW, CT_PRETRAINING_WINDOW, MR_PERCENTILES = (-175.0, 250.0), (-500.0, 500.0), (5.0, 95.0)
