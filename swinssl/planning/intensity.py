"""The intensity normalisation: by the channel's name, the measurements, the recipe and the user's options."""

from __future__ import annotations

import math
from collections.abc import Sequence

from swinssl.core.errors import UserError
from swinssl.core.text import listed, nearest
from swinssl.dataset.channel_kind import ChannelKind
from swinssl.dataset.normalisations import NORMALISATIONS, normalisation_forms, normalisation_of_channel_name
from swinssl.planning import options as paper_protocol
from swinssl.preprocessing.fingerprint import Fingerprint
from swinssl.preprocessing.plans import Intensity, IntensityStatistics, PlanWarning

# nnU-Net's: below this share of the volume left by the crop, statistics are taken inside the mask alone.
MASKED_BELOW = 0.75
SHOWN = 3


def choose_intensities(
    fingerprint: Fingerprint,
    wish: str | None,
    *,
    kinds: Sequence[ChannelKind],
    paper: bool,
    encoder_intensity: Intensity | None = None,
) -> tuple[tuple[Intensity, ...], str, tuple[PlanWarning, ...]]:
    """The normalisation of each channel, why, and warnings.

    Args:
        wish: the `--intensity` flag.
        kinds: kind of each channel.
        paper: use the source paper's windows instead of those from the data.
        encoder_intensity: normalisation of the encoder's pretraining, if known.

    Raises:
        UserError: the flag is invalid, does not match the number of channels, or asks for an unknown window.
    """
    names = fingerprint.swinssl.channel_names
    wishes = (wish or "auto").split(",")
    if len(wishes) == 1:
        wishes *= len(names)
    if len(wishes) != len(names):
        raise UserError(
            f"--intensity {wish}: {len(wishes)} schemes for {len(names)} channels ({', '.join(names)}). "
            f"{intensity_form()}"
        )
    chosen: list[Intensity] = []
    reasons: list[str] = []
    warnings: list[PlanWarning] = []
    for channel, (name, one) in enumerate(zip(names, wishes, strict=True)):
        one = one.strip()
        if one == "auto":
            scheme, why = _automatic(name, channel, kinds[channel], fingerprint, paper=paper)
            warnings += _warnings(name, kinds[channel], fingerprint)
        elif one == "encoder":
            if encoder_intensity is None:
                raise UserError(
                    "--intensity encoder: the encoder's file does not say its intensities. " + intensity_form()
                )
            scheme, why = encoder_intensity, "as the encoder was pretrained"
        else:
            scheme, why = asked_intensity(one, wish or ""), "as asked"
        chosen.append(scheme)
        reasons.append(f"{name}: {why}")
    return tuple(chosen), " | ".join(reasons), tuple(warnings)


def intensity_form() -> str:
    """The accepted values of `--intensity`, as a sentence."""
    return f"Give auto, {', '.join(normalisation_forms())} or encoder; one for each channel, separated by commas."


def describe(intensity: Intensity) -> str:
    """As in "window [-175, 250] to [0, 1]"."""
    words = NORMALISATIONS[intensity.scheme].description.format(low=intensity.low, high=intensity.high)
    return words + (" inside its non-zero mask" if intensity.inside_mask else "")


def _automatic(
    name: str, channel: int, kind: ChannelKind, fingerprint: Fingerprint, *, paper: bool
) -> tuple[Intensity, str]:
    if asked := normalisation_of_channel_name(name):
        scheme, low, high = asked
        inside = NORMALISATIONS[scheme].masked and fingerprint.median_relative_size_after_cropping < MASKED_BELOW
        intensity = Intensity(scheme=scheme, low=low, high=high, inside_mask=inside)
        return intensity, f'since the channel is named "{name}"'
    window = _ct_window(fingerprint.intensities[channel], kind, annotated=fingerprint.annotated, paper=paper)
    if kind.kind != "arbitrary" and window is not None:
        low, high, why = window
        return Intensity(scheme="window", low=low, high=high), why
    low, high = paper_protocol.MR_PERCENTILES
    why = "the paper's choice for MR" if paper else "intensities have no common unit between cases"
    return Intensity(scheme="percentile", low=low, high=high), why


def _warnings(name: str, kind: ChannelKind, fingerprint: Fingerprint) -> list[PlanWarning]:
    """Doubts about a channel whose normalisation is chosen from its name and values."""
    if normalisation_of_channel_name(name):
        return []
    doubts = [kind.question, _unlike(kind, fingerprint), _slip(name)]
    return [PlanWarning(decision="intensity", message=doubt) for doubt in doubts if doubt]


def _ct_window(
    foreground: IntensityStatistics, kind: ChannelKind, *, annotated: bool, paper: bool
) -> tuple[float, float, str] | None:
    """The window in the images' unit, and why; None if only Hounsfield units would define one."""
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
    """The cases whose unit differs from the others, and why."""
    if not kind.unlike:
        return ""
    cases = fingerprint.swinssl.cases
    named = listed([cases[i].id for i in kind.unlike], most=SHOWN)
    first = next(iter(kind.unlike.values()))
    return f"{len(kind.unlike)} of {len(cases)} cases are not in Hounsfield units: {named}. The first: {first}"


def _slip(name: str) -> str:
    """A warning if a channel name is a likely typo of one that selects another normalisation."""
    near = nearest(name.strip().lower(), [n for row in NORMALISATIONS.values() for n in row.channel_names])
    return f'"{name}" is not "{near}"; correct channel_names in dataset.json if you mean that' if near else ""


def asked_intensity(typed: str, whole: str) -> Intensity:
    """The normalisation of one channel, as typed; `whole` is the complete flag, for the message.

    Raises:
        UserError: it cannot be read.
    """
    scheme, *bounds = typed.split(":")
    if scheme not in NORMALISATIONS or len(bounds) != (2 if NORMALISATIONS[scheme].bounds else 0):
        raise UserError(f"--intensity {whole}: {typed!r} is not known. {intensity_form()}")
    try:
        low, high = map(float, bounds or (0, 0))
    except ValueError:
        low = high = math.nan
    if error := NORMALISATIONS[scheme].bounds_error(low, high):
        needed = f"{typed} needs two numbers, the lower first (percentiles 0 to 100): {error}"
        raise UserError(f"--intensity {whole}: {needed}. {intensity_form()}")
    return Intensity(scheme=scheme, low=low, high=high)
