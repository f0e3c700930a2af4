"""The normalisations of intensities, one row each; allowed names, help, checks and descriptions derive from the table.

A new normalisation is a function that fits a channel and a row in `NORMALISATIONS`. This module imports numpy only when
a channel is fitted, because `--help` reads the table too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from swinssl.core.text import listed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    # Of a plane, float32.
    Change = Callable[[NDArray], NDArray]
    Fit = Callable[[NDArray, float, float, NDArray[np.bool_] | None], Change]

# With a smaller share of zeros, zero is an intensity like any other and not the void around the patient.
VOID_SHARE = 0.05
# A channel that varies by a smaller share of its values is constant: rounding, not signal.
CONSTANT = 1e-6


@dataclass(frozen=True)
class Normalisation:
    """A way to normalise one channel.

    Args:
        fit: (channel (Z, Y, X), low, high, mask or None) -> the function to apply to each plane. Statistics are taken
            inside the mask; None means everywhere.
        description: in words; {low} and {high} stand for the bounds.
        bounds: what LOW and HIGH are: intensities (`units`), percentiles (`percent`), or None if it takes none.
        per_case: whether its statistics come from each case, so that equal intensities in two cases may differ
            afterwards and the unit of the images does not matter.
        masked: whether a channel name that asks for it takes the statistics inside the non-zero mask, where the crop
            leaves much of the volume out (nnU-Net's rule).
        channel_names: names in dataset.json that ask for it (nnU-Net's, in small letters), with low and high.
    """

    fit: Fit
    description: str
    bounds: Literal["units", "percent"] | None = None
    per_case: bool = False
    masked: bool = False
    channel_names: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def bounds_error(self, low: float, high: float) -> str | None:
        """What is wrong with these bounds; None if nothing is."""
        if self.bounds is None:
            return None
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            return f"{low:g} to {high:g} is not a range"
        if self.bounds == "percent" and not (low >= 0 and high <= 100):
            return f"percentiles {low:g} and {high:g} are not within 0 to 100"
        return None


def _window(channel: NDArray, low: float, high: float, inside: NDArray[np.bool_] | None) -> Change:
    return _scaling(low, high)


def _percentile(channel: NDArray, low: float, high: float, inside: NDArray[np.bool_] | None) -> Change:
    import numpy as np

    if inside is None:
        inside = channel != 0
        if np.count_nonzero(~inside) < VOID_SHARE * channel.size:
            inside = np.ones_like(inside)
    values = channel[inside].astype(np.float32, copy=False)
    if values.size == 0:
        return np.zeros_like
    low, high = np.percentile(values, [low, high])
    if low == high:  # most voxels share one value; the few others are the signal
        low, high = values.min(), values.max()
    return _scaling(float(low), float(high))


def _zscore(channel: NDArray, low: float, high: float, inside: NDArray[np.bool_] | None) -> Change:
    import numpy as np

    # Relative to one of the values, in float64: the sums of large values would drown their differences.
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


def _none(channel: NDArray, low: float, high: float, inside: NDArray[np.bool_] | None) -> Change:
    return lambda plane: plane


def _scaling(low: float, high: float) -> Change:
    """Clips to [low, high] and scales to [0, 1]."""
    import numpy as np

    if high - low <= CONSTANT * max(abs(low), abs(high)):
        return np.zeros_like
    return lambda plane: np.clip((np.clip(plane, low, high) - np.float32(low)) / np.float32(high - low), 0, 1)


NORMALISATIONS = {
    "window": Normalisation(
        _window, "window [{low:.5g}, {high:.5g}] to [0, 1]", bounds="units", channel_names={"rgb_to_0_1": (0, 255)}
    ),
    "percentile": Normalisation(
        _percentile,
        "each case's percentiles [{low:.5g}, {high:.5g}] to [0, 1]",
        bounds="percent",
        per_case=True,
        channel_names={"rescale_to_0_1": (0, 100)},
    ),
    "zscore": Normalisation(
        _zscore, "z-score of each case", per_case=True, masked=True, channel_names={"zscore": (0, 0)}
    ),
    "none": Normalisation(_none, "unchanged", channel_names={"nonorm": (0, 0)}),
}


def normalisation_forms() -> tuple[str, ...]:
    """How each normalisation is typed: `window:LOW:HIGH`, `zscore` and so on."""
    return tuple(f"{name}:LOW:HIGH" if row.bounds else name for name, row in NORMALISATIONS.items())


def normalisation_of_channel_name(name: str) -> tuple[str, float, float] | None:
    """(normalisation, low, high) that a channel's name in dataset.json asks for; None for all other names."""
    wanted = name.strip().lower()
    for scheme, row in NORMALISATIONS.items():
        if wanted in row.channel_names:
            return scheme, *row.channel_names[wanted]
    return None


def normalisation_error(scheme: str, low: float, high: float) -> str | None:
    """What is wrong with a normalisation and its bounds; None if nothing is."""
    if scheme not in NORMALISATIONS:
        return f"unknown normalisation {scheme!r}; known are {listed(NORMALISATIONS)}"
    error = NORMALISATIONS[scheme].bounds_error(low, high)
    return error and f"{scheme}: {error}"
