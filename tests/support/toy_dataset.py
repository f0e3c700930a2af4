"""A small preprocessed data set that a tiny network learns in seconds: a bright ball with a brighter core, in noise."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from support.stored_cases import make_plans
from swinssl.dataset.raw_dataset import RawDataset
from swinssl.imageio.volume import Geometry
from swinssl.imageio.writer import write_volume
from swinssl.networks.network_plan import NetworkPlan, SwinEncoderPlan
from swinssl.preprocessing.plans import Intensity, Plans, TrainingPlan
from swinssl.preprocessing.preprocess import preprocess_dataset

SHAPE = (34, 30, 36)
NAME = "Dataset001_Balls"
LABELS = {"background": 0, "shell": 1, "core": 2}
ENCODER = SwinEncoderPlan(embed_dim=8, depths=(1, 2, 1, 1), heads=(1, 2, 4, 8), shrink_window=True)
TINY = NetworkPlan(preset="tiny", decoder="light", encoder=ENCODER)


def ball(seed: int):
    """A noisy image and its label: shell 1 round a core 2; place and size differ from case to case."""
    rng = np.random.default_rng(seed)
    centre = np.array(SHAPE) / 2 + rng.uniform(-5, 5, 3)
    grid = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1)
    distance = np.linalg.norm(grid - centre, axis=-1)
    label = np.zeros(SHAPE, np.uint8)
    label[distance < rng.uniform(8, 11)] = 1
    label[distance < rng.uniform(4, 6)] = 2
    image = np.array([0.2, 0.5, 0.8])[label] + rng.normal(0, 0.05, SHAPE)
    return image.astype(np.float32), label


def write_raw(folder: Path, *, cases: int = 6, **description) -> RawDataset:
    """The raw data set; keys of dataset.json in `description` stand above the usual ones."""
    grid = Geometry.from_parts(SHAPE, spacing=(1, 1, 1))
    for seed in range(cases):
        image, label = ball(seed)
        write_volume(folder / "imagesTr" / f"ball_{seed}_0000.nii.gz", image, grid)
        write_volume(folder / "labelsTr" / f"ball_{seed}.nii.gz", label, grid)
    known = {"channel_names": {"0": "noNorm"}, "labels": LABELS, "numTraining": cases, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps({**known, **description}))
    return RawDataset.load(folder)


def plans_for(raw: RawDataset, **changes) -> Plans:
    training = TrainingPlan(batch_size=2, learning_rate=2e-2, epochs=3, steps_per_epoch=10, mirror_axes=(0, 1, 2))
    values = {
        "dataset_name": raw.name,
        "channel_names": raw.channel_names,
        "patch_size": (32, 32, 32),
        "network": TINY,
        "intensity": (Intensity(scheme="none"),),
        "training": training.model_copy(update={"loss": "sigmoid" if raw.labels.regions else "softmax"}),
    }
    return make_plans(raw.labels, **{**values, **changes})


def make_preprocessed(root: Path, *, cases: int = 6, plans_changes=None, **description) -> Path:
    """A workspace with the raw and the preprocessed data set; returns the preprocessed folder."""
    raw = write_raw(root / "raw" / NAME, cases=cases, **description)
    folder = root / "preprocessed" / NAME
    report = preprocess_dataset(raw, plans_for(raw, **(plans_changes or {})), folder, workers=0)
    assert not report.with_status("failed"), report
    return folder
