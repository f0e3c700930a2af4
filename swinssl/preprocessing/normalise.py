"""Normalisation of intensities: each channel by its own scheme of the plan, statistics from the case alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from swinssl.preprocessing.plans import Intensity

# With fewer zeros than this, zero is an intensity like others and not the void around the patient.
VOID_SHARE = 0.05
# A channel that varies less than this share of its values is constant: rounding, not signal.
CONSTANT = 1e-6


def normalise(
    image: NDArray, intensity: Sequence[Intensity], *, mask: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """Intensities as the plan wants them.

    Args:
        image: (C, Z, Y, X), finite.
        intensity: one scheme a channel.
        mask: (Z, Y, X) the case's non-zero mask; needed where a scheme is `inside_mask`.

    Returns:
        (C, Z, Y, X) float32, a new array. A constant channel becomes 0 under `percentile` and `zscore`.
    """
    out = np.empty(image.shape, np.float32)
    for channel, result, how in zip(image, out, intensity, strict=True):
        if how.inside_mask and mask is None:
            raise ValueError("inside_mask needs the non-zero mask")
        inside = mask if how.inside_mask else None
        result[...] = _SCHEMES[how.scheme](channel.astype(np.float32, copy=False), how, inside)
        if inside is not None:
            result[~inside] = 0
    return out


def _window(channel: NDArray, how: Intensity, inside: NDArray[np.bool_] | None) -> NDArray:
    return _scaled(channel, how.low, how.high)


def _percentile(channel: NDArray, how: Intensity, inside: NDArray[np.bool_] | None) -> NDArray:
    if inside is None:
        inside = channel != 0
        if np.count_nonzero(~inside) < VOID_SHARE * channel.size:
            inside = np.ones_like(inside)
    values = channel[inside]
    if values.size == 0:
        return np.zeros_like(channel)
    low, high = np.percentile(values, [how.low, how.high])
    if low == high:  # most voxels share one value; the few others are the signal
        low, high = values.min(), values.max()
    return _scaled(channel, float(low), float(high))


def _zscore(channel: NDArray, how: Intensity, inside: NDArray[np.bool_] | None) -> NDArray:
    values = channel if inside is None else channel[inside]
    if values.size == 0:
        return np.zeros_like(channel)
    mean, deviation = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
    if deviation <= CONSTANT * abs(mean):
        return np.zeros_like(channel)
    # In float64: subtracting a large mean in float32 would leave its rounding in the result.
    return (channel.astype(np.float64) - mean) / deviation


def _none(channel: NDArray, how: Intensity, inside: NDArray[np.bool_] | None) -> NDArray:
    return channel


def _scaled(channel: NDArray, low: float, high: float) -> NDArray:
    """Clipped to [low, high] and scaled to [0, 1]."""
    if high - low <= CONSTANT * max(abs(low), abs(high)):
        return np.zeros_like(channel)
    return np.clip((np.clip(channel, low, high) - np.float32(low)) / np.float32(high - low), 0, 1)


_SCHEMES = {"window": _window, "percentile": _percentile, "zscore": _zscore, "none": _none}
