"""Predictions against references: pair them, measure every case, put the results together."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from swinssl.core.errors import UserError
from swinssl.core.pools import Crash, fitting_workers, run_jobs
from swinssl.core.terminal import track
from swinssl.core.text import counted, listed
from swinssl.evaluation.pairing import Pair, check_pairs, pair_up, raise_together
from swinssl.evaluation.reference_labels import ReferenceLabels
from swinssl.evaluation.results import CaseResult, Evaluation
from swinssl.imageio.volume import Geometry
from swinssl.metrics.case_metrics import DEFAULT_TOLERANCES, StructureMetrics, case_metrics
from swinssl.metrics.overlap import count_pairs
from swinssl.metrics.structures import Structure, raw_structures, with_lesions

J = TypeVar("J")
R = TypeVar("R")

# Peak bytes a voxel, measured: 15, two maps of a byte and the search for a structure as large as the field
# that was predicted badly; 5 where all went well.
VOXEL_BYTES = 20
# Below this many voxels, starting processes takes longer than they save.
WORTH_A_POOL = 30_000_000


def evaluate(
    predictions: Path,
    references: Path,
    *,
    labels: ReferenceLabels | None = None,
    tolerances: Sequence[float] = DEFAULT_TOLERANCES,
    lesions: Collection[str] = (),
    cases: Collection[str] | None = None,
    allow_missing: bool = False,
    workers: int | None = None,
) -> Evaluation:
    """Measure predictions against references.

    Args:
        predictions: folder of label maps, or one.
        references: folder of label maps, or one.
        labels: what their values mean; None takes every value found for a structure.
        tolerances: of the surface Dice, in mm.
        lesions: structures in which lesions count one by one, beside those whose name says so.
        cases: look at these alone; None looks at all that either folder has.
        allow_missing: leave cases without a prediction out, instead of refusing.
        workers: processes; 0 works in this one, None chooses.

    Raises:
        UserError: a prediction is missing, two files lie on different grids, a value is undeclared, or a file cannot
            be read; names all of them.
    """
    pairing = pair_up(Path(predictions), Path(references))
    if cases is not None:
        pairing = pairing.among(cases)
    if pairing.missing and not allow_missing:
        raise UserError(
            f"{predictions}: no prediction of {counted(len(pairing.missing), 'case')} that the references have: "
            f"{listed(pairing.missing)}. Predict them, or leave them out with --allow-missing."
        )
    pairs = pairing.pairs
    workers = _default_workers(check_pairs(pairs)) if workers is None else workers
    known = _found_structures(pairs, workers) if labels is None else raw_structures(labels.labels)
    structures = with_lesions(known, lesions)
    jobs = [_Job.of(pair, structures, labels, tolerances) for pair in pairs]
    found = _run(_measure, jobs, "evaluating", workers)
    results = [CaseResult(p.case_id, p.prediction, p.reference, m) for p, m in zip(pairs, found, strict=True)]
    return Evaluation(structures, tuple(tolerances), tuple(results), pairing.missing, pairing.extra)


@dataclass(frozen=True)
class _Job:
    pair: Pair
    structures: tuple[Structure, ...]
    labels: ReferenceLabels | None
    tolerances: tuple[float, ...]

    @classmethod
    def of(
        cls, pair: Pair, structures: tuple[Structure, ...], labels: ReferenceLabels | None, tolerances: Sequence[float]
    ) -> _Job:
        annotated = structures if labels is None else labels.annotated(pair.case_id, structures)
        return cls(pair, annotated, labels, tuple(tolerances))

    def __str__(self) -> str:
        return self.pair.case_id


def _found_structures(pairs: Sequence[Pair], workers: int) -> tuple[Structure, ...]:
    """A structure for every value in any of the files."""
    values = set().union(*_run(_values, pairs, "looking for labels", workers)) - {0}
    if not values:
        raise UserError(f"{pairs[0].reference.parent}: no voxel is labelled, in no reference and no prediction.")
    return tuple(Structure.of_value(value) for value in sorted(values))


def _measure(job: _Job) -> dict[str, StructureMetrics]:
    reference, prediction, geometry = job.pair.read()
    pairs = count_pairs(reference, prediction)
    if job.labels is not None:
        job.labels.check_declared(job.pair.reference, pairs.reference_values)
        job.labels.check_declared(job.pair.prediction, pairs.prediction_values)
    return case_metrics(
        reference,
        prediction,
        structures=job.structures,
        geometry=geometry,
        tolerances=job.tolerances,
        ignore=None if job.labels is None else job.labels.labels.ignore_value,
        pairs=pairs,
    )


def _values(pair: Pair) -> set[int]:
    reference, prediction, _ = pair.read()
    return {*count_pairs(reference, prediction).values.tolist()}


# --- many cases at once


@dataclass(frozen=True)
class _Fault:
    """What kept a case from being evaluated; `trace` if it is a bug."""

    message: str
    trace: str = ""


@dataclass(frozen=True)
class _Guarded(Generic[J, R]):
    """Work that gives its errors back instead of raising them, as the pool of processes wants it."""

    work: Callable[[J], R]

    def __call__(self, job: J) -> R | _Fault:
        try:
            return self.work(job)
        except UserError as error:
            return _Fault(str(error))
        except MemoryError:
            return _Fault(f"{job}: not enough memory. Use fewer --workers.")
        except Exception:
            return _Fault(f"{job}", traceback.format_exc())


def _run(work: Callable[[J], R], jobs: Sequence[J], what: str, workers: int) -> list[R]:
    """The results in the order of the jobs.

    Raises:
        UserError: names the faults of all cases that have one.
        RuntimeError: a bug in one of them.
    """
    results: dict[int, R] = {}
    faults: dict[int, str] = {}
    for index, result in track(run_jobs(_Guarded(work), jobs, workers=workers), what, total=len(jobs)):
        if isinstance(result, _Fault) and result.trace:
            raise RuntimeError(f"{result.message}\n{result.trace}")
        if isinstance(result, Crash | _Fault):
            faults[index] = f"{jobs[index]}: {result}" if isinstance(result, Crash) else result.message
        else:
            results[index] = result
    raise_together([faults[index] for index in sorted(faults)], len(jobs))
    return [results[index] for index in range(len(jobs))]


def _default_workers(grids: Sequence[Geometry]) -> int:
    """Processes that fill the cores and fit into the free memory with the largest case; 0 for little data."""
    voxels = [int(np.prod(grid.shape)) for grid in grids]
    if sum(voxels) < WORTH_A_POOL:
        return 0
    return fitting_workers(len(grids), VOXEL_BYTES * max(voxels))
