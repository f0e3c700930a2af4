"""Which cases of a task test, validate and may train: drawn once, patients whole, the same everywhere and for ever."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from swinssl.dataset.case import Case
from swinssl.dataset.raw_dataset import RawDataset
from swinssl.errors import UserError
from swinssl.experiments.benchmark_config import Task
from swinssl.randomness import generator


@dataclass(frozen=True)
class TaskCases:
    """The cases of a task by what they are for, each in order of their names.

    Args:
        test: never seen before the end; of `test_raw`.
        validation: choose the best checkpoint.
        pool: what training cases are taken from.
    """

    test: tuple[Case, ...]
    validation: tuple[Case, ...]
    pool: tuple[Case, ...]


def divide(task: Task, raw: RawDataset, test_raw: RawDataset | None, *, name: str) -> TaskCases:
    """Divide a raw data set as a task asks for.

    Args:
        test_raw: the data set of the test cases, where it is another one.
        name: of the task, for messages.

    Raises:
        UserError: a test case is not there, or too few cases are left to validate or to train.
    """
    labelled = [case for case in raw.cases if case.label is not None and case.label.is_file()]
    if test_raw is None:
        test = _test_cases(task, raw, labelled, name)
    else:
        there = [case for case in test_raw.cases if case.label is not None and case.label.is_file()]
        test = _test_cases(task, test_raw, there, name) if task.test is not None else tuple(there)
    tested = {case.id for case in test} if test_raw is None else set()
    patients = {_patient(case) for case in test} if test_raw is None else set()
    rest = [case for case in labelled if case.id not in tested and _patient(case) not in patients]
    validation = _drawn(rest, task.validation, purpose="benchmark: validation cases")
    kept = {_patient(case) for case in validation}
    pool = tuple(case for case in rest if _patient(case) not in kept)
    most = max((shots for shots in task.shots if isinstance(shots, int)), default=1)
    if len(pool) < most or not test:
        raise UserError(
            f"task {name}: {len(labelled)} labelled cases of {raw.name} leave {len(pool)} to train on after "
            f"{len(tested)} to test and {len(validation)} to validate; {most} are asked for. Ask for fewer."
        )
    return TaskCases(tuple(test), validation, pool)


def _test_cases(task: Task, raw: RawDataset, labelled: Sequence[Case], name: str) -> tuple[Case, ...]:
    if isinstance(task.test, int):
        return _drawn(labelled, task.test, purpose="benchmark: test cases")
    there = {case.id for case in labelled}
    named = tuple(raw.case(case_id) for case_id in sorted(task.test or ()))
    if without := [case.id for case in named if case.id not in there]:
        raise UserError(f"task {name}: test case {without[0]} of {raw.name} has no label. Take it out.")
    return named


def _drawn(cases: Sequence[Case], count: int, *, purpose: str) -> tuple[Case, ...]:
    """At least `count` cases, in order of their names: patients in a drawn order, until there are enough."""
    patients = sorted({_patient(case) for case in cases})
    chosen: set[str] = set()
    for place in generator(0, purpose).permutation(len(patients)):
        if sum(_patient(case) in chosen for case in cases) >= count:
            break
        chosen.add(patients[place])
    return tuple(sorted((case for case in cases if _patient(case) in chosen), key=lambda case: case.id))


def _patient(case: Case) -> str:
    """What stays on one side; no group has a name that begins like that of a case alone."""
    return f"case {case.id}" if case.group is None else f"group {case.group}"
