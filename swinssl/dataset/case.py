"""One case of a raw data set: its files, and what is known about it beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """One case.

    Args:
        id: name of the case, without channel and ending.
        images: a file a channel; one that is missing is listed where it should be, one too many as well, so that
            whoever reads the case says so.
        label: the label map, missing or not; None where none is expected.
        labels_present: structures that somebody looked for in this case; None says all of them.
        group: what must stay on one side of a split (a patient with several scans); None is a group of its own.
    """

    id: str
    images: tuple[Path, ...]
    label: Path | None = None
    labels_present: tuple[str, ...] | None = None
    group: str | None = None
