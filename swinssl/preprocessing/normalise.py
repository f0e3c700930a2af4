"""Normalisation of intensities: each channel by its own scheme of the plan, statistics from the case alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from swinssl.dataset.normalisations import NORMALISATIONS
from swinssl.preprocessing.plans import Intensity

if TYPE_CHECKING:
    from swinssl.dataset.normalisations import Change


@dataclass(frozen=True)
class NormalisedChannel:
    """A channel whose planes are normalised when they are asked for: the whole of it is never there in float32.

    Args:
        source: (Z, Y, X) as it was read.
        change: of a plane.
        inside: (Z, Y, X) where it is not 0 afterwards; None is everywhere.
    """

    source: NDArray
    change: Change
    inside: NDArray[np.bool_] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape

    def __getitem__(self, places: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        """Planes (n, Y, X) of the first axis, as a new array."""
        source, inside = self.source[places], None if self.inside is None else self.inside[places]
        out = np.empty(source.shape, np.float32)
        for index, plane in enumerate(source):  # large arrays in between would cost more than the arithmetic
            out[index] = self.change(plane.astype(np.float32, copy=False))
            if inside is not None:
                out[index][~inside[index]] = 0
        return out


def normalise(
    image: NDArray, intensity: Sequence[Intensity], *, mask: NDArray[np.bool_] | None = None
) -> list[NormalisedChannel]:
    """Intensities as the plan wants them, channel by channel.

    Args:
        image: (C, Z, Y, X), finite.
        intensity: one scheme a channel.
        mask: (Z, Y, X) the case's non-zero mask; needed where a scheme is `inside_mask`.

    Returns:
        A channel each; a constant one is 0 under `percentile` and `zscore`.
    """
    out = []
    for channel, how in zip(image, intensity, strict=True):
        if how.inside_mask and mask is None:
            raise ValueError("inside_mask needs the non-zero mask")
        inside = mask if how.inside_mask else None
        out.append(
            NormalisedChannel(channel, NORMALISATIONS[how.scheme].fit(channel, how.low, how.high, inside), inside)
        )
    return out
