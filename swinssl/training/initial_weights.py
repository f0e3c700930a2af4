"""Initial weights that a seed decides, whatever else draws."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from swinssl.randomness import generator


@contextmanager
def draws_of(seed: int, purpose: str) -> Iterator[None]:
    """torch's own draws are those of this purpose inside, and what they were afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator(seed, purpose).integers(2**63)))
        yield
