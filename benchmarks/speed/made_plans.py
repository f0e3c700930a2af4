"""Plans for a stage: what it depends on is given, everything else is of no account."""

from __future__ import annotations

from typing import Any

from swinssl.core.geometry import Spacing
from swinssl.dataset.labels import LabelSet
from swinssl.networks.network_plan import NetworkPlan
from swinssl.preprocessing.plans import Cost, Intensity, IntensityStatistics, Plans, TrainingPlan


def labels_of(structures: int) -> LabelSet:
    """Exclusive structures with the values 1 to `structures`."""
    values = range(1, structures + 1)
    return LabelSet(names=tuple(f"structure {value}" for value in values), values=tuple((value,) for value in values))


def plans_of(labels: LabelSet, *, spacing: Spacing, **changes: Any) -> Plans:
    """Plans of one CT channel, windowed from -500 to 500 HU, with patches of 96^3; `changes` are fields of `Plans`."""
    channels = changes.get("channel_names", ("CT",))
    statistics = IntensityStatistics(max=1, mean=0, median=0, min=0, percentile_00_5=0, percentile_99_5=1, std=1)
    values: dict[str, Any] = {
        "dataset_name": "Dataset001_Case",
        "channel_names": channels,
        "labels": labels,
        "spacing": spacing,
        "patch_size": (96, 96, 96),
        "median_shape": (96, 96, 96),
        "intensity": (Intensity(scheme="window", low=-500, high=500),) * len(channels),
        "crop_to_nonzero": False,
        "network": NetworkPlan(),
        "training": TrainingPlan(),
        "cost": Cost(memory_gb=1, step_seconds_cpu=1),
        "training_spacings": (spacing, spacing),
        "training_extent_mm": ((1, 1, 1), (1, 1, 1)),
        "intensity_statistics": (statistics,) * len(channels),
    }
    return Plans(**{**values, **changes})
