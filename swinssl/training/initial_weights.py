"""Initial weights that a seed decides, whatever else draws."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from swinssl.core.errors import UserError
from swinssl.core.rng import generator
from swinssl.training.engine.checkpoint import first_not_finite


@contextmanager
def draws_of(seed: int, purpose: str) -> Iterator[None]:
    """torch's own draws are those of this purpose inside, and what they were afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator(seed, purpose).integers(2**63)))
        yield


def refuse_non_finite(network: nn.Module, init: str) -> None:
    """Check the weights that a network took from the encoder `init`: learning cannot repair a NaN.

    Raises:
        UserError: a value is NaN or infinite.
    """
    if (name := first_not_finite(network.state_dict())) is not None:
        raise UserError(
            f"--init {init}: {name} has values that are NaN or infinite, so its pretraining failed or the file was "
            "damaged. Choose another encoder, or pretrain it again."
        )
