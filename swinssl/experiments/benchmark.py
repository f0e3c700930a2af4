"""A benchmark on disk: its places, what each cell rests on, and what is done.

<out>/pretraining_data/              workspace of what is pretrained on
      workspaces/<task>/             workspace of a task (`task_workspace.py`); its plan is wanted below too
      pretraining/<init>[/seedN]/    a pretraining: run/ and cell.json
      cells/<task>/<init>/<shots>/seedN/    scores.csv, log.jsonl and cell.json: all that tables and curves need
      cka/<task>/<init>/<shots>/seedN/      what swinssl_cka wrote, and cell.json
      report/                        what it comes to
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from swinssl import files
from swinssl.dataset.raw_dataset import RawDataset
from swinssl.errors import UserError
from swinssl.evaluation.compared_encoder import run_beside
from swinssl.experiments.benchmark_config import BenchmarkConfig
from swinssl.experiments.cells import (
    Cell,
    ComparisonCell,
    PretrainingCell,
    TrainingCell,
    cells_of,
    pretraining_of,
)
from swinssl.experiments.image_hashes import hashes_of
from swinssl.experiments.task_workspace import OTHER_OUT, TaskWorkspace
from swinssl.networks.shipped_encoders import encoder_path
from swinssl.training.run_description import LearntFrom
from swinssl.workspace import Workspace

CELL_FILE = "cell.json"


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Benchmark:
    """A configuration and where it runs.

    Args:
        folder: for everything that it makes.
        workspace: where raw data sets are found.
        device: as in `--device`.
        peer_python: of an environment with nnunetv2.
    """

    config: BenchmarkConfig
    folder: Path
    workspace: Workspace
    device: str = "auto"
    peer_python: Path | None = None
    _raw: dict[str, RawDataset] = field(default_factory=dict, compare=False)

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        return cells_of(self.config)

    @property
    def pretraining_data(self) -> Path:
        return self.folder / "pretraining_data"

    @property
    def report_folder(self) -> Path:
        return self.folder / "report"

    def raw(self, dataset: str) -> RawDataset:
        """A raw data set of the user's; read once."""
        if dataset not in self._raw:
            self._raw[dataset] = RawDataset.load(self.workspace.raw(dataset))
            for line in self._raw[dataset].left_out:
                logger.warning("warning: %s", line)
        return self._raw[dataset]

    @cached_property
    def tasks(self) -> dict[str, TaskWorkspace]:
        """The workspaces of all tasks.

        Raises:
            UserError: a data set is missing, or has too few cases.
        """
        made = {}
        for name, task in self.config.tasks.items():
            other = None if task.test_dataset is None else self.raw(task.test_dataset)
            made[name] = TaskWorkspace(name, task, self.folder / "workspaces" / name, self.raw(task.dataset), other)
        return made

    def place(self, cell: Cell) -> Path:
        """The folder of a cell."""
        return self.folder / cell.key

    def encoder(self, init: str, seed: int) -> Path | None:
        """The encoder of an init; None where it has none. It need not be there yet.

        Raises:
            UserError: it was given, and there is no such file.
        """
        chosen = self.config.inits[init]
        if chosen.encoder is not None:
            return encoder_path(chosen.encoder)
        if chosen.method is None:
            return None
        return self.place(pretraining_of(self.config, init, seed)) / "run" / "encoder.safetensors"

    def settings(self, cell: Cell) -> dict[str, Any]:
        """What the result of a cell rests on, as the configuration has it."""
        if isinstance(cell, ComparisonCell):
            return self.settings(cell.trained) | {"cka": list(self.config.cka or ())}
        init = self.config.inits[cell.init]
        own: dict[str, Any] = {"init": init.model_dump(mode="json")}
        if init.method is not None:
            common = self.config.pretraining.model_dump(mode="json")
            own["pretraining"] = common | {"datasets": list(self.config.datasets_of(init))}
        if isinstance(cell, PretrainingCell):
            return own | {"seed": cell.seed}
        task = self.config.tasks[cell.task]
        # Other numbers of shots are other cells, and groups are of the report.
        rests_on = task.model_dump(mode="json", exclude={"shots", "groups", "modality"})
        return own | {"task": rests_on, "shots": cell.shots, "seed": cell.seed, "plan_for": self.config.planned_for}

    def is_done(self, cell: Cell) -> bool:
        """Whether a cell has its result.

        Raises:
            UserError: it has one, of other settings.
        """
        record = self.record(cell)
        if record is None:
            return False
        before, now = record["settings"], self.settings(cell)
        if before != now:
            changed = ", ".join(name for name in now if before.get(name) != now[name])
            raise UserError(f"{self.place(cell) / CELL_FILE}: this cell was done with another {changed}. {OTHER_OUT}")
        return True

    def record(self, cell: Cell) -> dict[str, Any] | None:
        """What is kept of a cell that is done: `settings`, `minutes`, `ended`; of a training more; None before.

        Of a training: `steps`, `device`, and beneath the benchmark's folder, which may be moved, `predictions`; of our
        own also `training` (the fold), `train_cases` and `validation_cases`.
        """
        path = self.place(cell) / CELL_FILE
        if not path.is_file():
            return None
        return files.read_json(path, what="record of a cell", remedy="Delete it, and the cell is done again.")

    def keep(self, cell: Cell, **facts: Any) -> None:
        """Record that a cell is done."""
        ended = datetime.now(UTC).isoformat(timespec="seconds")
        files.write_json(self.place(cell) / CELL_FILE, {"settings": self.settings(cell), **facts, "ended": ended})

    def refuse_leaks(self) -> None:
        """Refuse encoders that know a test image, before anything takes time.

        Raises:
            UserError: naming the encoder, the task and the case.
        """
        tested = {
            i: (name, case.id) for name, own in self.tasks.items() for case in own.cases.test for i in case.images
        }
        hashes = hashes_of(tested, self.folder)
        for init, known in self._known_images().items():
            for image, (task, case) in tested.items():
                if hashes.get(image) in known:
                    raise UserError(
                        f"inits.{init}: is pretrained on {known[hashes[image]]}, which is test case {case} of task "
                        f"{task}. Pretrain on a list of volumes (.txt) without it, or test on other cases."
                    )

    def _known_images(self) -> dict[str, dict[str, str]]:
        """By init with an encoder, the SHA-256 of the images that it was or will be pretrained on."""
        known: dict[str, dict[str, str]] = {}
        hashed: dict[str, dict[str, str]] = {}
        for name, init in self.config.inits.items():
            if init.encoder is not None:
                run_file = run_beside(encoder_path(init.encoder))
                learnt = LearntFrom() if run_file is None else LearntFrom.read(run_file)
                known[name] = {value: case for case, own in learnt.image_sha256.items() for value in own.values()}
            for dataset in self.config.datasets_of(init) if init.method is not None else ():
                if dataset not in hashed:
                    names = {image: case.id for case in self.raw(dataset).cases for image in case.images}
                    hashed[dataset] = {value: names[i] for i, value in hashes_of(names, self.folder).items()}
                known.setdefault(name, {}).update(hashed[dataset])
        return known


def training_cells(benchmark: Benchmark) -> tuple[TrainingCell, ...]:
    """The cells that have scores."""
    return tuple(cell for cell in benchmark.cells if isinstance(cell, TrainingCell))
