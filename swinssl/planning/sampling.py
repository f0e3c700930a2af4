"""Whether patches are sampled for organs or tumours: by the structures' names, otherwise by their number and size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from swinssl.core.text import counted
from swinssl.preprocessing.fingerprint import Fingerprint, StructureFacts

# Unlike an organ: missing in 10 % of the cases, in several pieces, or with sizes that differ by this factor.
MISSING_SHARE = 0.1
PIECES = 2
SIZE_RANGE = 30
# With more structures than this, only names make a tumour task, because some organs are missing or vary in size.
MOST_STRUCTURES = 2


def choose_sampling(
    fingerprint: Fingerprint, wish: Literal["organ", "tumour"] | None
) -> tuple[Literal["organ", "tumour"], str]:
    """`organ` or `tumour`, and why."""
    labels = fingerprint.swinssl.labels
    if not fingerprint.annotated or not labels.names:
        return wish or "organ", "no labels"
    sizes = ", ".join(f"{name} {summary(fingerprint, name)}" for name in labels.names[:6])
    sizes += ", ..." if len(labels.names) > 6 else ""
    if wish is not None:
        return wish, f"as asked ({sizes})"
    tumours = [name for name, is_tumour in zip(labels.names, labels.tumour_like, strict=True) if is_tumour]
    if tumours:
        return "tumour", f"named like tumours or targets: {', '.join(tumours)} ({sizes})"
    if len(labels.names) <= MOST_STRUCTURES:
        for name in labels.names:
            why = _unlike_an_organ(fingerprint, name)
            if why:
                return "tumour", f"{name} {why}, unlike an organ ({sizes})"
    return "organ", f"names and sizes are those of organs ({sizes})"


def summary(fingerprint: Fingerprint, structure: str) -> str:
    """As in "in 40 of 40 cases, median 24 ml in 1 piece"."""
    found = present(fingerprint, structure)
    of = sum(found_or_missing(fingerprint, structure))
    if not found:
        return f"in none of {of} cases"
    volume = float(np.median([f.volume_mm3 for f in found]))
    pieces = float(np.median([f.components for f in found]))
    size = f"{volume / 1000:.3g} ml" if volume >= 100 else f"{volume:.3g} mm3"
    return f"in {len(found)} of {of} cases, median {size} in {counted(pieces, 'piece')}"


def present(fingerprint: Fingerprint, structure: str) -> list[StructureFacts]:
    """The facts of a structure in the cases that have it."""
    found = ((case.structures or {}).get(structure) for case in fingerprint.swinssl.cases)
    return [facts for facts in found if facts is not None]


def found_or_missing(fingerprint: Fingerprint, structure: str) -> tuple[int, int]:
    """Number of cases that have a structure, and of cases in which it was annotated but is missing."""
    missing = sum(case.lacks(structure) for case in fingerprint.swinssl.cases)
    return len(present(fingerprint, structure)), missing


def _unlike_an_organ(fingerprint: Fingerprint, structure: str) -> str:
    found, missing = found_or_missing(fingerprint, structure)
    if found and missing > MISSING_SHARE * (found + missing):
        return f"is missing in {missing} of {found + missing} cases"
    facts = present(fingerprint, structure)
    if facts and _median([f.components for f in facts]) >= PIECES:
        return f"has a median of {_median([f.components for f in facts]):.3g} pieces"
    volumes = [f.volume_mm3 for f in facts]
    if volumes and max(volumes) > SIZE_RANGE * min(volumes):
        return f"differs {max(volumes) / min(volumes):.0f}-fold in size between cases"
    return ""


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))
