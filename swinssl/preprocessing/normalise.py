"""Normalisation of intensities: each channel by its own scheme of the plan, statistics from the case alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swinssl.preprocessing.plans import Intensity

# Of a plane, float32.
Change = Callable[[NDArray], NDArray]

# With fewer zeros than this, zero is an intensity like others and not the void around the patient.
VOID_SHARE = 0.05
# A channel that varies less than this share of its values is constant: rounding, not signal.
CONSTANT = 1e-6


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
        out.append(NormalisedChannel(channel, _SCHEMES[how.scheme](channel, how, inside), inside))
    return out


def _window(channel: NDArray, how: Intensity, inside: NDArray[np.bool_] | None) -> Change:
    return _scaling(how.low, how.high)


def _percentile(channel: NDArray, how: Intensity, inside: NDArray[np.bool_] | None) -> Change:
    if inside is None:
        inside = channel != 0
        if np.count_nonzero(~inside) < VOID_SHARE * channel.size:
            inside = np.ones_like(inside)
    values = channel[inside].astype(np.float32, copy=False)
    if values.size == 0:
        return np.zeros_like
    low, high = np.percentile(values, [how.low, how.high])
    if low == high:  # most voxels share one value; the few others are the signal
        low, high = values.min(), values.max()
    return _scaling(float(low), float(high))


def _zscore(channel: NDArray, how: Intensity, inside: NDArray[np.bool_] | None) -> Change:
    # About a value among them, in float64: the sums of large values would drown their differences.
    count, total, squares, about = 0, 0.0, 0.0, float(channel[len(channel) // 2].mean(dtype=np.float64))
    for index, plane in enumerate(channel):
        values = (plane.ravel() if inside is None else plane[inside[index]]).astype(np.float32).astype(np.float64)
        values -= about
        count, total, squares = count + values.size, total + float(values.sum()), squares + float(values @ values)
    if count == 0:
        return np.zeros_like
    mean = about + total / count
    deviation = math.sqrt(max(0.0, squares / count - (total / count) ** 2))
    if deviation <= CONSTANT * abs(mean):
        return np.zeros_like
    # In float64: subtracting a large mean in float32 would leave its rounding in the result.
    return lambda plane: (plane.astype(np.float64) - mean) / deviation


def _none(channel: NDArray, how: Intensity, inside: NDArray[np.bool_] | None) -> Change:
    return lambda plane: plane


def _scaling(low: float, high: float) -> Change:
    """Clips to [low, high] and scales to [0, 1]."""
    if high - low <= CONSTANT * max(abs(low), abs(high)):
        return np.zeros_like
    return lambda plane: np.clip((np.clip(plane, low, high) - np.float32(low)) / np.float32(high - low), 0, 1)


_SCHEMES = {"window": _window, "percentile": _percentile, "zscore": _zscore, "none": _none}
