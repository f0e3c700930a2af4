"""Plans: everything that was decided about a data set, and why. The only thing that training and inference read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.core.json_model import read_model
from swinssl.dataset.labels import LabelSet
from swinssl.dataset.normalisations import normalisation_error
from swinssl.networks.network_plan import NetworkPlan

PLANS_FILE = "swinsslPlans.json"
PLANS_VERSION = 2
REMEDY = "Run swinssl_plan, or give a complete folder."
# Five halvings of a patch.
PATCH_MULTIPLE = 32

# Plans come from strangers and from text editors too: beyond these bounds a value would hang, fill the memory or fail.
Millimetres = Annotated[float, Field(ge=1e-3, le=1e3)]
Extent = Annotated[float, Field(gt=0, le=1e7)]
PatchEdge = Annotated[int, Field(ge=1, le=2048)]
Finite = Annotated[float, Field(allow_inf_nan=False, ge=-3.5e38, le=3.5e38)]  # float32's
Axis = Annotated[int, Field(ge=0, le=2)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Intensity(_Frozen):
    """How the intensities of one channel are normalised; `window` and `percentile` end in [0, 1].

    Args:
        scheme: a name in `dataset.normalisations.NORMALISATIONS`.
        low: lower bound, in the image's units or in %.
        high: upper bound, likewise.
        inside_mask: statistics over the non-zero mask only, and zero outside it.
    """

    scheme: str
    low: Finite = 0.0
    high: Finite = 0.0
    inside_mask: bool = False

    @model_validator(mode="after")
    def _is_known(self) -> Self:
        if error := normalisation_error(self.scheme, self.low, self.high):
            raise ValueError(error)
        return self


class Resampling(_Frozen):
    """Spline orders, and whether the coarse axis is treated apart (nnU-Net's separate-z rule when None)."""

    image_order: int = Field(3, ge=0, le=5)
    label_order: int = Field(1, ge=0, le=5)
    order_z: int = Field(0, ge=0, le=5)
    separate_z: bool | None = None


class TrainingPlan(_Frozen):
    """Defaults of fine-tuning; flags of `swinssl_train` stand above them.

    Args:
        batch_size: patches a step, over all ranks.
        learning_rate: peak, AdamW with cosine schedule.
        epochs: length of the run.
        steps_per_epoch: optimiser steps that are called an epoch.
        patience: validations in a row without a better Dice before training stops; None never stops early.
        sampling: `organ` draws the class first; `tumour` draws patches with and without tumour 1:1.
        loss: `softmax` = cross-entropy + Dice over exclusive labels; `sigmoid` = binary ones, for regions.
        dice: form of the Dice term: `log` = -log(Dice), `linear` = 1 - Dice.
        mirror_axes: array axes (0 z, 1 y, 2 x) that augmentation and test-time augmentation may flip.
    """

    batch_size: int = Field(2, ge=1, le=4096)
    learning_rate: float = Field(2e-4, gt=0, le=10)
    epochs: int = Field(300, ge=1, le=1_000_000)
    steps_per_epoch: int = Field(100, ge=1, le=1_000_000)
    patience: int | None = Field(None, ge=1)
    sampling: Literal["organ", "tumour"] = "organ"
    loss: Literal["softmax", "sigmoid"] = "softmax"
    dice: Literal["log", "linear"] = "log"
    mirror_axes: tuple[Axis, ...] = (0, 1, 2)

    @model_validator(mode="after")
    def _axes_differ(self) -> Self:
        if len({*self.mirror_axes}) < len(self.mirror_axes):
            raise ValueError(f"mirror_axes {self.mirror_axes} name an axis twice")
        return self


class Cost(_Frozen):
    """What the planned training is expected to take.

    Args:
        memory_gb: peak memory of a training step in 10^9 bytes.
        step_seconds_cpu: seconds of a training step on two CPU cores.
        device: what the plan was made for.
        hours: of the whole training on it; on a GPU a guess.
    """

    memory_gb: float = Field(ge=0, allow_inf_nan=False)
    step_seconds_cpu: float = Field(ge=0, allow_inf_nan=False)
    device: str = "cpu"
    hours: float | None = Field(None, ge=0, allow_inf_nan=False)


class EncoderReference(_Frozen):
    """The pretrained encoder that a plan was made for.

    Args:
        sha256: of its file.
        name: for names of models and tables.
        spacing: (z, y, x) in mm that it was trained at.
        axis_order: of the arrays it was trained on.
        place: shipped name or absolute path of its file when the plan was made. Only the plans of a preprocessed data
            set have it; those of a trained model, which travels, do not.
    """

    sha256: str
    name: str
    spacing: tuple[Millimetres, Millimetres, Millimetres] | None = None
    axis_order: str = "zyx"
    place: str | None = None


class IntensityStatistics(_Frozen):
    """Foreground intensities of one channel over the whole data set, in the image's units (nnU-Net's seven)."""

    max: Finite
    mean: Finite
    median: Finite
    min: Finite
    percentile_00_5: Finite
    percentile_99_5: Finite
    std: Annotated[Finite, Field(ge=0)]


class PlanWarning(_Frozen):
    """Something about a plan that the user should know.

    Args:
        decision: what it concerns, a key of `Plans.reasons`.
        severity: `warning` where the user should act or check something, `note` where it is good to know.
        message: what it is; no full stop at its end.
    """

    decision: str
    severity: Literal["warning", "note"] = "warning"
    message: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.message}"


class Plans(_Frozen):
    """What was decided for a data set. All triples are (z, y, x).

    Args:
        dataset_name: folder name of the raw data set.
        recipe: protocol the plan follows.
        channel_names: image channels in order.
        labels: structures and their codings.
        spacing: mm of the grid that images are resampled to.
        patch_size: voxels of a training patch and of the sliding window.
        median_shape: median shape of the cropped cases on that grid.
        channel_kinds: what each channel is (`ChannelKind.kind`); empty in plans of 0.1.0.
        intensity: per channel.
        crop_to_nonzero: cases are cropped to their non-zero voxels before anything else.
        encoder: the pretrained encoder that the plan was made for, if any.
        training_spacings: lowest and highest source spacing per axis, for the warning at prediction.
        training_extent_mm: lowest and highest field of view per axis, likewise.
        intensity_statistics: foreground statistics per channel, likewise.
        reasons: per decision, why, in words.
        warnings: what the user should know about the decisions.
    """

    version: int = PLANS_VERSION
    dataset_name: str
    recipe: Literal["auto", "paper"] = "auto"
    channel_names: tuple[str, ...]
    labels: LabelSet
    spacing: tuple[Millimetres, Millimetres, Millimetres]
    patch_size: tuple[PatchEdge, PatchEdge, PatchEdge]
    median_shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    channel_kinds: tuple[Literal["hounsfield", "ct_in_another_unit", "arbitrary"], ...] = ()
    intensity: tuple[Intensity, ...]
    crop_to_nonzero: bool = True
    resampling: Resampling = Resampling()
    network: NetworkPlan
    training: TrainingPlan
    cost: Cost
    encoder: EncoderReference | None = None
    training_spacings: tuple[tuple[Extent, Extent, Extent], tuple[Extent, Extent, Extent]]
    training_extent_mm: tuple[tuple[Extent, Extent, Extent], tuple[Extent, Extent, Extent]]
    intensity_statistics: tuple[IntensityStatistics, ...]
    reasons: dict[str, str] = {}
    warnings: tuple[PlanWarning, ...] = ()

    @model_validator(mode="after")
    def _one_entry_a_channel(self) -> Self:
        count = len(self.channel_names)
        for what in ("intensity", "intensity_statistics"):
            if (found := len(getattr(self, what))) != count or not count:
                raise ValueError(f"{what} has {found} entries for {count} channels")
        return self

    @classmethod
    def read(cls, path: Path, *, remedy: str = REMEDY) -> Plans:
        """The plans of a file, or of the `swinsslPlans.json` in a folder.

        Args:
            remedy: what the user does where they are not usable.

        Raises:
            UserError: missing, not JSON, of another version, or with a field that does not fit.
        """
        path = Path(path)
        if path.is_dir():
            path = path / PLANS_FILE
        plans = read_model(cls, path, what="plans", remedy=remedy, version=PLANS_VERSION, upgrade=_upgraded)
        if any(edge % PATCH_MULTIPLE for edge in plans.patch_size):
            raise UserError(f"{path}: patch_size {plans.patch_size}; expected multiples of {PATCH_MULTIPLE}. {remedy}")
        return plans

    def write(self, path: Path) -> None:
        """Write atomically."""
        files.write_json(path, self.model_dump(mode="json"))

    @property
    def preprocessing_key(self) -> dict[str, object]:
        """The decisions that preprocessed data depend on; changing any other needs no new preprocessing."""
        chosen = {"spacing", "intensity", "crop_to_nonzero", "resampling", "labels", "channel_names"}
        return self.model_dump(mode="json", include=chosen)

    @property
    def prediction_key(self) -> dict[str, object]:
        """The decisions that a trained model's predictions and warnings depend on, as far as they are not defaults.

        A field that a later version adds with a default leaves the key, and its hash, as they are. So a field's default
        must never change.
        """
        how = {"recipe", "encoder", "median_shape", "training", "cost", "reasons", "warnings", "version"}
        kept = self.model_dump(mode="json", exclude=how, exclude_defaults=True)
        return {**kept, "mirror_axes": list(self.training.mirror_axes)}

    @property
    def prediction_sha256(self) -> str:
        """Hash of `prediction_key`; the weights that were trained with these plans keep it."""
        return sha256_of_json(self.prediction_key)


def _upgraded(content: dict[str, Any]) -> dict[str, Any]:
    """Plans of version 1 as ones of this version: warnings stood in the reasons, after `NOTE:`."""
    reasons = content.get("reasons", {})
    if content.get("version") != 1 or not isinstance(reasons, dict):
        return content
    warnings, plain = [], {}
    for decision, reason in reasons.items():
        parts = [part.split(". NOTE: ") for part in str(reason).split(" | ")]
        plain[decision] = " | ".join(why for why, *_ in parts)
        warnings += [{"decision": decision, "message": note.strip()} for _, *notes in parts for note in notes]
    return {**content, "version": PLANS_VERSION, "reasons": plain, "warnings": warnings}


def sha256_of_json(value: object) -> str:
    """Hexadecimal SHA-256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
