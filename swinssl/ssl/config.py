"""Options of a pretraining run, as `swinssl_pretrain_<method> --help` shows them."""

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
    """Options that all methods share; None takes the plan's value."""

    init: str = Field(default="scratch", description="Encoder to start from: a file, a shipped name, or scratch.")
    epochs: int | None = Field(
        default=None, ge=1, description=f"Length in epochs of as many crops as there are volumes. Default: {EPOCHS}."
    )
    lr: float | None = Field(
        default=None, gt=0, le=LARGEST_RATE, description=f"Peak learning rate. Default: {LEARNING_RATE:g}."
    )
    warm_up: float = Field(
        default=WARM_UP, ge=0, lt=1, description="Fraction of the run during which the learning rate rises."
    )
    preset: str | None = Field(
        default=None, description="Encoder size instead of the planned one; see swinssl_network."
    )
    patch: tuple[int, int, int] | None = Field(
        default=None, description="Crop: z y x voxels, multiples of 32. Default: as planned."
    )
    view_context: str = Field(
        default="4/3",
        description="Edge of the region that both views of a sample are cropped from, in multiples of the crop's edge; "
        "whole: anywhere in the volume.",
    )
    cases: int | None = Field(
        default=None, ge=1, description="Pretrain on this many volumes, chosen by the seed; nested."
    )
    weights: str | None = Field(
        default=None, description="Sampling weights of the data sets, such as 2,1. Default: every volume equally."
    )

    probe: str | None = Field(
        default=None,
        description="Preprocessed data set with labels. At intervals, a linear classifier on frozen features of a few "
        "of its cases scores the encoder; the best encoder is kept beside the last.",
    )
    probe_cases: int = Field(default=5, ge=1, description="Cases to fit that classifier; as many others are scored.")

    @property
    def context(self) -> float | None:
        """Edge of the common region in edges of the crop; None is the whole volume.

        Raises:
            UserError: it is not a number of at least 1.
        """
        if self.view_context == WHOLE:
            return None
        try:
            edge = float(Fraction(self.view_context))
        except (ValueError, ZeroDivisionError):
            edge = 0.0
        if edge < 1:
            raise UserError(
                f"--view-context {self.view_context}: expected a number of at least 1 (such as 4/3), or {WHOLE}."
            )
        return edge


def config_of(method: type[Method]) -> type[PretrainingConfig]:
    """The options of one method; its authors' gradient clipping is the default."""
    clip, clip_per = (PretrainingConfig.model_fields[name].description for name in ("clip", "clip_per"))
    fields: dict[str, Any] = {
        "clip": (float, Field(method.clip, gt=0, description=clip)),
        "clip_per": (Literal["network", "tensor"], Field(method.clip_per, description=clip_per)),
    }
    return create_model(f"{method.__name__}PretrainingConfig", __base__=PretrainingConfig, **fields)
