"""Small preprocessed cases on disk, through the real store, and plans for them."""

from __future__ import annotations

import numpy as np

from swinssl.dataset.labels import LabelSet
from swinssl.networks.network_plan import NetworkPlan
from swinssl.preprocessing.plans import Cost, Intensity, IntensityStatistics, Plans, TrainingPlan
from swinssl.preprocessing.store import CaseProperties, PreprocessedCase, write_case

ORGANS = LabelSet(names=("liver", "spleen", "adrenal"), values=((1,), (2,), (3,)))
TUMOUR = LabelSet(names=("liver", "tumour"), values=((1,), (2,)), ignore_value=3)
UNIT = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))


def make_plans(
    labels=TUMOUR, *, patch_size=(16, 16, 16), sampling="organ", mirror_axes=(0, 1, 2), channels=1, **changes
):
    statistics = IntensityStatistics(max=1, mean=0.5, median=0.5, min=0, percentile_00_5=0, percentile_99_5=1, std=0.1)
    values = {
        "dataset_name": "Dataset001_Toy",
        "channel_names": tuple(f"channel {i}" for i in range(channels)),
        "labels": labels,
        "spacing": (1.0, 1.0, 1.0),
        "patch_size": patch_size,
        "median_shape": (40, 40, 40),
        "intensity": (Intensity(scheme="window", low=0, high=1),) * channels,
        "network": NetworkPlan(),
        "training": TrainingPlan(sampling=sampling, mirror_axes=mirror_axes),
        "cost": Cost(memory_gb=1, step_seconds_cpu=1),
        "training_spacings": ((1, 1, 1), (1, 1, 1)),
        "training_extent_mm": ((1, 1, 1), (1, 1, 1)),
        "intensity_statistics": (statistics,) * channels,
    }
    return Plans(**{**values, **changes})


def make_case(folder, case_id, label, *, labels=TUMOUR, image=None, labels_present=None, annotated=True):
    """A stored case; without an image, noise in [0.2, 1] that the case id draws."""
    if image is None:
        noise = np.random.default_rng(len(case_id) + sum(case_id.encode())).random((1, *label.shape), dtype=np.float32)
        image = 0.2 + 0.8 * noise
    counts = {
        name: int(np.isin(label, codes).sum()) for name, codes in zip(labels.names, labels.structure_codes, strict=True)
    }
    known = CaseProperties(
        case_id=case_id,
        source_shape=label.shape,
        source_affine=UNIT,
        crop=tuple((0, n) for n in label.shape),
        cropped_spacing=(1, 1, 1),
        shape=label.shape,
        spacing=(1, 1, 1),
        labels_present=labels_present,
        annotated=annotated,
        voxels_before=counts if annotated else {},
        voxels_after=counts if annotated else {},
    )
    write_case(folder, known, image=image, label=label.astype(labels.code_dtype) if annotated else None, labels=labels)
    return PreprocessedCase.open(folder, case_id)
