"""How intensities are normalised: from the channel's name, what was measured, the recipe, and the user's wish."""

from __future__ import annotations

import math
from collections.abc import Sequence

from swinssl.core.errors import UserError
from swinssl.core.text import listed, nearest
from swinssl.dataset.channel_kind import ChannelKind
from swinssl.planning import options as paper_protocol
from swinssl.preprocessing.fingerprint import Fingerprint
from swinssl.preprocessing.plans import Intensity, IntensityStatistics

# Channel names that nnU-Net knows besides CT.
NAMED = {
    "nonorm": Intensity(scheme="none"),
    "rescale_to_0_1": Intensity(scheme="percentile", low=0, high=100),
    "rgb_to_0_1": Intensity(scheme="window", low=0, high=255),
    "zscore": Intensity(scheme="zscore"),
}
# nnU-Net's: below this share of the volume left by the crop, statistics are taken inside the mask alone.
MASKED_BELOW = 0.75
SHOWN = 3
FORM = "Give auto, window:LOW:HIGH, percentile:LOW:HIGH, zscore, none or encoder; one a channel, with commas."


def choose_intensities(
    fingerprint: Fingerprint,
    wish: str | None,
    *,
    kinds: Sequence[ChannelKind],
    paper: bool,
    encoder_intensity: Intensity | None = None,
) -> tuple[tuple[Intensity, ...], str]:
    """One scheme a channel, and why.

    Args:
        wish: the `--intensity` flag.
        kinds: what each channel is.
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
            scheme, why = _automatic(name, channel, kinds[channel], fingerprint, paper=paper)
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


def _automatic(
    name: str, channel: int, kind: ChannelKind, fingerprint: Fingerprint, *, paper: bool
) -> tuple[Intensity, str]:
    spelled = name.strip().lower()
    if spelled in NAMED:
        scheme = NAMED[spelled]
        inside = scheme.scheme == "zscore" and fingerprint.median_relative_size_after_cropping < MASKED_BELOW
        return scheme.model_copy(update={"inside_mask": inside}), f'since the channel is named "{name}"'
    doubt = "".join(f". NOTE: {text}" for text in (kind.question, _unlike(kind, fingerprint), _slip(name)) if text)
    window = _ct_window(fingerprint.intensities[channel], kind, annotated=fingerprint.annotated, paper=paper)
    if kind.kind != "arbitrary" and window is not None:
        low, high, why = window
        return Intensity(scheme="window", low=low, high=high), why + doubt
    low, high = paper_protocol.MR_PERCENTILES
    why = "the paper's choice for MR" if paper else "intensities have no common unit between cases"
    return Intensity(scheme="percentile", low=low, high=high), why + doubt


def _ct_window(
    foreground: IntensityStatistics, kind: ChannelKind, *, annotated: bool, paper: bool
) -> tuple[float, float, str] | None:
    """Window in the images' unit, and why; None where nothing but Hounsfield units would say one."""
    hounsfield = kind.kind == "hounsfield"
    if annotated and foreground.percentile_99_5 > foreground.percentile_00_5 and not (paper and hounsfield):
        why = "0.5th to 99.5th percentile of the foreground over all cases (nnU-Net's clip)"
        return foreground.percentile_00_5, foreground.percentile_99_5, why
    if not hounsfield:
        return None
    if not annotated:
        return *paper_protocol.CT_PRETRAINING_WINDOW, "the paper's window for pretraining, since there are no labels"
    if paper:
        return *paper_protocol.CT_WINDOW, "the paper's window for fine-tuning"
    return *paper_protocol.CT_WINDOW, "the paper's window, since the foreground shows no range of its own"


def _unlike(kind: ChannelKind, fingerprint: Fingerprint) -> str:
    """Which cases have another unit than the others, and why."""
    if not kind.unlike:
        return ""
    cases = fingerprint.swinssl.cases
    named = listed([cases[i].id for i in kind.unlike], most=SHOWN)
    first = next(iter(kind.unlike.values()))
    return f"{len(kind.unlike)} of {len(cases)} cases are not in Hounsfield units: {named}. The first: {first}"


def _slip(name: str) -> str:
    """What a name nearly is that would choose another normalisation."""
    near = nearest(name.strip().lower(), NAMED)
    return f'"{name}" is not "{near}"; correct channel_names in dataset.json if you mean that' if near else ""


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
