"""What a channel is: CT in Hounsfield units, or intensities without a common unit. Values decide; a name asks.

One rule for swinssl_check, the plan, pretraining and the check of a prediction's input.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from swinssl.dataset.normalisations import normalisation_of_channel_name

CT_WORDS = {"ct", "cect", "ncct", "hrct", "cta", "ctscan", "computed"}
# Voxels looked at.
MOST_VOXELS = 1_000_000
# Any scan of a body has fat or air, below FAT_HU, and tissue, around water. Vendors fill what is outside the field of
# view with values down to -4096; metal and its streaks reach far above bone, and are few.
FAT_HU, AIR_HU, BELOW_AIR_HU, FILL_HU = -30, -900, -1100, -4096
TISSUE_HU = (-200, 300)
METAL_HU = 5000
# A few stray voxels are the ringing of a resampling.
FEW = 0.002
# Of 271 CTs of head, neck and limbs in whole fields of view the least soft tissue was 5.6 %, the least air 12 %.
LEAST_TISSUE, LEAST_AIR = 0.02, 0.01
# What lies below air where the intercept was applied twice is air, a large part of any image.
MUCH_BELOW_AIR = 0.05


class ImageValues(BaseModel):
    """Intensities of one channel of one image; shares are of all voxels.

    Args:
        low: lowest value.
        high: highest value.
        percentile_00_5: 0.5th percentile.
        median: 50th percentile.
        percentile_99_5: 99.5th percentile.
        fat_and_air: share below -30.
        air: share below -900.
        below_air: share below -1100.
        soft_tissue: share from -200 to 300.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    low: float
    high: float
    percentile_00_5: float
    median: float
    percentile_99_5: float
    fat_and_air: float
    air: float
    below_air: float
    soft_tissue: float

    @classmethod
    def of(cls, array: NDArray) -> ImageValues:
        """Measure finite voxels; percentiles and shares of at most `MOST_VOXELS` of them, evenly spaced."""
        values = array.reshape(-1)[:: max(1, array.size // MOST_VOXELS)].astype(np.float32)
        low, median, high = (float(value) for value in np.percentile(values, [0.5, 50, 99.5]))
        return cls(
            low=float(array.min()),
            high=float(array.max()),
            percentile_00_5=low,
            median=median,
            percentile_99_5=high,
            fat_and_air=float(np.mean(values < FAT_HU)),
            air=float(np.mean(values < AIR_HU)),
            below_air=float(np.mean(values < BELOW_AIR_HU)),
            soft_tissue=float(np.mean((values > TISSUE_HU[0]) & (values < TISSUE_HU[1]))),
        )

    @classmethod
    def of_percentiles(cls, *, low: float, high: float, percentiles: tuple[float, float, float]) -> ImageValues:
        """A guess from less: extremes, and the 0.5th, 50th and 99.5th percentile."""
        least, median, most = percentiles
        return cls(
            low=low,
            high=high,
            percentile_00_5=least,
            median=median,
            percentile_99_5=most,
            fat_and_air=float(low < FAT_HU),
            air=float(low < AIR_HU),
            below_air=float(least < BELOW_AIR_HU),
            soft_tissue=float(least < TISSUE_HU[1] and most > TISSUE_HU[0]),
        )


@dataclass(frozen=True)
class ChannelKind:
    """What a channel of a data set is.

    Args:
        kind: `hounsfield`; `ct_in_another_unit`, where its name says CT and its values are not in HU; `arbitrary`.
        question: what name or values leave open, a sentence without its full stop; empty where nothing is.
        unlike: by index of the case, why its values are not in HU although the others' are.
    """

    kind: Literal["hounsfield", "ct_in_another_unit", "arbitrary"]
    question: str
    unlike: dict[int, str]


def channel_kind(name: str, cases: Sequence[ImageValues]) -> ChannelKind:
    """What a channel is by its name and the values of some or all of its images; half of them are enough."""
    if normalisation_of_channel_name(name) is not None or not cases:
        return ChannelKind("arbitrary", "", {})
    if named_ct(name):
        unlike = {i: why for i, values in enumerate(cases) if (why := not_hounsfield(values))}
        if 2 * len(unlike) <= len(cases):
            return ChannelKind("hounsfield", "", unlike)
        reasons = sorted(unlike.values(), key=list(unlike.values()).count)
        return ChannelKind("ct_in_another_unit", f"{name!r} is not in Hounsfield units: {reasons[-1]}", {})
    alike = [looks_hounsfield(values) for values in cases]
    if 2 * sum(alike) < len(cases):
        return ChannelKind("arbitrary", "", {})
    low, high = min(values.low for values in cases), max(values.high for values in cases)
    question = (
        f"{name!r} has values from {low:.5g} to {high:.5g} as a CT in Hounsfield units, and is treated as CT; if it is "
        "one, call the channel CT"
    )
    reasons_unlike = {
        i: not_hounsfield(values) or "it has no air or no soft tissue" for i, values in enumerate(cases) if not alike[i]
    }
    return ChannelKind("hounsfield", question, reasons_unlike)


def named_ct(name: str) -> bool:
    """Whether a channel is called CT: as a word, not as part of one; a cone beam CT has its own, uncertain unit."""
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    return bool(CT_WORDS & {*words}) and not {"cbct", "pet", "spect", "mr", "mri", "cone"} & {*words}


def looks_hounsfield(values: ImageValues) -> bool:
    """Whether values can hardly be anything else than Hounsfield units: much air at -1000, and soft tissue about 0."""
    tissue = values.soft_tissue >= LEAST_TISSUE and values.high >= -TISSUE_HU[0]
    return values.air >= LEAST_AIR and tissue and not_hounsfield(values) is None


def not_hounsfield(values: ImageValues) -> str | None:
    """Why an image cannot be in Hounsfield units; None where it can."""
    if values.low >= 0 and values.high <= 1:
        return "values lie in [0, 1], so it is a scaled one; if that is meant, call the channel noNorm"
    if values.percentile_99_5 > METAL_HU or values.percentile_00_5 < FILL_HU:
        return f"values from {values.low:.5g} to {values.high:.5g} are beyond Hounsfield units"
    shifted_down = values.below_air > MUCH_BELOW_AIR and values.soft_tissue < MUCH_BELOW_AIR
    if values.percentile_99_5 < TISSUE_HU[0] or values.soft_tissue < FEW or shifted_down:
        share = f"{values.soft_tissue:.1%} of the voxels have the HU of soft tissue"
        return f"{share} ({TISSUE_HU[0]} to {TISSUE_HU[1]}): was the rescale intercept applied twice?"
    if values.fat_and_air < FEW:
        return (
            f"no fat and air (below {FAT_HU} HU): an MR image, a scaled one, or a CT whose rescale intercept "
            "(RescaleIntercept, mostly -1024) was left out?"
        )
    return None
