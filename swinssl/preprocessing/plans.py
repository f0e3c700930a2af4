"""Plans: everything that was decided about a data set, and why. The only thing that training and inference read."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from swinssl import files
from swinssl.dataset.labels import LabelSet
from swinssl.json_model import read_model
from swinssl.networks.network_plan import NetworkPlan

PLANS_FILE = "swinsslPlans.json"
PLANS_VERSION = 1
REMEDY = "Run swinssl_plan, or give a complete folder."


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Intensity(_Frozen):
    """How the intensities of one channel are normalised; every scheme but `zscore` ends in [0, 1].

    Args:
        scheme: `window` clips to [low, high] and scales; `percentile` does so with the case's own percentiles `low` and
            `high` (in %) over its non-zero voxels (over all, if under 5 % are zero); `zscore` subtracts the case's mean
            and divides by its standard deviation; `none` only casts.
        low: lower bound, in the image's units or in %.
        high: upper bound, likewise.
        inside_mask: statistics over the non-zero mask only, and zero outside it.
    """

    scheme: Literal["window", "percentile", "zscore", "none"]
    low: float = 0.0
    high: float = 0.0
    inside_mask: bool = False


class Resampling(_Frozen):
    """Spline orders, and whether the coarse axis is treated apart (nnU-Net's separate-z rule when None)."""

    image_order: int = 3
    label_order: int = 1
    order_z: int = 0
    separate_z: bool | None = None


class TrainingPlan(_Frozen):
    """Defaults of fine-tuning; flags of `swinssl_train` stand above them.

    Args:
        batch_size: patches a step, over all ranks.
        learning_rate: peak, AdamW with cosine schedule.
        epochs: length of the run.
        steps_per_epoch: optimiser steps that are called an epoch.
        patience: epochs without a better validation Dice before training stops; None never stops early.
        sampling: `organ` draws the class first; `tumour` draws patches with and without tumour 1:1.
        loss: `softmax` = cross-entropy + Dice over exclusive labels; `sigmoid` = binary ones, for regions.
        dice: form of the Dice term: `log` = -log(Dice), `linear` = 1 - Dice.
        mirror_axes: array axes (0 z, 1 y, 2 x) that augmentation and test-time augmentation may flip.
    """

    batch_size: int = 2
    learning_rate: float = 2e-4
    epochs: int = 300
    steps_per_epoch: int = 100
    patience: int | None = None
    sampling: Literal["organ", "tumour"] = "organ"
    loss: Literal["softmax", "sigmoid"] = "softmax"
    dice: Literal["log", "linear"] = "log"
    mirror_axes: tuple[int, ...] = (0, 1, 2)


class Cost(_Frozen):
    """What the planned training is expected to take.

    Args:
        memory_gb: peak memory of a training step in 10^9 bytes.
        step_seconds_cpu: seconds of a training step on two CPU cores.
        device: what the plan was made for.
        hours: of the whole training on it; on a GPU a guess.
    """

    memory_gb: float
    step_seconds_cpu: float
    device: str = "cpu"
    hours: float | None = None


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
    spacing: tuple[float, float, float] | None = None
    axis_order: str = "zyx"
    place: str | None = None


class IntensityStatistics(_Frozen):
    """Foreground intensities of one channel over the whole data set, in the image's units (nnU-Net's seven)."""

    max: float
    mean: float
    median: float
    min: float
    percentile_00_5: float
    percentile_99_5: float
    std: float


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
    """

    version: int = PLANS_VERSION
    dataset_name: str
    recipe: Literal["auto", "paper"] = "auto"
    channel_names: tuple[str, ...]
    labels: LabelSet
    spacing: tuple[float, float, float]
    patch_size: tuple[int, int, int]
    median_shape: tuple[int, int, int]
    channel_kinds: tuple[Literal["hounsfield", "ct_in_another_unit", "arbitrary"], ...] = ()
    intensity: tuple[Intensity, ...]
    crop_to_nonzero: bool = True
    resampling: Resampling = Resampling()
    network: NetworkPlan
    training: TrainingPlan
    cost: Cost
    encoder: EncoderReference | None = None
    training_spacings: tuple[tuple[float, float, float], tuple[float, float, float]]
    training_extent_mm: tuple[tuple[float, float, float], tuple[float, float, float]]
    intensity_statistics: tuple[IntensityStatistics, ...]
    reasons: dict[str, str] = {}

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
        return read_model(cls, path, what="plans", remedy=remedy, version=PLANS_VERSION)

    def write(self, path: Path) -> None:
        """Write atomically."""
        files.write_json(path, self.model_dump(mode="json"))

    @property
    def preprocessing_key(self) -> dict[str, object]:
        """The decisions that preprocessed data depend on; changing any other needs no new preprocessing."""
        chosen = {"spacing", "intensity", "crop_to_nonzero", "resampling", "labels", "channel_names"}
        return self.model_dump(mode="json", include=chosen)
