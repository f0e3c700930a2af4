"""From a raw data set to what training reads: check, plan, preprocess."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swinssl.core.errors import UserError
from swinssl.core.terminal import Progress, progress_to
from swinssl.core.workspace import Workspace
from swinssl.planning.options import PlanOptions

if TYPE_CHECKING:
    import os

    from swinssl.dataset.checks.dataset_check import CheckReport
    from swinssl.planning.plan_dataset import PlannedDataset
    from swinssl.preprocessing.plans import Plans
    from swinssl.preprocessing.preprocess import CaseReport, PreprocessReport
    from swinssl.preprocessing.store import Codec

    PathLike = str | os.PathLike[str]

# What preprocessing's workers import, those too that they import only when they get there.
WORKER_MODULES = ("swinssl.preprocessing.preprocess", "blosc2")
# Literals of the store's `Codec`, which would take its heavy imports with it.
CODECS: dict[str, Codec] = {"lz4": "lz4", "lz4hc": "lz4hc", "zstd": "zstd"}


@dataclass(frozen=True)
class PlanResult:
    """What was measured and decided.

    Attributes:
        folder: `<root>/preprocessed/<name>`, where fingerprint and plans are, or would be.
        planned: fingerprint, plans, and what differs from the plans that were there.
        stale_cases: preprocessed cases that the next preprocessing makes anew.
        stale_models: trained models that the plans that were there fitted and these do not.
        left_out: files of the raw data set that are not read, a sentence each.
        written: whether the files were written; not in a dry run.
    """

    folder: Path
    planned: PlannedDataset
    stale_cases: int = 0
    stale_models: list[str] = field(default_factory=list)
    left_out: tuple[str, ...] = ()
    written: bool = True

    @property
    def plans(self) -> Plans:
        """What was decided, with a reason for each decision."""
        return self.planned.plans

    @property
    def changes(self) -> list[tuple[str, str, str]]:
        """(decision, old value, new value) of what differs from the plans that were there."""
        return self.planned.changes

    @property
    def warnings(self) -> list[str]:
        """What is odd about the headers of the images, then what is doubtful about the plans."""
        return [*self.planned.fingerprint.header_warnings, *map(str, self.plans.warnings)]


@dataclass(frozen=True)
class ExistingPlan:
    """The plans of a data set, as they are on the disk.

    Attributes:
        folder: where they are.
        raw_changes: how the raw data set differs from what was planned and preprocessed; empty where it is not there.
    """

    folder: Path
    plans: Plans
    raw_changes: list[str]


@dataclass(frozen=True)
class PreprocessResult:
    """What became of each case.

    Attributes:
        folder: `<root>/preprocessed/<name>`.
        report: by case; of a dry run `done` stands for what would be preprocessed.
        dry_run: nothing was written.
        left_out: files of the raw data set that are not read, a sentence each.
    """

    folder: Path
    plans: Plans
    report: PreprocessReport
    dry_run: bool = False
    left_out: tuple[str, ...] = ()

    @property
    def cases(self) -> tuple[CaseReport, ...]:
        """One report per case."""
        return self.report.cases

    @property
    def failed(self) -> dict[str, str]:
        """Why a case failed, or would, by id."""
        return {case.case_id: case.message for case in self.report.with_status("failed")}

    def as_json(self) -> dict[str, Any]:
        """What the command prints with --json."""
        if not self.dry_run:
            return self.report.as_json()
        to_do, current = ([case.case_id for case in self.report.with_status(s)] for s in ("done", "current"))
        return {"folder": str(self.folder), "would_preprocess": to_do, "current": current, "would_fail": self.failed}


def check(
    dataset: PathLike, *, root: PathLike | None = None, workers: int | None = 0, progress: Progress | None = None
) -> CheckReport:
    """Read a raw data set whole and list what is wrong with it; nothing is written.

    Args:
        dataset: folder of a raw data set, a list of volumes (.txt), or an id or name below `root`.
        root: folder with raw/, preprocessed/ and results/; by default $SWINSSL_ROOT or ./swinssl_data.
        workers: processes; 0 works in this one, None chooses. Where processes start, a script needs the guard
            `if __name__ == "__main__":`.
        progress: called with what is done, how many units, and of how many (None where unknown).

    Returns:
        `findings` (severity, code, file, message, remedy), errors first; `count("error")`; `structures` with the number
        of cases that have each.

    Raises:
        UserError: there is no such data set. Everything else is a finding.
    """
    from swinssl.dataset.checks.dataset_check import check_dataset

    with progress_to(progress):
        return check_dataset(Workspace.locate(root).raw(str(dataset)), workers=workers)


def plan(
    dataset: PathLike,
    *,
    options: PlanOptions | None = None,
    init: PathLike | None = None,
    device: str = "auto",
    root: PathLike | None = None,
    workers: int | None = 0,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> PlanResult:
    """Measure a raw data set and plan its preprocessing and training.

    Writes dataset_fingerprint.json and swinsslPlans.json to `<root>/preprocessed/<name>`.

    Args:
        dataset, root, workers, progress: as of `check`.
        options: what is not to be decided automatically, such as `PlanOptions(preset="tiny")`.
        init: pretrained encoder to plan for; `scratch` plans without one, None keeps that of the existing plan.
        device: where training will run.
        dry_run: write nothing.

    Raises:
        UserError: an option, a case, the encoder's file or the device cannot be used.
    """
    from swinssl.dataset.raw_dataset import RawDataset
    from swinssl.planning.plan_dataset import plan_dataset

    workspace, name = Workspace.locate(root), str(dataset)
    folder = workspace.preprocessed(name)
    raw = RawDataset.load(workspace.raw(name))
    with progress_to(progress):
        planned = plan_dataset(
            raw,
            folder,
            options or PlanOptions(),
            device=device,
            init=None if init is None else str(init),
            workers=workers,
            write=not dry_run,
        )
    return PlanResult(
        folder=folder,
        planned=planned,
        stale_cases=planned.stale_cases(folder),
        stale_models=planned.stale_models(workspace.results(name)),
        left_out=tuple(raw.left_out),
        written=not dry_run,
    )


def read_plan(dataset: PathLike, *, root: PathLike | None = None) -> ExistingPlan:
    """The plans of a data set as they are, and where its raw data have changed since; nothing is written.

    Raises:
        UserError: there are no plans, or they cannot be read.
    """
    from swinssl.preprocessing.plans import Plans

    folder = Workspace.locate(root).preprocessed(str(dataset))
    return ExistingPlan(folder, Plans.read(folder), changes_of_raw(dataset, root=root))


def changes_of_raw(dataset: PathLike, *, root: PathLike | None = None) -> list[str]:
    """How a raw data set differs from what was planned and preprocessed, a line each; none where it is not there."""
    from swinssl.dataset.raw_dataset import RawDataset
    from swinssl.preprocessing.raw_changes import raw_changes

    workspace = Workspace.locate(root)
    folder = workspace.preprocessed(str(dataset))
    try:
        raw = RawDataset.load(workspace.raw(str(dataset)))
    except UserError:  # the preprocessed data set came without it
        return []
    return raw_changes(raw, folder).lines(folder)


def preprocess(
    dataset: PathLike,
    *,
    root: PathLike | None = None,
    workers: int | None = 0,
    part: tuple[int, int] = (1, 1),
    codec: str = "lz4",
    cluster: str | None = None,
    insecure_cluster: bool = False,
    plans: Plans | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> PreprocessResult:
    """Crop, normalise, resample and store every case as planned; cases that are current are left alone.

    A case that fails does not stop the others: see `failed` of the result.

    Args:
        dataset, root, workers, progress: as of `check`.
        part: (i, n): the i-th of n parts of the cases, where n jobs share the work.
        codec: lz4 (fastest), lz4hc or zstd (about 15 % smaller).
        cluster: address of a dask scheduler whose workers do it.
        insecure_cluster: the network is yours alone, so that tcp:// will do.
        plans: by default those that `plan` wrote.
        dry_run: read and prepare the stale cases, and write nothing.

    Raises:
        UserError: there is no such data set or plan, or an argument is wrong.
    """
    from swinssl.core.pools import Cluster, import_early

    if codec not in CODECS:
        raise UserError(f"--codec {codec}: unknown. Choose one of {', '.join(CODECS)}.")
    if not 1 <= part[0] <= part[1]:
        raise UserError(f"part={part}: expected (i, n) with 1 <= i <= n, such as (2, 4).")
    at = None if cluster is None else Cluster.at(cluster, insecure=insecure_cluster)
    if workers != 0 and at is None:  # before this process imports the same
        import_early(*WORKER_MODULES)
    from swinssl.dataset.raw_dataset import RawDataset
    from swinssl.preprocessing.plans import Plans
    from swinssl.preprocessing.preprocess import (
        PreprocessReport,
        default_workers,
        preprocess_dataset,
        rehearse_dataset,
    )

    workspace, name = Workspace.locate(root), str(dataset)
    raw = RawDataset.load(workspace.raw(name))
    folder = workspace.preprocessed(name)
    plans = Plans.read(folder) if plans is None else plans
    if workers is None:
        workers = default_workers(raw, plans) if at is None or dry_run else 0
    with progress_to(progress):
        if dry_run:
            report = PreprocessReport(rehearse_dataset(raw, plans, folder, workers=workers, part=part))
        else:
            report = preprocess_dataset(raw, plans, folder, workers=workers, part=part, codec=CODECS[codec], cluster=at)
    return PreprocessResult(folder, plans, report, dry_run, tuple(raw.left_out))
