"""Plans, volumes, and trained-model folders for tests that predict."""

from __future__ import annotations

import numpy as np
import torch

from swinssl.dataset.labels import LabelSet
from swinssl.imageio.volume import Geometry, Volume
from swinssl.inference.trained_model import write_fold
from swinssl.networks.architectures import build_network
from swinssl.networks.network_plan import NetworkPlan, encoder_preset
from swinssl.preprocessing.plans import Cost, Intensity, IntensityStatistics, Plans, TrainingPlan

ORGANS = LabelSet(names=("liver", "spleen"), values=((1,), (2,)))
TINY = NetworkPlan(preset="tiny", decoder="light", encoder=encoder_preset("tiny"))


def make_plans(labels=ORGANS, *, channels=1, mirror_axes=(0, 1, 2), **changes):
    statistics = IntensityStatistics(max=1, mean=0.5, median=0.5, min=0, percentile_00_5=0, percentile_99_5=1, std=0.1)
    values = {
        "dataset_name": "Dataset001_Toy",
        "channel_names": tuple(f"channel {i}" for i in range(channels)),
        "labels": labels,
        "spacing": (1.0, 1.0, 1.0),
        "patch_size": (32, 32, 32),
        "median_shape": (40, 40, 40),
        "intensity": (Intensity(scheme="none"),) * channels,
        "crop_to_nonzero": False,
        "network": TINY,
        "training": TrainingPlan(mirror_axes=mirror_axes),
        "cost": Cost(memory_gb=1, step_seconds_cpu=1),
        "training_spacings": ((0.5, 0.5, 0.5), (4, 4, 4)),
        "training_extent_mm": ((10, 10, 10), (200, 200, 200)),
        "intensity_statistics": (statistics,) * channels,
    }
    return Plans(**{**values, **changes})


def make_network(plans, seed=0):
    """The plans' network with weights drawn from `seed`, its head large enough to see several structures."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(
            plans.network, in_channels=len(plans.channel_names), num_outputs=plans.labels.num_outputs
        )
        torch.nn.init.normal_(network.head.weight, std=2.0)
    return network.eval()


def write_model(folder, plans=None, folds=(0,)):
    """A model folder whose folds have random weights, each its own."""
    plans = make_plans() if plans is None else plans
    declared = zip(plans.labels.names, plans.labels.values, strict=True)
    values = {name: own[0] if len(own) == 1 else list(own) for name, own in declared}
    description = {
        "channel_names": {str(i): name for i, name in enumerate(plans.channel_names)},
        "labels": {"background": 0, **values},
        "file_ending": ".nii.gz",
    }
    for seed, fold in enumerate(folds):
        write_fold(folder, fold, make_network(plans, seed), plans, description=description)
    return folder


def smooth_noise(shape, seed=0, sigma=2.0):
    """Smooth float32 noise of mean 0 and deviation 1."""
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma, mode="nearest")
    return ((noise - noise.mean()) / noise.std()).astype(np.float32)


def volume_of(array, spacing=(1.0, 1.0, 1.0), *, origin=(3.0, -5.0, 7.0), direction=None):
    """A volume of a (Z, Y, X) or (C, Z, Y, X) array."""
    channels = array if array.ndim == 4 else array[None]
    return Volume(
        channels, Geometry.from_parts(channels.shape[1:], spacing=spacing, origin=origin, direction=direction)
    )
