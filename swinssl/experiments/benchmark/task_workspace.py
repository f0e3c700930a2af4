"""A task's own workspace: a raw data set without its test cases, so that no plan knows them, and those beside it.

workspaces/<task>/raw/<data set>/            links to the cases that train and validate
                  preprocessed, results      as of any workspace
                  test/                      workspace of the test cases: raw, and preprocessed as the others are
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.core.rng import generator
from swinssl.dataset.case import Case
from swinssl.dataset.description import DESCRIPTION_FILE
from swinssl.dataset.raw_dataset import RawDataset
from swinssl.dataset.splits import SPLITS_FILE
from swinssl.experiments.benchmark.commands import run_swinssl
from swinssl.experiments.benchmark.config import Task
from swinssl.imageio.formats import required_ending
from swinssl.preprocessing.plans import PLANS_FILE, Plans

PREPARED = "prepared.json"
OTHER_OUT = "Give what it was begun with, or another --out."


@dataclass(frozen=True)
class TaskWorkspace:
    """Where all cells of a task train.

    Args:
        name: of the task.
        root: its workspace.
        raw: the data set that it is about, where the user has it.
        test_raw: that of the test cases, where it is another one.
    """

    name: str
    task: Task
    root: Path
    raw: RawDataset
    test_raw: RawDataset | None = None

    @cached_property
    def cases(self) -> TaskCases:
        return divide(self.task, self.raw, self.test_raw, name=self.name)

    @property
    def dataset(self) -> Path:
        """Raw data set of what trains and validates."""
        return self.root / "raw" / self.raw.name

    @property
    def training_raw(self) -> RawDataset:
        """What is planned from: the user's data set without its test cases."""
        return replace(self.raw, cases=tuple(sorted((*self.cases.pool, *self.cases.validation), key=lambda c: c.id)))

    @property
    def preprocessed(self) -> Path:
        return self.root / "preprocessed" / self.raw.name

    @property
    def plans(self) -> Plans:
        return Plans.read(self.preprocessed)

    @property
    def test(self) -> Path:
        """Workspace of the test cases."""
        return self.root / "test"

    @property
    def test_dataset(self) -> Path:
        return self.test / "raw" / self.raw.name

    @property
    def test_images(self) -> Path:
        return self.test_dataset / "imagesTr"

    @property
    def test_labels(self) -> Path:
        return self.test_dataset / "labelsTr"

    @property
    def test_description(self) -> Path:
        return self.test_dataset / DESCRIPTION_FILE

    def prepare(self, *, encoder: Path | None, device: str, log: IO[str], plans: Path | None = None) -> None:
        """Link, plan for an encoder, and preprocess, unless that was done; existing plans are kept.

        Args:
            plans: the plans that belong to the results, so that all machines use the same: taken from this file if it
                exists, else written to it.

        Raises:
            UserError: it was done for something else, with other plans than those of the results, or the test cases
                have other labels.
            subprocess.CalledProcessError: a command failed; its output says why.
        """
        if plans is None:
            self._prepare(None, encoder=encoder, device=device, log=log)
            return
        made = self.preprocessed / PLANS_FILE
        if plans.is_file() and made.is_file() and Plans.read(plans) != self.plans:
            raise UserError(
                f"{made}: other plans than {plans}, which belong to the results. Delete {self.root} and rerun the "
                "command to use those, or give another --results."
            )
        self._prepare(plans if plans.is_file() else None, encoder=encoder, device=device, log=log)
        if not plans.is_file():
            files.write_bytes(plans, made.read_bytes())

    def _prepare(self, given: Path | None, *, encoder: Path | None, device: str, log: IO[str]) -> None:
        settings = {
            "encoder": None if encoder is None else files.sha256_of(encoder),
            "plan": list(self.task.plan),
            "cases": {part: [case.id for case in getattr(self.cases, part)] for part in ("pool", "validation", "test")},
        }
        path, plans = self.root / PREPARED, self.preprocessed / PLANS_FILE
        if path.is_file():
            before = files.read_json(path, what="preparation of a task", remedy="Delete its folder.")
            changed = [what for what, value in settings.items() if before.get(what) != value]
            if before["done"] and changed:
                raise UserError(f"{path}: task {self.name} was prepared with another {changed[0]}. {OTHER_OUT}")
            if before["done"]:
                return
            if changed:  # nothing rests on what was never finished
                plans.unlink(missing_ok=True)
        files.write_json(path, {**settings, "done": False})
        self._link()
        where = [self.dataset, "--root", self.root]
        if given is not None and not plans.is_file():
            files.write_bytes(plans, given.read_bytes())
        if not plans.is_file():
            init = [] if encoder is None else ["--init", encoder]
            run_swinssl("plan", *where, "--device", device, *init, *self.task.plan, log=log)
        run_swinssl("preprocess", *where, log=log)
        files.write_json(path, {**settings, "done": True})

    def preprocess_test(self, log: IO[str]) -> None:
        """Preprocess the test cases by the plans of the others, to look at what encoders see in them.

        Raises:
            subprocess.CalledProcessError: a command failed; it has said why.
        """
        self.plans.write(self.test / "preprocessed" / self.raw.name / PLANS_FILE)
        run_swinssl("preprocess", self.test_dataset, "--root", self.test, log=log)

    def _link(self) -> None:
        own, cases = self.raw.description, self.cases
        self._check_test_labels()
        training = (*cases.pool, *cases.validation)
        for case in training:
            _place(case, self.dataset / "imagesTr", self.dataset / "labelsTr")
        for case in cases.test:
            _place(case, self.test_images, self.test_labels)
        files.write_json(self.dataset / DESCRIPTION_FILE, _description(own, training))
        files.write_json(self.test_description, _description(own, cases.test))
        fold = {
            part: [case.id for case in chosen] for part, chosen in (("train", cases.pool), ("val", cases.validation))
        }
        files.write_json(self.dataset / SPLITS_FILE, [fold])

    def _check_test_labels(self) -> None:
        other = self.test_raw
        if other is None:
            return
        if other.labels != self.raw.labels:
            raise UserError(
                f"task {self.name}: {other.name} has the labels {other.labels.names}, {self.raw.name} has "
                f"{self.raw.labels.names}, or other values for them. Make them alike."
            )
        if len(other.channel_names) != len(self.raw.channel_names):
            raise UserError(
                f"task {self.name}: {other.name} has {len(other.channel_names)} channels, {self.raw.name} has "
                f"{len(self.raw.channel_names)}."
            )


def _description(content: dict[str, Any], cases: Sequence[Case]) -> dict[str, Any]:
    """dataset.json of some of the cases, with what is known of them."""
    own = {key: value for key, value in content.items() if key not in ("group_pattern", "groups", "labels_present")}
    present = {case.id: list(case.labels_present) for case in cases if case.labels_present is not None}
    groups = {case.id: case.group for case in cases if case.group is not None}
    known = {"labels_present": present, "groups": groups}
    return {**own, "numTraining": len(cases), **{key: value for key, value in known.items() if value}}


def _place(case: Case, images: Path, labels: Path) -> None:
    """Link the files of a case, in nnU-Net's names; copies where the system has no links."""
    assert case.label is not None  # those without were left out
    named = [(path, images / f"{case.id}_{i:04d}{required_ending(path)}") for i, path in enumerate(case.images)]
    named.append((case.label, labels / f"{case.id}{required_ending(case.label)}"))
    for source, target in named:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            target.symlink_to(source.absolute())
        except OSError:
            shutil.copyfile(source, target)


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
