"""How intensities are normalised: from the channel's name, what was measured, the recipe, and the user's wish."""

from __future__ import annotations

import difflib
import math
import re

from swinssl.errors import UserError
from swinssl.preprocessing import paper_protocol
from swinssl.preprocessing.fingerprint import Fingerprint
from swinssl.preprocessing.plans import Intensity, IntensityStatistics

# Channel names that nnU-Net knows, and common ones that it gives a z-score.
NAMED = {
    "nonorm": Intensity(scheme="none"),
    "rescale_to_0_1": Intensity(scheme="percentile", low=0, high=100),
    "rgb_to_0_1": Intensity(scheme="window", low=0, high=255),
    "zscore": Intensity(scheme="zscore"),
}
OTHER_MODALITIES = (
    *("mr", "mri", "t1", "t1w", "t1c", "t1ce", "t1gd", "t2", "t2w", "t2f", "flair", "adc", "dwi", "dce", "pd"),
    *("pet", "pt", "suv", "spect", "us", "cbct"),
)
# nnU-Net's: below this share of the volume left by the crop, statistics are taken inside the mask alone.
MASKED_BELOW = 0.75
FORM = "Give auto, window:LOW:HIGH, percentile:LOW:HIGH, zscore, none or encoder; one a channel, with commas."


def choose_intensities(
    fingerprint: Fingerprint,
    wish: str | None,
    *,
    paper: bool,
    encoder_intensity: Intensity | None = None,
) -> tuple[tuple[Intensity, ...], str]:
    """One scheme a channel, and why.

    Args:
        wish: the `--intensity` flag.
        paper: the source paper's windows instead of those from the data.
        encoder_intensity: what the encoder was pretrained with, if that is known.

    Raises:
        UserError: the flag cannot be read, does not fit the number of channels, or asks for an unknown window.
    """
    names = fingerprint.swinssl.channel_names
    wishes = (wish or "auto").split(",")
    if len(wishes) == 1:
        wishes *= len(names)
    if len(wishes) != len(names):
        raise UserError(
            f"--intensity {wish}: {len(wishes)} schemes for {len(names)} channels ({', '.join(names)}). {FORM}"
        )
    chosen, reasons = [], []
    for channel, (name, one) in enumerate(zip(names, wishes, strict=True)):
        one = one.strip()
        if one == "auto":
            scheme, why = _automatic(name, fingerprint.intensities[channel], fingerprint, paper=paper)
        elif one == "encoder":
            if encoder_intensity is None:
                raise UserError("--intensity encoder: the encoder's file does not say its intensities. " + FORM)
            scheme, why = encoder_intensity, "as the encoder was pretrained"
        else:
            scheme, why = asked_intensity(one, wish or ""), "as asked"
        chosen.append(scheme)
        reasons.append(f"{name}: {why}")
    return tuple(chosen), " | ".join(reasons)


def describe(intensity: Intensity) -> str:
    """As in "window [-175, 250] to [0, 1]"."""
    bounds = f"[{intensity.low:.5g}, {intensity.high:.5g}]"
    return {
        "window": f"window {bounds} to [0, 1]",
        "percentile": f"each case's percentiles {bounds} to [0, 1]",
        "zscore": "z-score of each case" + (" inside its non-zero mask" if intensity.inside_mask else ""),
        "none": "as it is",
    }[intensity.scheme]


def _automatic(name: str, seen: IntensityStatistics, fingerprint: Fingerprint, *, paper: bool) -> tuple[Intensity, str]:
    spelled = name.strip().lower()
    if spelled in NAMED:
        scheme = NAMED[spelled]
        inside = scheme.scheme == "zscore" and fingerprint.median_relative_size_after_cropping < MASKED_BELOW
        return scheme.model_copy(update={"inside_mask": inside}), f'since the channel is named "{name}"'
    if spelled == "ct":
        low, high, why = _ct_window(seen, annotated=fingerprint.annotated, paper=paper)
        return Intensity(scheme="window", low=low, high=high), why + _ct_doubt(seen)
    low, high = paper_protocol.MR_PERCENTILES
    why = "the paper's choice for MR" if paper else "intensities have no common unit between cases"
    return Intensity(scheme="percentile", low=low, high=high), why + _name_doubt(name, seen)


def _ct_window(seen: IntensityStatistics, *, annotated: bool, paper: bool) -> tuple[float, float, str]:
    if not annotated:
        return *paper_protocol.CT_PRETRAINING_WINDOW, "the paper's window for pretraining, since there are no labels"
    if paper:
        return *paper_protocol.CT_WINDOW, "the paper's window for fine-tuning"
    if seen.percentile_99_5 <= seen.percentile_00_5:
        return *paper_protocol.CT_WINDOW, "the paper's window, since the foreground shows no range of its own"
    return (
        seen.percentile_00_5,
        seen.percentile_99_5,
        "0.5th to 99.5th percentile of the foreground over all cases (nnU-Net's clip)",
    )


def _ct_doubt(seen: IntensityStatistics) -> str:
    """A word where the values cannot be Hounsfield units."""
    if seen.min >= 0 and seen.percentile_99_5 <= 1:
        return ". NOTE: values lie in [0, 1], not in HU; if they are scaled already, name the channel noNorm"
    if seen.min >= 0 and seen.median > 700:
        return (
            f". NOTE: no value below 0 and a foreground median of {seen.median:.4g}: this looks like HU + 1024; was "
            "the DICOM RescaleIntercept left out?"
        )
    if seen.percentile_00_5 < -2100 or seen.percentile_99_5 > 20000:
        return f". NOTE: foreground from {seen.min:.5g} to {seen.max:.5g} is beyond Hounsfield units; check the units"
    return ""


def _name_doubt(name: str, seen: IntensityStatistics) -> str:
    """A word where the name may be a slip for CT, or the values are those of a CT."""
    spelled = name.strip().lower()
    if spelled not in OTHER_MODALITIES:
        near = difflib.get_close_matches(spelled, ["ct", *NAMED, *OTHER_MODALITIES], n=1, cutoff=0.6)
        if re.match(r"ct(?![a-z]*mr)|.*[^a-z]ct$|computed", spelled) or near == ["ct"]:
            return f'. NOTE: "{name}" is not "CT"; if these are Hounsfield units, name the channel CT in dataset.json'
        if near and near[0] in NAMED:
            return f'. NOTE: "{name}" is not "{near[0]}"; correct channel_names in dataset.json if you mean that'
    if seen.min <= -900 and seen.max >= 300:
        return (
            f". NOTE: values from {seen.min:.5g} to {seen.max:.5g} look like Hounsfield units; if they are, name the "
            "channel CT in dataset.json"
        )
    return ""


def asked_intensity(one: str, whole: str) -> Intensity:
    """The scheme of one channel as it was typed, `one` of a `whole` flag.

    Raises:
        UserError: it cannot be read.
    """
    scheme, *bounds = one.split(":")
    if scheme in ("zscore", "none") and not bounds:
        return Intensity(scheme="zscore" if scheme == "zscore" else "none")
    if scheme in ("window", "percentile") and len(bounds) == 2:
        try:
            low, high = float(bounds[0]), float(bounds[1])
        except ValueError:
            low = high = math.nan
        inside = scheme == "window" or (low >= 0 and high <= 100)
        if math.isfinite(low) and math.isfinite(high) and low < high and inside:
            return Intensity(scheme="window" if scheme == "window" else "percentile", low=low, high=high)
        raise UserError(f"--intensity {whole}: {one} needs two numbers, the lower first (percentiles 0 to 100). {FORM}")
    raise UserError(f"--intensity {whole}: {one!r} is not known. {FORM}")
