"""A raw data set into the store, case by case: what is current is left, what fails is named, the others go on.

Any number of processes, on any number of machines, may work on one folder at once: a case is locked while it is made,
and who finds it locked does the others first.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.core.geometry import Shape
from swinssl.core.locks import FileLock
from swinssl.core.pools import Cluster, Crash, fitting_workers, run_jobs
from swinssl.core.terminal import track
from swinssl.dataset.raw_dataset import Case, RawDataset
from swinssl.dataset.splits import READ_ONLY_ERRNOS
from swinssl.imageio.formats import required_ending
from swinssl.imageio.image_fault import ImageFault
from swinssl.imageio.reader import read_case
from swinssl.imageio.voxel_stream import image_sha256
from swinssl.preprocessing.plans import PLANS_FILE, Plans
from swinssl.preprocessing.prepared_volume import PreparedVolume, peak_bytes, prepare
from swinssl.preprocessing.raw_changes import annotated_in, input_file, input_paths, refuse_other_dataset
from swinssl.preprocessing.store import (
    CASES,
    PROPERTIES,
    REFERENCES,
    Codec,
    PreprocessedCase,
    case_folder,
    content_hash,
    write_case,
)

__all__ = ["CaseReport", "PreparedVolume", "PreprocessReport", "default_workers", "prepare", "preprocess_dataset"]

logger = logging.getLogger(__name__)

# Below this input size, starting processes takes longer than they save.
WORTH_A_POOL = 20_000_000
# However small it is, a case takes as long as so much more input: its files are made and named.
CASE_BYTES = 200_000
EARLIER = "An earlier version of it is in the store and is what training would use."


@dataclass(frozen=True)
class CaseReport:
    """The outcome of a case.

    Args:
        status: `done`, `current` (nothing to do), `failed`, or `busy`: another process is at it.
        message: why it failed.
        seconds: time it took.
        stored_bytes: size in the store.
        shape: stored voxels (z, y, x).
        voxels_before: per structure, voxels on the source grid.
        voxels_after: per structure, voxels in the stored label.
    """

    case_id: str
    status: Literal["done", "current", "failed", "busy"]
    message: str = ""
    seconds: float = 0.0
    stored_bytes: int = 0
    shape: Shape | None = None
    voxels_before: dict[str, int] | None = None
    voxels_after: dict[str, int] | None = None

    @property
    def vanished(self) -> tuple[str, ...]:
        """Structures that have voxels in the file but none in the store."""
        after = self.voxels_after or {}
        return tuple(name for name, n in (self.voxels_before or {}).items() if n > 0 and after.get(name, 0) == 0)


@dataclass(frozen=True)
class PreprocessReport:
    """The outcome of each case of this part, and the differences between store and raw data set.

    Args:
        orphans: cases that the store has but the raw data set has not.
        missing: cases that the raw data set has and the store has not, or not as the plans that lie there now have it.
    """

    cases: tuple[CaseReport, ...]
    orphans: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    def with_status(self, status: str) -> tuple[CaseReport, ...]:
        """The cases with this status."""
        return tuple(case for case in self.cases if case.status == status)

    @property
    def vanished(self) -> tuple[tuple[str, str], ...]:
        """(case, structure) of every structure that was lost in resampling or cropping."""
        return tuple((case.case_id, name) for case in self.cases for name in case.vanished)

    def as_json(self) -> dict[str, Any]:
        """The report as JSON."""
        return {
            "cases": [{**asdict(case), "vanished": list(case.vanished)} for case in self.cases],
            "orphans": list(self.orphans),
            "missing": list(self.missing),
        }


# What works jobs off: each one's index and its result, as results come.
Run = Callable[[Callable[["_Job"], CaseReport], Sequence["_Job"]], Iterator[tuple[int, CaseReport | Crash]]]


@dataclass(frozen=True)
class _Job:
    """A case to preprocess; `wait` for another process that works on it, or return it as `busy`."""

    case: Case
    plans: Plans
    folder: Path
    codec: Codec
    wait: bool = False


def preprocess_dataset(
    raw: RawDataset,
    plans: Plans,
    folder: Path,
    *,
    workers: int,
    part: tuple[int, int] = (1, 1),
    codec: Codec = "lz4",
    cluster: Cluster | None = None,
) -> PreprocessReport:
    """Preprocess every case of a raw data set; may be stopped, called again, and called by several processes at once.

    A case is left as it is where its input files, its annotated structures, the plans' preprocessing decisions and the
    code's version are those it was made with, and its files are intact.

    Args:
        folder: `<root>/preprocessed/<name>`; receives plans, dataset.json, reference labels and cases. Nothing in it
            is removed, but cases are replaced.
        workers: processes; 0 works in this one.
        part: (i, n) takes the i-th of n parts, counted from 1, so that n machines share the work.
        codec: of the stored arrays.
        cluster: whose workers do it instead.

    Raises:
        UserError: `folder` is that of another raw data set.
    """
    folder = Path(folder)
    refuse_other_dataset(raw, folder)
    plans.write(folder / PLANS_FILE)
    raw.copy_description(folder)
    jobs = [_Job(case, plans, folder, codec) for case in part_of(raw.cases, part)]
    stored = {path.parent.name for path in (folder / CASES).glob(f"*/{PROPERTIES}")}
    reports: dict[str, CaseReport] = {}
    run: Run = partial(run_jobs, workers=workers, name=lambda job: job.case.id)
    if cluster is not None:
        jobs, run = [_from_anywhere(job) for job in jobs], cluster.run_jobs
    for report in track(_worked_off(jobs, run), "preprocessing", total=len(jobs)):
        if report.status == "failed":
            if report.case_id in stored:
                report = replace(report, message=f"{report.message} {EARLIER}")
            logger.warning("%s failed: %s", report.case_id, report.message)
        reports[report.case_id] = report
    known = {case.id for case in raw.cases}
    return PreprocessReport(
        tuple(reports[job.case.id] for job in jobs), tuple(sorted(stored - known)), _missing(raw, folder)
    )


def _from_anywhere(job: _Job) -> _Job:
    """The job with absolute paths, which do not depend on a process's working folder."""
    case = job.case
    label = None if case.label is None else case.label.absolute()
    images = tuple(path.absolute() for path in case.images)
    return replace(job, case=replace(case, images=images, label=label), folder=job.folder.absolute())


def _worked_off(jobs: Sequence[_Job], run: Run) -> Iterator[CaseReport]:
    """The outcome of each case; cases that other processes work on come last, when those have finished or died."""
    busy = []
    for index, result in run(_process, jobs):
        report = _report(jobs[index], result)
        if report.status == "busy":
            busy.append(replace(jobs[index], wait=True))
        else:
            yield report
    for index, result in run(_process, busy):
        yield _report(busy[index], result)


def _report(job: _Job, result: CaseReport | Crash) -> CaseReport:
    return CaseReport(job.case.id, "failed", message=str(result)) if isinstance(result, Crash) else result


def _missing(raw: RawDataset, folder: Path) -> tuple[str, ...]:
    """Cases that are not in the store, or were made with other plans."""
    plans = Plans.read(folder)
    missing = []
    for case in sorted(raw.cases, key=lambda case: case.id):
        try:
            its = PreprocessedCase.open(folder, case.id).properties
            there = its.content_hash == content_hash(its.input_sha256, plans, its.labels_present)
        except UserError:  # not there, damaged or of another version
            there = False
        if not there:
            missing.append(case.id)
    return tuple(missing)


def part_of(cases: Sequence[Case], part: tuple[int, int]) -> list[Case]:
    """Every n-th case in order of ids, starting with the i-th."""
    i, n = part
    return sorted(cases, key=lambda case: case.id)[i - 1 :: n]


def is_current(case: Case, plans: Plans, folder: Path) -> bool:
    """Whether the stored case is current and undamaged; reads the input files completely."""
    try:
        hashes = _input_sha256(case)
    except ImageFault:
        return False
    return _is_stored(folder, case.id, content_hash(hashes, plans, annotated_in(case, plans)))


def default_workers(raw: RawDataset, plans: Plans) -> int:
    """Number of processes for all cores, limited by free memory and the largest case; 0 for little data."""
    paths = [path for case in raw.cases for path in case.images]
    size = sum(path.stat().st_size for path in paths if files.is_file(path))
    if size + CASE_BYTES * len(raw.cases) < WORTH_A_POOL:
        return 0
    return fitting_workers(len(raw.cases), max((peak_bytes(case.images, plans) for case in raw.cases), default=0))


def rehearse_dataset(
    raw: RawDataset, plans: Plans, folder: Path, *, workers: int, part: tuple[int, int] = (1, 1)
) -> tuple[CaseReport, ...]:
    """What `preprocess_dataset` would do: stale cases are read and prepared, but nothing is written."""
    refuse_other_dataset(raw, folder)
    jobs = [_Job(case, plans, Path(folder), "lz4") for case in part_of(raw.cases, part)]
    run = run_jobs(_dry_run_case, jobs, workers=workers, name=lambda job: job.case.id)
    results = dict(track(run, "checking cases", total=len(jobs)))
    return tuple(_report(job, results[index]) for index, job in enumerate(jobs))


def _process(job: _Job) -> CaseReport:
    return _guarded(job, _make)


def _dry_run_case(job: _Job) -> CaseReport:
    return _guarded(job, _try_out)


def _guarded(job: _Job, work: Callable[[_Job], CaseReport]) -> CaseReport:
    """The report of a case's work, or why it failed: one bad case must not stop the others."""
    try:
        return work(job)
    except (UserError, ValueError) as error:
        return CaseReport(job.case.id, "failed", message=str(error))
    except MemoryError:
        return CaseReport(job.case.id, "failed", message="not enough memory. Use fewer --workers, or crop the image.")
    except FileNotFoundError as error:
        message = f"{error.filename}: no such file. Put the file there, or remove the case."
        return CaseReport(job.case.id, "failed", message=message)
    except OSError as error:
        if error.errno in files.FULL_ERRNOS:
            message = f"{error.filename or job.folder}: {error.strerror}. Free some space there, and rerun the command."
            return CaseReport(job.case.id, "failed", message=message)
        return CaseReport(job.case.id, "failed", message=f"{error.filename}: {error.strerror}")
    except Exception:
        return CaseReport(job.case.id, "failed", message=f"unexpected: {traceback.format_exc()}")


def _try_out(job: _Job) -> CaseReport:
    if is_current(job.case, job.plans, job.folder):
        return CaseReport(job.case.id, "current")
    _prepared(job.case, job.plans)
    return CaseReport(job.case.id, "done")


def _make(job: _Job) -> CaseReport:
    started = time.monotonic()
    lock = FileLock(case_folder(job.folder, job.case.id).with_name(f".{job.case.id}.lock"))
    try:
        taken = lock.take(wait=job.wait)
    except OSError as error:  # a read-only store: its current cases need no writing
        if error.errno not in READ_ONLY_ERRNOS or not is_current(job.case, job.plans, job.folder):
            raise
        status: Literal["done", "current"] = "current"
    else:
        if not taken:
            return CaseReport(job.case.id, "busy")
        try:
            status = _bring_up_to_date(job)
        finally:
            lock.release(remove=True)
    properties = PreprocessedCase.open(job.folder, job.case.id).properties
    return CaseReport(
        job.case.id,
        status,
        seconds=time.monotonic() - started,
        stored_bytes=sum(kept.bytes for kept in properties.files.values()),
        shape=properties.shape,
        voxels_before=properties.voxels_before,
        voxels_after=properties.voxels_after,
    )


def _bring_up_to_date(job: _Job) -> Literal["done", "current"]:
    case, plans = job.case, job.plans
    input_files = {name: input_file(path) for name, path in input_paths(case).items()}
    hashes = _input_sha256(case)
    present = annotated_in(case, plans)
    expected = content_hash(hashes, plans, present)
    if _is_stored(job.folder, case.id, expected):
        _copy_reference(case, job.folder, sha256=hashes.get("label"))
        return "current"
    prepared = _prepared(case, plans)
    # Before the case, which counts as current once it exists; and not for a case that fails.
    _copy_reference(case, job.folder)
    properties = prepared.properties(
        case.id, labels_present=present, input_sha256=hashes, input_files=input_files, content_hash=expected
    )
    write_case(job.folder, properties, image=prepared.image, label=prepared.label, labels=plans.labels, codec=job.codec)
    return "done"


def _prepared(case: Case, plans: Plans) -> PreparedVolume:
    volumes: list[Any] = [*read_case(case.images, case.label)]
    try:
        # There is no other reference, so each array is released as soon as it is no longer needed.
        return prepare(volumes.pop(0), plans, label=volumes.pop())
    except ValueError as error:
        raise UserError(f"{case.label or case.images[0]}: {error}. Run swinssl_check for the complete list.") from None
    except UserError as error:
        raise UserError(f"{case.images[0]}: {error}") from None


def _input_sha256(case: Case) -> dict[str, str]:
    return {name: image_sha256(path) for name, path in input_paths(case).items()}


def _is_stored(folder: Path, case_id: str, expected: str) -> bool:
    if not (case_folder(folder, case_id) / PROPERTIES).is_file():
        return False
    try:
        case = PreprocessedCase.open(folder, case_id)
    except UserError:  # damaged or of another version: it is made anew
        return False
    return case.properties.content_hash == expected and case.is_intact()


def _copy_reference(case: Case, folder: Path, *, sha256: str | None = None) -> None:
    """Copy the label of a case, unless the existing copy has the hash `sha256`."""
    if case.label is None:
        return
    target = folder / REFERENCES / f"{case.id}{required_ending(case.label)}"
    if sha256 is None or not target.is_file() or files.sha256_of(target) != sha256:
        files.write_bytes(target, case.label.read_bytes(), durable=False)
