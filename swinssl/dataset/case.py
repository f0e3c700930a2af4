"""A case: its files, and the one rule for what it is called."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from swinssl.core.errors import UserError
from swinssl.core.text import sentences
from swinssl.core.workspace import RESERVED_NAMES, SAFE_NAME
from swinssl.dataset.checks.finding import Finding
from swinssl.imageio.formats import images_in, without_ending


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


CHANNEL = re.compile(r"(.+)_([0-9]{4})", re.DOTALL)
FIRST_CHANNEL = "_0000"
# More numbered files than this are cases rather than channels of one.
MOST_GUESSED_CHANNELS = 4
UNUSABLE = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f]|^[. ]|[. ]$')
# In bytes. File systems take 255; the files of a case have longer names than its id.
LONGEST_ID = 200
SHOWN = 3
RENAME = "Rename it: letters, digits, '.', '_' and '-'."


def case_name(file: str | Path) -> str:
    """The name of an image file without its ending, in the normal form of ids; a label's is its case id."""
    return normal_form(without_ending(file))


def normal_form(case_id: str) -> str:
    """The form in which two spellings of one id are equal."""
    return unicodedata.normalize("NFC", case_id)


def split_channels(
    names: Sequence[str], *, channels: int, labels: Collection[str] = ()
) -> dict[str, dict[int | None, str]]:
    """Case id -> channel number (None: without one) -> name without ending.

    Where there is one channel, the four digits at the end of a name number cases rather than channels if a label has
    the whole name, if the numbers do not begin with 0000, if it is the only series of names, or if there are more
    numbers than `MOST_GUESSED_CHANNELS`.

    Args:
        names: of images, by `case_name`.
        channels: how many a case has; 0 where nothing says.
        labels: names of label maps, as far as they are known.
    """
    cases: dict[str, dict[int | None, str]] = defaultdict(dict)
    for name in names:
        match = CHANNEL.fullmatch(name)
        if match is None or (channels <= 1 and name in labels):
            cases[name][None] = name
        else:
            cases[match[1]][int(match[2])] = name
    if channels <= 1:
        for case_id in [i for i, found in cases.items() if _numbers_cases(i, found, len(cases), channels, labels)]:
            for name in cases.pop(case_id).values():
                cases[name][None] = name
    return dict(cases)


def _numbers_cases(
    case_id: str, found: Mapping[int | None, str], cases: int, channels: int, labels: Collection[str]
) -> bool:
    if case_id in labels or None in found:
        return False
    many = len(found) > MOST_GUESSED_CHANNELS
    return 0 not in found or many or (channels == 1 and cases == 1 and len(found) > 1)


def labels_beside(images: Path) -> Path | None:
    """The labels folder beside an images folder of a raw data set: labelsTr beside imagesTr."""
    images = Path(os.path.abspath(images)) if images.name in ("", "..") else images  # noqa: PTH100
    labels = images.parent / images.name.replace("images", "labels", 1)
    return labels if images.name.startswith("images") and labels.is_dir() else None


def label_names(images: Path) -> frozenset[str]:
    """The names of the label maps beside an images folder; empty where there are none."""
    labels = labels_beside(images)
    return frozenset() if labels is None else frozenset(case_name(path) for path in images_in(labels))


def id_findings(ids: Sequence[str]) -> list[Finding]:
    """What is wrong with ids as names of files, on this system or another."""
    found: list[Finding] = []
    lower: dict[str, str] = {}
    for case_id in ids:
        file = f"case {_readable(case_id)}"
        other = lower.setdefault(normal_form(case_id.lower()), case_id)
        if any("\ud800" <= letter <= "\udfff" for letter in case_id):
            message = f"the id {_readable(case_id)!r} is not valid UTF-8, as in an archive from an old Windows"
            found.append(Finding("E109", file, message, f"{RENAME} Unpack the archive again with the right encoding."))
        elif not case_id or UNUSABLE.search(case_id) or case_id.split(".")[0].lower() in RESERVED_NAMES:
            message = f"the id {case_id!r} cannot be the name of a file or folder on every system"
            found.append(Finding("E109", file, message, RENAME))
        elif (size := len(case_id.encode())) > LONGEST_ID:
            message = f"the id has {size} bytes; names of files that are made of it must fit into 255"
            found.append(Finding("E109", file, message, f"Rename it to at most {LONGEST_ID} bytes."))
        elif other != case_id:
            message = f"differs from case {other} in upper or lower case only, which many systems do not distinguish"
            found.append(Finding("E109", file, message, "Rename one of them."))
        elif not SAFE_NAME.fullmatch(case_id):
            message = f"the id {case_id!r} has spaces, other characters than letters, digits, '.', '_', '-', or is long"
            found.append(Finding("W106", file, message, "Rename it if other programs have to read the results."))
    return found


def refuse_unusable(ids: Sequence[str], *, source: Path) -> None:
    """Refuse ids that cannot be stored, as `swinssl_check` does.

    Raises:
        UserError: names the first of them.
    """
    errors = [finding for finding in id_findings(ids) if finding.severity == "error"]
    if errors:
        raise UserError(f"{source}: {sentences(errors, most=SHOWN)}")


def _readable(case_id: str) -> str:
    """With bytes that are no text as question marks."""
    return case_id.encode("utf-8", "replace").decode("utf-8")
