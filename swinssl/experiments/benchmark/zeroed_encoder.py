"""An encoder that gives nothing: what the rest of the network can do without it."""

from __future__ import annotations

from pathlib import Path

from swinssl.networks.checkpoints.encoder_file import EncoderRecord, write_encoder
from swinssl.preprocessing.plans import Plans

# Longer than any run: the encoder never learns.
FOR_EVER = 1_000_000


def write_zeroed_encoder(path: Path, plans: Plans) -> None:
    """Write the planned encoder with all weights 0, and so all maps that it gives.

    The planned network stays as it is, skips from the image included, and so does the number of its weights. Trained
    with `--freeze-epochs FOR_EVER` it stays so.
    """
    import torch

    from swinssl.networks.swin.encoder import SwinEncoder

    plan, channels = plans.network.encoder, len(plans.channel_names)
    encoder = SwinEncoder(plan, in_channels=channels)
    weights = {name: torch.zeros_like(weight) for name, weight in encoder.state_dict().items()}
    write_encoder(path, weights, EncoderRecord(encoder=plan, in_channels=channels, spacing=plans.spacing))
