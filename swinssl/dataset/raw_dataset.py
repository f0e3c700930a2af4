"""A raw data set as it lies on disk, in nnU-Net v2's layout or one near it, or as a list of volumes; never written."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.core.text import counted, did_you_mean, sentences
from swinssl.core.workspace import LIST_ENDING, dataset_name, is_volume_list
from swinssl.dataset.case import Case
from swinssl.dataset.case_listing import LABELS, list_cases
from swinssl.dataset.case_tables import copy_tables, with_tables
from swinssl.dataset.checks.finding import Finding
from swinssl.dataset.description import DESCRIPTION_FILE, EXAMPLE, Description, read_description
from swinssl.dataset.labels import LabelSet
from swinssl.dataset.splits import SPLITS_FILE
from swinssl.dataset.volume_list import read_volume_list

logger = logging.getLogger(__name__)

__all__ = ["Case", "RawDataset", "survey"]

# What leaves the meaning of the whole data set open, or cannot be stored. Other errors concern a case, which fails
# by itself.
FATAL = {"E101", "E102", "E103", "E104", "E105", "E109", "E110", "E111", "E112", "E114", "E115"}
# Files that nothing is made of, which the user may take for cases.
LEFT_OUT = {"W102", "W103", "W104"}
SHOWN = 5
# A channel of images that come without a name for it.
UNNAMED_CHANNEL = "image"


@dataclass(frozen=True)
class RawDataset:
    """What is on disk before anything ran.

    Args:
        source: the folder, or the list of volumes. Tables and splits lie in a folder; beneath a list there is nothing.
        folder: where the source's own files are, and what files are named relative to.
        name: name of the folder, or of the list without its ending.
        channel_names: image channels in order.
        labels: structures and their values; no structure where there are no labels.
        cases: sorted by id.
        description: dataset.json in nnU-Net v2's form, whatever form it has on disk.
        file_ending: of the images.
        left_out: files of the folder that are not read, in words; every command that reads the data set ends with them.
    """

    source: Path
    folder: Path
    name: str
    channel_names: tuple[str, ...]
    labels: LabelSet
    cases: tuple[Case, ...]
    description: dict[str, Any]
    file_ending: str
    left_out: tuple[str, ...] = ()

    @classmethod
    def load(cls, source: Path) -> RawDataset:
        """The data set in a folder, or of a list of volumes; no image is opened.

        A case with a missing file is listed all the same and fails when it is read.

        Raises:
            UserError: there is no case, or what is described has no clear meaning.
        """
        raw, findings = survey(source)
        fatal = [finding for finding in findings if finding.code in FATAL]
        if fatal:
            faults = [f"{raw.folder / finding.file}: {finding.message}. {finding.remedy}" for finding in fatal]
            raise UserError(f"{sentences(faults, most=SHOWN)} Run swinssl_check for the complete list.")
        return raw

    @cached_property
    def _by_id(self) -> dict[str, Case]:
        return {case.id: case for case in self.cases}

    def case(self, case_id: str) -> Case:
        """One case.

        Raises:
            UserError: there is none of that id.
        """
        if case_id not in self._by_id:
            near = did_you_mean(case_id, self._by_id)
            raise UserError(f"{self.source}: has no case {case_id!r}. {near}It has {counted(len(self.cases), 'case')}.")
        return self._by_id[case_id]

    def copy_description(self, folder: Path) -> None:
        """Leave in `folder` what later steps need to know of the raw data set: dataset.json, the tables and splits.

        dataset.json is copied as it is where it is complete, else written in nnU-Net v2's form.
        """
        original = self.source / DESCRIPTION_FILE
        if original.is_file() and self._is_complete(original):
            files.write_bytes(folder / DESCRIPTION_FILE, original.read_bytes())
        else:
            files.write_json(folder / DESCRIPTION_FILE, self.description)
        copy_tables(self.source, folder, self.cases)
        splits = self.source / SPLITS_FILE
        if not files.is_missing(splits):
            try:
                content, target = files.read_bytes(splits), folder / SPLITS_FILE
            except OSError as error:
                remedy = "Correct it, or remove it: folds are then made."
                raise UserError(f"{splits}: cannot be read ({error.strerror}). {remedy}") from None
            if target.is_file() and target.read_bytes() != content:
                logger.warning("%s: replaced by the one in %s; runs before it used other folds.", target, self.source)
            files.write_bytes(target, content)

    def _is_complete(self, original: Path) -> bool:
        """Whether the file says the same to readers that know nnU-Net v2's form only."""
        content = files.read_json(original, what="description", remedy=f"It looks like {EXAMPLE}")
        return all(content.get(key) == value for key, value in self.description.items() if key != "numTraining")


def survey(source: Path) -> tuple[RawDataset, list[Finding]]:
    """What a folder or list holds, as far as it can be understood, and everything that names and descriptions show.

    Raises:
        UserError: there is no such folder or list.
    """
    source = Path(os.path.abspath(source))  # noqa: PTH100 (a link keeps its own name)
    if is_volume_list(source):
        folder, (description, listing) = source.parent, read_volume_list(source)
        cases, findings = list(listing.cases), list(listing.findings)
    elif source.is_dir():
        folder, (description, findings) = source, read_description(source)
        listing = list_cases(folder, description)
        cases, of_tables = with_tables(folder, listing.cases, description)
        findings += [*_remarks(folder, description, len(cases)), *listing.findings, *of_tables]
    else:
        raise UserError(
            f"{source}: no such folder. Give a raw data set: a folder with imagesTr and dataset.json, or a list of "
            f"volumes ({LIST_ENDING})."
        )
    channel_names = description.channel_names or tuple(
        UNNAMED_CHANNEL if listing.channels == 1 else f"{UNNAMED_CHANNEL}_{i}" for i in range(listing.channels)
    )
    raw = RawDataset(
        source=source,
        folder=folder,
        name=dataset_name(source),
        channel_names=channel_names,
        labels=description.labels,
        cases=tuple(cases),
        description=description.as_v2(channel_names=channel_names, cases=len(cases), file_ending=listing.file_ending),
        file_ending=listing.file_ending,
        left_out=_left_out(folder, findings),
    )
    return raw, findings


def _left_out(folder: Path, findings: Sequence[Finding]) -> tuple[str, ...]:
    """One line for each kind of file."""
    by_code: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.code in LEFT_OUT:
            by_code.setdefault(finding.code, []).append(finding)
    lines = []
    for first, *others in by_code.values():
        more = f" Likewise {len(others)} more; swinssl_check lists them." if others else ""
        lines.append(f"{folder / first.file}: {first.message}. {first.remedy}{more}")
    return tuple(lines)


def _remarks(folder: Path, description: Description, cases: int) -> list[Finding]:
    """What the description lacks, seen beside the files."""
    if not description.content and files.is_missing(folder / DESCRIPTION_FILE):
        if (folder / LABELS).is_dir():
            message = f"no such file, and {LABELS} has labels whose meaning it would say"
            return [Finding("E101", DESCRIPTION_FILE, message, f"Write it, such as {EXAMPLE}")]
        message = f"no such file; the channel is called {UNNAMED_CHANNEL!r}, and its values decide whether it is CT"
        remedy = f"No action needed for pretraining; otherwise write it, such as {EXAMPLE}"
        return [Finding("N107", DESCRIPTION_FILE, message, remedy)]
    if description.num_training not in (None, cases):
        message = f'"numTraining" is {description.num_training}; there are {cases} cases'
        return [Finding("W101", DESCRIPTION_FILE, message, "Correct it, or look for cases that are missing.")]
    return []
