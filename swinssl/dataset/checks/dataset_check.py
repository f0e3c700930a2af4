"""Every problem of a raw data set in one run: its description, its files, and what only shows between cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.core.pools import Crash, fitting_workers, run_jobs
from swinssl.core.terminal import track
from swinssl.dataset.channel_kind import channel_kind, not_hounsfield
from swinssl.dataset.checks.case_check import CaseCheck, CheckedCase, check_case
from swinssl.dataset.checks.finding import Finding, Severity
from swinssl.dataset.checks.unlike_cases import unlike_volumes
from swinssl.dataset.description import DESCRIPTION_FILE
from swinssl.dataset.raw_dataset import RawDataset, survey
from swinssl.dataset.splits import FOLDS, SPLITS_FILE, check_splits, read_splits

# Findings that leave open what label values mean, so that nothing can be said about values.
MEANING_OPEN = {"E101", "E102", "E103", "E104", "E105"}
# Edges of voxels that differ so much from the others' are in another unit.
OTHER_UNIT = 6.0
# Below this many bytes of input, starting processes takes longer than the work.
WORTH_A_POOL = 100_000_000
# Bytes in memory for a byte on disk: four times compressed int16, and float32 beside it.
MEMORY_PER_BYTE = 16


@dataclass(frozen=True)
class CheckReport:
    """The outcome.

    Args:
        findings: errors first, then by code and file.
        structures: by structure, the number of cases that have it.
    """

    raw: RawDataset
    findings: tuple[Finding, ...]
    structures: Mapping[str, int]

    def count(self, severity: Severity) -> int:
        """Findings of that severity."""
        return sum(finding.severity == severity for finding in self.findings)


def check_dataset(source: Path, *, workers: int | None = None) -> CheckReport:
    """Check a raw data set whole; every image and label is read to its end.

    Args:
        workers: processes; 0 works in this one, None chooses.

    Raises:
        UserError: there is no such folder or list. Everything else is a finding.
    """
    raw, findings = survey(source)
    labels = None if any(finding.code in MEANING_OPEN for finding in findings) else raw.labels
    jobs = [CaseCheck(raw.folder, case, raw.channel_names, labels) for case in raw.cases]
    workers = _default_workers(raw) if workers is None else workers
    checked: dict[int, CheckedCase] = {}
    for index, result in track(run_jobs(check_case, jobs, workers=workers), "checking", total=len(jobs)):
        checked[index] = _of_crash(jobs[index], result) if isinstance(result, Crash) else result
    cases = [checked[index] for index in sorted(checked)]
    structures = {name: sum(bool((c.structures or {}).get(name)) for c in cases) for name in raw.labels.names}
    findings += [finding for case in cases for finding in case.findings]
    findings += [
        *_repeated(raw, cases),
        *_other_units(raw, cases),
        *_intensities(raw, cases),
        *_unlike(raw, cases),
        *_structures(cases, structures),
        *_splits(raw),
    ]
    severity = "EWN"
    ordered = sorted(set(findings), key=lambda f: (severity.index(f.code[0]), f.code, f.file, f.message))
    return CheckReport(raw, tuple(ordered), structures)


def _of_crash(job: CaseCheck, crash: Crash) -> CheckedCase:
    file = f"case {job.case.id}"
    return CheckedCase(job.case.id, (Finding("E201", file, "cannot be checked: " + str(crash), "See there."),))


def _repeated(raw: RawDataset, cases: Sequence[CheckedCase]) -> list[Finding]:
    images = {case.case_id: case.image_hash for case in cases}
    labels = {case.case_id: case.label_hash for case in cases}
    found = []
    for first, other in _pairs(images):
        message = f"has the same voxels as the image of {first}"
        remedy = "Remove one of them, or put both into one group (groups.csv), or they leak between folds."
        found.append(Finding("W304", _file(raw, raw.case(other).images[0]), message, remedy))
    for first, other in _pairs(labels):
        path = raw.case(other).label
        known = images[first] is not None and images[other] is not None
        if path is not None and known and images[first] != images[other]:
            message = f"has the same voxels as the label of {first}, but the images differ"
            found.append(Finding("W411", _file(raw, path), message, "Replace it with the right label."))
    return found


def _pairs(hashes: Mapping[str, str | None]) -> list[tuple[str, str]]:
    """(first, other) of every case that has the hash of an earlier one."""
    firsts: dict[str, str] = {}
    pairs = []
    for case_id, own in hashes.items():
        if own is not None and firsts.setdefault(own, case_id) != case_id:
            pairs.append((firsts[own], case_id))
    return pairs


def _other_units(raw: RawDataset, cases: Sequence[CheckedCase]) -> list[Finding]:
    edges = {case.case_id: case.voxel_mm for case in cases if case.voxel_mm is not None}
    if len(edges) < 3:
        return []
    usual = float(np.median(list(edges.values())))
    return [
        Finding(
            "W307",
            _file(raw, raw.case(case_id).images[0]),
            f"voxels of {edge:.3g} mm on average; the others have {usual:.3g} mm",
            "Check the unit and the spacing in the header.",
        )
        for case_id, edge in edges.items()
        if max(edge / usual, usual / edge) > OTHER_UNIT
    ]


def _intensities(raw: RawDataset, cases: Sequence[CheckedCase]) -> list[Finding]:
    """What the channels are, where name and values disagree, and cases that are not in the others' unit."""
    found = []
    for channel, name in enumerate(raw.channel_names):
        measured = [case for case in cases if channel in case.values]
        kind = channel_kind(name, [case.values[channel] for case in measured])
        unlike = kind.unlike
        if kind.kind == "ct_in_another_unit":
            unlike = {i: why for i, case in enumerate(measured) if (why := not_hounsfield(case.values[channel]))}
        elif kind.question:
            of_folder = raw.source.is_dir()
            where = DESCRIPTION_FILE if of_folder else raw.source.name
            to_name_it = "" if of_folder else ' To call the channel CT, write the line "# channel: CT" at the top.'
            remedy = f"If it is not a CT, give swinssl_plan another --intensity.{to_name_it}"
            found.append(Finding("W306", where, f"channel {kind.question}", remedy))
        for i, why in unlike.items():
            path = _file(raw, raw.case(measured[i].case_id).images[channel])
            remedy = "Apply the DICOM rescale slope and intercept once, or export the image again."
            found.append(Finding("W305", path, f"is not in Hounsfield units: {why}", remedy))
    return found


def _unlike(raw: RawDataset, cases: Sequence[CheckedCase]) -> list[Finding]:
    """Structures of a volume that no other case comes near."""
    volumes: dict[str, dict[str, float]] = {
        name: {
            case.case_id: case.structures[name] * case.voxel_mm**3 / 1000
            for case in cases
            if case.structures and case.voxel_mm and case.structures.get(name)
        }
        for name, tumour in zip(raw.labels.names, raw.labels.tumour_like, strict=True)
        if not tumour
    }
    found = []
    for unlike in unlike_volumes(volumes):
        label = raw.case(unlike.case_id).label
        if label is not None:
            remedy = "Compare it with another case. If the structure and its extent are the same, no action is needed."
            found.append(Finding("W415", _file(raw, label), str(unlike), remedy))
    return found


def _structures(cases: Sequence[CheckedCase], structures: Mapping[str, int]) -> list[Finding]:
    labelled = sum(case.structures is not None for case in cases)
    found = []
    if labelled and structures and not any(structures.values()):
        message = f"none of the {labelled} labels has a voxel of any structure"
        return [
            Finding("E410", DESCRIPTION_FILE, message, "Replace them with the right labels, or declare their values.")
        ]
    if labelled:
        for name, number in structures.items():
            if not number:
                remedy = "Remove it from dataset.json, or check whether it has another value in the labels."
                found.append(Finding("W409", DESCRIPTION_FILE, f"declares {name!r}, which no case has", remedy))
    return found


def _splits(raw: RawDataset) -> list[Finding]:
    """Folds: those that came with the data, or how many can be made."""
    annotated = [case for case in raw.cases if case.label is not None]
    groups = {case.id: case.group for case in annotated if case.group is not None}
    path = raw.source / SPLITS_FILE
    if not files.is_missing(path):
        try:
            check_splits(path, read_splits(path), cases=[case.id for case in annotated], groups=groups)
        except UserError as error:
            message = str(error).removeprefix(f"{path}: ").rstrip(".")
            return [Finding("E113", SPLITS_FILE, message, "Correct it, or remove it: folds are then made.")]
        return []
    units = len({groups.get(case.id, f"case {case.id}") for case in annotated})
    if units == 1:
        remedy = "No action needed for a trial; add cases before you rely on a number."
        return [Finding("N501", DESCRIPTION_FILE, "one case or group: it trains and validates on itself", remedy)]
    if 1 < units < FOLDS:
        message = f"{units} cases or groups: there will be {units} folds instead of {FOLDS}"
        return [Finding("N502", DESCRIPTION_FILE, message, "Nothing to do.")]
    return []


def _default_workers(raw: RawDataset) -> int:
    there = [[path for path in (*case.images, case.label) if path and files.is_file(path)] for case in raw.cases]
    sizes = [max((path.stat().st_size for path in paths), default=0) for paths in there]
    if sum(path.stat().st_size for paths in there for path in paths) < WORTH_A_POOL:
        return 0
    return fitting_workers(len(sizes), max(sizes) * MEMORY_PER_BYTE)


def _file(raw: RawDataset, path: Path) -> str:
    return (path.relative_to(raw.folder) if path.is_relative_to(raw.folder) else path).as_posix()
