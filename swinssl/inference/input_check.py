"""Whether an input is like what a model was trained on: its channels, spacing, field of view and intensities.

A network answers any input, and an answer to a scan of another kind looks like any other. The limits are wide: within
them little is lost, beyond them a result needs a look.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from numpy.typing import NDArray

from swinssl.core.geometry import Spacing
from swinssl.dataset.channel_kind import ImageValues, looks_hounsfield, not_hounsfield
from swinssl.dataset.normalisations import NORMALISATIONS
from swinssl.imageio.volume import Volume
from swinssl.preprocessing.plans import Intensity, IntensityStatistics, Plans
from swinssl.preprocessing.prepared_volume import PreparedVolume

# Spacing: coarser than any training case by a quarter loses detail that the network expects; finer ones are averaged
# into the plan's grid, so they may differ by half.
COARSER, FINER = 1.25, 0.5
# Field of view: beyond half the smallest and one and a half times the largest, anatomy is shown that no training case
# had, or is missing that all had.
SMALLER, LARGER = 0.5, 1.5
# Beyond so many times the training range a result is not to be trusted.
FAR = 4.0
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
    return (*spacings, *extents, *_intensity_warnings(volume, plans))


def far_from_training(volume: Volume, prepared: PreparedVolume, plans: Plans) -> tuple[str, ...]:
    """In what an input lies outside 1/4 to 4 times the range of the training data, or in another unit; in words."""
    low, high = plans.training_extent_mm
    extent = [(stop - start) * mm for (start, stop), mm in zip(prepared.crop, prepared.cropped_spacing, strict=True)]
    ranges = {
        "voxels": (prepared.cropped_spacing, *plans.training_spacings),
        "field of view": (extent, low, high),
    }
    far = [
        what
        for what, (found, least, most) in ranges.items()
        if any(not a / FAR <= mm <= b * FAR for mm, a, b in zip(found, least, most, strict=True))
    ]
    return (*far, *(["intensities"] if any(_intensity_warnings(volume, plans)) else []))


def _intensity_warnings(volume: Volume, plans: Plans) -> Iterator[str]:
    channels = zip(
        volume.array,
        plans.channel_names,
        plans.channel_kinds or map(_kind_before_0_2, plans.channel_names, plans.intensity_statistics),
        plans.intensity,
        plans.intensity_statistics,
        strict=True,
    )
    return filter(None, (_intensity_warning(*channel) for channel in channels))


def _range_warnings(
    found: Sequence[float], least: Sequence[float], most: Sequence[float], trained: tuple[Spacing, Spacing], what: str
) -> Iterator[str]:
    for axis, mm, low, high, (first, last) in zip("zyx", found, least, most, zip(*trained, strict=True), strict=True):
        if not low <= mm <= high:
            known = f"{first:.3g} mm" if math.isclose(first, last, rel_tol=0.01) else f"{first:.3g} to {last:.3g} mm"
            yield f"{what} of {mm:.3g} mm along {axis}; trained on {known}"


def _intensity_warning(
    channel: NDArray, name: str, kind: str, how: Intensity, trained: IntensityStatistics
) -> str | None:
    values = ImageValues.of(channel)
    low, high = values.percentile_00_5, values.percentile_99_5
    found = f"channel {name}: intensities from {low:.4g} to {high:.4g}"
    if values.low == values.high:
        return f"channel {name}: every voxel is {values.low:.4g}, so there is nothing to see"
    if kind == "hounsfield":
        why = not_hounsfield(values)
        return f"{found}; the model was trained on Hounsfield units. {why[0].upper()}{why[1:]}" if why else None
    if trained.min >= 0 and looks_hounsfield(values):
        return f"{found} look like Hounsfield units; the model was trained on values from {trained.min:.4g} upwards"
    if not NORMALISATIONS[how.scheme].per_case:  # else the unit does not matter
        known = f"the structures it was trained on have {trained.percentile_00_5:.4g} to {trained.percentile_99_5:.4g}"
        width = trained.percentile_99_5 - trained.percentile_00_5
        if high - low < NARROWER * width or high > ABOVE * max(trained.max, 0) or high < trained.percentile_00_5:
            return f"{found}; {known}. Is the unit the same?"
    return None


def _kind_before_0_2(name: str, trained: IntensityStatistics) -> str:
    """In plans that do not say it: CT by its name, unless training saw it scaled or with an offset of 1024."""
    scaled = trained.min >= 0 and (trained.percentile_99_5 <= 1 or trained.median > 700)
    return "hounsfield" if name.strip().lower() == "ct" and not scaled else "arbitrary"
