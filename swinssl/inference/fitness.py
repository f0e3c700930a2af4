"""Whether an input is like what a model was trained on: its channels, spacing, field of view and intensities.

A network answers any input, and an answer to a scan of another kind looks like any other. The limits are wide: within
them little is lost, beyond them a result needs a look.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from swinssl.imageio.volume import Volume
from swinssl.preprocessing.plans import Intensity, IntensityStatistics, Plans
from swinssl.preprocessing.prepared_volume import PreparedVolume

Triple = tuple[float, float, float]

# Spacing: coarser than any training case by a quarter loses detail that the network expects; finer ones are averaged
# into the plan's grid, so they may differ by half.
COARSER, FINER = 1.25, 0.5
# Field of view: beyond half the smallest and one and a half times the largest, anatomy is shown that no training case
# had, or is missing that all had.
SMALLER, LARGER = 0.5, 1.5
# Voxels looked at for the intensities.
MOST_VOXELS = 1_000_000
# Hounsfield units: any scan of a body has fat or air, below this; and little above that, even with metal in it.
FAT_HU, METAL_HU = -30, 5000
# Units that do not go below zero have at most a few stray voxels there (ringing of a resampling); a CT has much air.
AIR_HU = -200
FEW, MANY = 0.002, 0.05
# An image shows more than the structures, so its range is wider than theirs; much narrower, or far above, it is in
# another unit.
NARROWER, ABOVE = 0.25, 10.0


def fitness_warnings(volume: Volume, prepared: PreparedVolume, plans: Plans) -> tuple[str, ...]:
    """What is unlike the training data of a model, one sentence each; empty where nothing is.

    Args:
        volume: as read, (C, Z, Y, X).
        prepared: made of it.
    """
    low, high = plans.training_spacings
    spacings = _range_warnings(
        prepared.cropped_spacing, [mm * FINER for mm in low], [mm * COARSER for mm in high], (low, high), "voxels"
    )
    low, high = plans.training_extent_mm
    extent = [(stop - start) * mm for (start, stop), mm in zip(prepared.crop, prepared.cropped_spacing, strict=True)]
    extents = _range_warnings(
        extent, [mm * SMALLER for mm in low], [mm * LARGER for mm in high], (low, high), "field of view"
    )
    channels = zip(volume.array, plans.channel_names, plans.intensity, plans.intensity_statistics, strict=True)
    intensities = (_intensity_warning(*channel) for channel in channels)
    return (*spacings, *extents, *(warning for warning in intensities if warning))


def _range_warnings(
    found: Sequence[float], least: Sequence[float], most: Sequence[float], trained: tuple[Triple, Triple], what: str
) -> Iterator[str]:
    for axis, mm, low, high, (first, last) in zip("zyx", found, least, most, zip(*trained, strict=True), strict=True):
        if not low <= mm <= high:
            known = f"{first:.3g} mm" if math.isclose(first, last, rel_tol=0.01) else f"{first:.3g} to {last:.3g} mm"
            yield f"{what} of {mm:.3g} mm along {axis}; trained on {known}"


def _intensity_warning(channel: NDArray, name: str, how: Intensity, trained: IntensityStatistics) -> str | None:
    values = channel.reshape(-1)[:: max(1, channel.size // MOST_VOXELS)].astype(np.float32)
    low, high = (float(value) for value in np.percentile(values, [0.5, 99.5]))
    found = f"channel {name}: intensities from {low:.4g} to {high:.4g}"
    if values.min() == values.max():
        return f"channel {name}: every voxel is {values[0]:.4g}, so there is nothing to see"
    if _in_hounsfield_units(name, trained):
        if np.mean(values < FAT_HU) < FEW:
            return (
                f"{found}, without the fat and air (below {FAT_HU} HU) of a CT; is this an MR image, a scaled one, or "
                "a CT whose rescale intercept was left out?"
            )
        return f"{found} are beyond Hounsfield units; is this a CT?" if high > METAL_HU else None
    if trained.min >= 0 and np.mean(values < AIR_HU) > MANY:
        return f"{found} look like Hounsfield units; the model was trained on values from {trained.min:.4g} upwards"
    if how.scheme in ("window", "none"):  # the other schemes take each case by its own range
        known = f"the structures it was trained on have {trained.percentile_00_5:.4g} to {trained.percentile_99_5:.4g}"
        width = trained.percentile_99_5 - trained.percentile_00_5
        if high - low < NARROWER * width or high > ABOVE * max(trained.max, 0) or high < trained.percentile_00_5:
            return f"{found}; {known}. Is the unit the same?"
    return None


def _in_hounsfield_units(name: str, trained: IntensityStatistics) -> bool:
    """Whether a channel is CT, unless training saw it scaled to [0, 1] or with an offset of 1024."""
    scaled = trained.min >= 0 and (trained.percentile_99_5 <= 1 or trained.median > 700)
    return name.strip().lower() == "ct" and not scaled
