"""What a user may choose about a pretraining run; `swinssl_pretrain_<method> --help` shows it."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Literal

from pydantic import Field, create_model

from swinssl.core.errors import UserError
from swinssl.ssl.method import Method
from swinssl.ssl.parts.schedules import WARM_UP
from swinssl.training.engine.config import LARGEST_RATE, EngineConfig

EPOCHS, LEARNING_RATE = 500, 2e-4
WHOLE = "whole"


class PretrainingConfig(EngineConfig):
    """Choices that all methods have; None means: as planned."""

    init: str = Field(default="scratch", description="scratch, or an encoder file to go on from.")
    epochs: int | None = Field(
        default=None, ge=1, description=f"Length in epochs, each as many crops as there are volumes. Default: {EPOCHS}."
    )
    lr: float | None = Field(
        default=None, gt=0, le=LARGEST_RATE, description=f"Peak learning rate. Default: {LEARNING_RATE:g}."
    )
    warm_up: float = Field(
        default=WARM_UP, ge=0, lt=1, description="Share of the run in which the learning rate rises."
    )
    preset: str | None = Field(
        default=None, description="Encoder size instead of the planned one; see swinssl_network."
    )
    patch: tuple[int, int, int] | None = Field(
        default=None, description="Crop: z y x voxels, multiples of 32. Default: as planned."
    )
    view_context: str = Field(
        default="4/3",
        description="Edge of the region that both views of a sample come from, in edges of the crop; whole: anywhere "
        "in the volume.",
    )
    cases: int | None = Field(default=None, ge=1, description="Pretrain on so many volumes, drawn by the seed; nested.")
    weights: str | None = Field(
        default=None, description="How often each data set is drawn from: 2,1. Default: every volume alike."
    )

    probe: str | None = Field(
        default=None,
        description="Preprocessed data set with labels: every so often a linear classifier on the frozen features of a "
        "few of its cases says what the encoder is worth; the best is kept beside the last.",
    )
    probe_cases: int = Field(default=5, ge=1, description="Cases to fit that classifier; as many more are measured.")

    @property
    def context(self) -> float | None:
        """Edge of the common region in edges of the crop; None is the whole volume.

        Raises:
            UserError: it is no number from 1 on.
        """
        if self.view_context == WHOLE:
            return None
        try:
            edge = float(Fraction(self.view_context))
        except (ValueError, ZeroDivisionError):
            edge = 0.0
        if edge < 1:
            raise UserError(f"--view-context {self.view_context}: expected a number from 1 on (4/3), or {WHOLE}.")
        return edge


def config_of(method: type[Method]) -> type[PretrainingConfig]:
    """The choices of one method: where its authors clip otherwise, these are the defaults."""
    clip, clip_per = (PretrainingConfig.model_fields[name].description for name in ("clip", "clip_per"))
    fields: dict[str, Any] = {
        "clip": (float, Field(method.clip, gt=0, description=clip)),
        "clip_per": (Literal["network", "tensor"], Field(method.clip_per, description=clip_per)),
    }
    return create_model(f"{method.__name__}PretrainingConfig", __base__=PretrainingConfig, **fields)
