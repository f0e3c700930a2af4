"""Toy encoders with the descriptions of their runs, to compare."""

from __future__ import annotations

import json

import torch

from support.toy_dataset import ENCODER
from swinssl.networks.checkpoints.encoder_file import EncoderRecord, write_encoder
from swinssl.networks.swin.encoder import SwinEncoder


def write_toy_encoder(folder, *, seed=0, plan=ENCODER, in_channels=1, spacing=None, run=None):
    """`<folder>/encoder.safetensors` with weights drawn from `seed`; `run` is the content of run.json beside it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = SwinEncoder(plan, in_channels=in_channels)
        for parameter in encoder.parameters():
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    path = folder / "encoder.safetensors"
    write_encoder(path, encoder.state_dict(), EncoderRecord(encoder=plan, in_channels=in_channels, spacing=spacing))
    if run is not None:
        write_run(folder, **run)
    return path


def write_run(folder, *, knows=(), init="scratch"):
    """A run.json that knows these image hashes."""
    content = {
        "version": 1,
        "config": {"init": str(init)},
        "image_sha256": {f"toy/{number}": {"image_0000": value} for number, value in enumerate(knows)},
    }
    (folder / "run.json").write_text(json.dumps(content))
