"""Compare an input with a model's training data: channels, spacing, field of view and intensities.

A network segments any input, and the result for a scan of another kind looks like any other. The limits are wide:
within them accuracy hardly drops; beyond them the result needs to be checked.
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

# Spacing: 25 % coarser than any training case loses detail that the network expects; finer spacings are averaged into
# the plan's grid, so they may differ by a factor of 2.
COARSER, FINER = 1.25, 0.5
# Field of view: below half the smallest or above 1.5 times the largest, an image lacks anatomy that all training cases
# show, or shows anatomy that none does.
SMALLER, LARGER = 0.5, 1.5
# Outside the training range by this factor, a result cannot be trusted.
FAR = 4.0
# An image shows more than the structures, so its intensity range is wider; a range that is much narrower or far above
# means another unit.
NARROWER, ABOVE = 0.25, 10.0


def input_warnings(volume: Volume, prepared: PreparedVolume, plans: Plans) -> tuple[str, ...]:
    """The differences from a model's training data, one sentence each; empty if there are none.

    Args:
        volume: as read, (C, Z, Y, X).
        prepared: `prepare(volume, plans)`.
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
    """The properties of an input outside 1/4 to 4 times the training range, or in another unit, as words."""
    low, high = plans.training_extent_mm
    extent = [(stop - start) * mm for (start, stop), mm in zip(prepared.crop, prepared.cropped_spacing, strict=True)]
    ranges = {
        "voxels": (prepared.cropped_spacing, *plans.training_spacings),
        "field of view": (extent, low, high),
    }
    far = [
        name
        for name, (measured, least, most) in ranges.items()
        if any(not a / FAR <= mm <= b * FAR for mm, a, b in zip(measured, least, most, strict=True))
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
    values: Sequence[float], least: Sequence[float], most: Sequence[float], trained: tuple[Spacing, Spacing], name: str
) -> Iterator[str]:
    for axis, mm, low, high, (first, last) in zip("zyx", values, least, most, zip(*trained, strict=True), strict=True):
        if not low <= mm <= high:
            known = f"{first:.3g} mm" if math.isclose(first, last, rel_tol=0.01) else f"{first:.3g} to {last:.3g} mm"
            yield f"{name} of {mm:.3g} mm along {axis}; trained on {known}"


def _intensity_warning(
    channel: NDArray, name: str, kind: str, how: Intensity, trained: IntensityStatistics
) -> str | None:
    values = ImageValues.of(channel)
    low, high = values.percentile_00_5, values.percentile_99_5
    measured = f"channel {name}: intensities from {low:.4g} to {high:.4g}"
    if values.low == values.high:
        return f"channel {name}: every voxel is {values.low:.4g}, so the image is empty"
    if kind == "hounsfield":
        why = not_hounsfield(values)
        return f"{measured}; the model was trained on Hounsfield units. {why[0].upper()}{why[1:]}" if why else None
    if trained.min >= 0 and looks_hounsfield(values):
        return f"{measured} look like Hounsfield units; the model was trained on values from {trained.min:.4g} upwards"
    if not NORMALISATIONS[how.scheme].per_case:  # otherwise the unit does not matter
        known = f"the training structures have {trained.percentile_00_5:.4g} to {trained.percentile_99_5:.4g}"
        width = trained.percentile_99_5 - trained.percentile_00_5
        if high - low < NARROWER * width or high > ABOVE * max(trained.max, 0) or high < trained.percentile_00_5:
            return f"{measured}; {known}. Check the unit."
    return None


def _kind_before_0_2(name: str, trained: IntensityStatistics) -> str:
    """The channel kind of plans that lack it: CT by name, unless training saw it scaled or with an offset of 1024."""
    scaled = trained.min >= 0 and (trained.percentile_99_5 <= 1 or trained.median > 700)
    return "hounsfield" if name.strip().lower() == "ct" and not scaled else "arbitrary"
