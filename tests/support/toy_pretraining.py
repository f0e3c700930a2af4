"""Pretraining in miniature: toy volumes, a tiny encoder, few prototypes."""

from __future__ import annotations

import numpy as np
import torch

from support.toy_dataset import ENCODER
from swinssl.core.rng import KeyedRng
from swinssl.networks.swin.encoder import SwinEncoder
from swinssl.ssl.config import config_of
from swinssl.ssl.method import Images
from swinssl.ssl.methods.registry import load_method
from swinssl.ssl.parts import heads
from swinssl.ssl.parts.batch import StepContext
from swinssl.ssl.parts.distillation import Centre
from swinssl.ssl.parts.pretext_network import PretextNetwork
from swinssl.ssl.parts.teacher import Teacher
from swinssl.ssl.pretext_task import PretextTask
from swinssl.ssl.pretraining import pretrain

CPU = torch.device("cpu")
# Heads of their real width would take most of the tests' time.
heads.HIDDEN, heads.BOTTLENECK = 64, 32
PATCH = (32, 32, 32)
PROTOTYPES = 24
IMAGES = Images(PATCH, (1.0, 1.0, 1.0), 1)


def options_of(method, **choices):
    own = load_method(method).Options
    few = {"prototypes": PROTOTYPES} if "prototypes" in own.model_fields else {}
    return own(**{**few, **choices})


def config_for(method, **choices):
    return config_of(load_method(method))(**{"device": "cpu", "precision": "fp32", "readers": 0, "steps": 3, **choices})


def run(method, folders, out, *, options=None, probe=None, restart=False, **choices):
    folders = folders if isinstance(folders, list) else [folders]
    config = config_for(method, **choices)
    own = options_of(method, **(options or {}))
    return pretrain(method, folders, out, config=config, options=own, probe=probe, restart=restart)


def new_network(method, encoder=ENCODER, seed=0, images=IMAGES):
    """A method and its network."""
    torch.manual_seed(seed)
    own = load_method(method)(options_of(method), images)
    swin = SwinEncoder(encoder, in_channels=images.channels)
    network = PretextNetwork(swin, own.heads(swin), masks=own.masks, feature_level=own.feature_level)
    for name, layer in (("voxels", "proj"), ("decoder", "out")):
        if name in network.heads:  # painters start from zero, where no gradient reaches the encoder yet
            torch.nn.init.trunc_normal_(getattr(network.heads[name], layer).weight, std=0.02)
    return own, network


class Noise:
    """A sampler of smooth noise instead of crops."""

    damaged: dict = {}  # noqa: RUF012

    def __init__(self, views, patch=PATCH, channels=1):
        self.shape = (views, channels, *patch)

    def crops(self, draws):
        return draws("noise").random(self.shape, dtype=np.float32)


def new_task(method, *, batch_size=2, seed=0, patch=PATCH):
    own, network = new_network(method, seed=seed, images=Images(patch, (1.0, 1.0, 1.0), 1))
    return PretextTask(network, own, Noise(own.views, patch), batch_size=batch_size, save_best=lambda encoder: None)


def new_batch(task, *, step=0, samples=2, drop_path=False):
    draws = [KeyedRng(0, step, sample) for sample in range(samples)]
    batch = task.views([task.load(own) for own in draws], draws, CPU)
    return batch if drop_path else type(batch)(batch.tensors, batch.samples, None)


def context_of(task, share=0.5):
    """With a teacher that is not the student, and centres that are not zero."""
    teacher = None
    if task.teacher is not None:
        _, other = new_network(task.method.name, seed=1)
        teacher = Teacher(other, task.method.teacher_heads)
    centres = {}
    for number, name in enumerate(task.method.centres):
        centres[name] = Centre(PROTOTYPES, device=CPU)
        centres[name].value = torch.linspace(-0.2, 0.3, PROTOTYPES).roll(number)
    return StepContext(share, task.batch_size, teacher, centres)
