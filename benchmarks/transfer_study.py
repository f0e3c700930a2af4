"""What all cells of transfer.py share: one plan, one grid, the folds, the test images, and settings that stay."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from few_labels import FewLabels
from transfer_rows import Row, read_rows

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.dataset.raw_dataset import RawDataset
from swinssl.dataset.splits import SPLITS_FILE
from swinssl.evaluation.encoders.compared_encoder import run_beside
from swinssl.experiments.benchmark.commands import run_swinssl
from swinssl.experiments.peers.nnunet_side import PEER_PLANS
from swinssl.networks.checkpoints.shipped_encoders import encoder_path
from swinssl.planning.encoder_facts import read_encoder_facts
from swinssl.preprocessing.plans import PLANS_FILE, Plans
from swinssl.preprocessing.store import PreprocessedDataset
from swinssl.training.engine.run_description import content_hashes

SCRATCH, ZEROED, RESENC, AVERAGED = "scratch", "zeroed", "resenc", "averaged"


@dataclass(frozen=True)
class Init:
    """What a cell starts from: a name of above, or any other with an encoder."""

    name: str
    encoder: Path | None = None

    @property
    def is_peer(self) -> bool:
        return self.name in PEER_PLANS


@dataclass(frozen=True)
class Study:
    """A comparison on one raw data set.

    Args:
        raw: its folder.
        work: for everything that can be made again.
        results: for what is kept: the table of rows, the plan and the settings.
        label: of the files there.
        cases: who trains, validates and tests.
        steps: of every cell of ours.
        device: as in `--device`.
        options: further options of swinssl_train by name of the init; those of `all` for all.
        peer_python: of an environment with nnunetv2.
    """

    raw: Path
    work: Path
    results: Path
    label: str
    cases: FewLabels
    steps: int
    device: str = "auto"
    options: dict[str, list[str]] = field(default_factory=dict)
    peer_python: Path | None = None

    @property
    def root(self) -> Path:
        """The workspace of ours."""
        return self.work / "swinssl"

    @property
    def preprocessed(self) -> Path:
        """The data set as ours are trained on it."""
        return self.root / "preprocessed" / self.raw.name

    @property
    def images(self) -> Path:
        """Folder with the test images, as links."""
        return self.work / "test" / "images"

    @property
    def references(self) -> Path:
        """Folder with their labels."""
        return self.work / "test" / "labels"

    @property
    def table(self) -> Path:
        """The rows of all cells that are done."""
        return self.results / f"{self.label}.csv"

    @property
    def rows(self) -> tuple[Row, ...]:
        """What is done by now."""
        return read_rows(self.table)


def prepare(study: Study, inits: Sequence[Init], *, plan_for: Path | None, plan_options: Sequence[str] = ()) -> None:
    """Plan, preprocess and divide, unless that was done, and refuse what would not be comparable.

    The plan is kept with the results, so that cells which are run elsewhere rest on the same one.

    Args:
        plan_for: the encoder whose grid and network all of ours have.
        plan_options: further options of swinssl_plan.

    Raises:
        UserError: an encoder is of another grid or knows a test image, or the settings are others than those of the
            results that are there.
    """
    encoders = {init.name: encoder_path(init.encoder) for init in inits if init.encoder is not None}
    _plan(study, plan_for, plan_options)
    run_swinssl("preprocess", study.raw, "--root", study.root)
    folds = [{"train": list(fold.train), "val": list(fold.val)} for fold in study.cases.all_folds]
    files.write_json(study.preprocessed / SPLITS_FILE, folds)
    _link_test_cases(study)
    for name, path in encoders.items():
        _refuse_other_grid(study, name, path)
        _refuse_known_images(study, name, path)
    _keep_settings(
        study.results / f"{study.label}_settings.json",
        {
            "dataset": study.raw.name,
            "test": list(study.cases.test),
            "steps": study.steps,
            "options": {init.name: options_of(study, init) for init in inits if not init.is_peer},
            "encoders": {name: files.sha256_of(path) for name, path in encoders.items()},
        },
    )


def options_of(study: Study, init: Init) -> list[str]:
    """Further options of swinssl_train."""
    return [*study.options.get("all", []), *study.options.get(init.name, [])]


def _plan(study: Study, plan_for: Path | None, plan_options: Sequence[str]) -> None:
    kept, own = study.results / f"{study.label}_plans.json", study.preprocessed / PLANS_FILE
    if not own.is_file():
        init = [] if plan_for is None else ["--init", plan_for]
        run_swinssl("plan", study.raw, "--root", study.root, "--device", study.device, *init, *plan_options)
    if kept.is_file():
        files.write_bytes(own, kept.read_bytes())
    else:
        files.write_bytes(kept, own.read_bytes())


def _link_test_cases(study: Study) -> None:
    """Leaves what is right as it is: cells of the same study may be predicting beside this."""
    raw, links = RawDataset.load(study.raw), {}
    for case_id in study.cases.test:
        case = raw.case(case_id)
        if case.label is None:
            raise UserError(f"{study.raw}: case {case_id} has no label, so it tests nothing. Take it out.")
        for folder, path in (*((study.images, image) for image in case.images), (study.references, case.label)):
            links[folder / path.name] = os.path.abspath(path)  # noqa: PTH100 (a link keeps its own name)
    for folder in (study.images, study.references):
        folder.mkdir(parents=True, exist_ok=True)
        for link in folder.iterdir():
            if links.get(link) != str(link.readlink()):
                link.unlink()
    for link, target in links.items():
        if not link.is_symlink():
            link.symlink_to(target)


def _refuse_other_grid(study: Study, name: str, path: Path) -> None:
    spacing, plans = read_encoder_facts(path).reference.spacing, Plans.read(study.preprocessed)
    planned = plans.spacing if plans.encoder is None else plans.encoder.spacing
    if spacing != planned and None not in (spacing, planned):
        raise UserError(
            f"{name}: {path} was pretrained on a grid of {spacing} mm, the plan is for one of {planned} mm (z y x). "
            "Pretrain all encoders on one grid, and plan for it with --plan-for."
        )


def _refuse_known_images(study: Study, name: str, path: Path) -> None:
    run_file = run_beside(path)
    if run_file is None:
        return
    run = files.read_json(run_file, what="run description", remedy="Copy the whole run's folder.")
    known = content_hashes(run.get("image_sha256", {}))
    dataset = PreprocessedDataset.open(study.preprocessed)
    for case_id in study.cases.test:
        if known & set(dataset.case(case_id).properties.image_sha256.values()):
            raise UserError(f"{name}: {path} was pretrained on the test case {case_id}. Pretrain it without.")


def _keep_settings(path: Path, now: dict[str, Any]) -> None:
    """Write the settings, together with those of inits that are not asked for now."""
    before: dict[str, Any] = {}
    if path.is_file():
        before = files.read_json(path, what="settings", remedy="Take them from the repository again.")
    for what, value in now.items():
        there = before.get(what, value)
        if isinstance(value, dict):
            changed = [name for name in value if name in there and there[name] != value[name]]
            value.update({name: own for name, own in there.items() if name not in value})
        else:
            changed = [] if there == value else [what]
        if changed:
            raise UserError(
                f"{path}: the results that are here have other {what} ({', '.join(changed)}). Give the same, or "
                "another --results."
            )
    files.write_json(path, now)
