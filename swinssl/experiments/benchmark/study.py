"""A benchmark on disk: its places, what each cell rests on, and what is done.

<out>/pretraining_data/              workspace of what is pretrained on
      workspaces/<task>/             workspace of a task (`task_workspace.py`); its plan is wanted below too
      pretraining/<init>[/seedN]/    a pretraining: run/ and cell.json
      cells/<task>/<init>/<shots>/seedN/    scores.csv, log.jsonl and cell.json: all that tables and curves need
      cka/<task>/<init>/<shots>/seedN/      what swinssl_cka wrote, and cell.json
      report/                        what it comes to
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.core.text import csv_records
from swinssl.core.workspace import Workspace
from swinssl.dataset.raw_dataset import RawDataset
from swinssl.evaluation.comparison.convergence import LOG_FILE
from swinssl.evaluation.encoders.compared_encoder import run_beside
from swinssl.evaluation.encoders.comparison_files import CKA_FILE
from swinssl.experiments.benchmark.cells import (
    Cell,
    ComparisonCell,
    PretrainingCell,
    TrainingCell,
    cells_of,
    pretraining_of,
)
from swinssl.experiments.benchmark.config import BenchmarkConfig
from swinssl.experiments.benchmark.image_hashes import hashes_of
from swinssl.experiments.benchmark.task_workspace import OTHER_OUT, TaskWorkspace
from swinssl.networks.checkpoints.shipped_encoders import encoder_path
from swinssl.training.engine.run_description import LearntFrom

logger = logging.getLogger(__name__)

CELL_FILE, SCORES_FILE = "cell.json", "scores.csv"
ENCODER_FILE = "run/encoder.safetensors"
# What a report or another cell reads of a cell.
RESULT_FILES = (SCORES_FILE, LOG_FILE, CKA_FILE, ENCODER_FILE)


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
    _warned: set[str] = field(default_factory=set, compare=False)

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
        return self.place(pretraining_of(self.config, init, seed)) / ENCODER_FILE

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
        encoder = self.encoder(cell.init, cell.seed)
        own["encoder"] = None if encoder is None or not encoder.is_file() else _sha256(encoder)
        return own | {"task": rests_on, "shots": cell.shots, "seed": cell.seed, "plan_for": self.config.planned_for}

    def is_done(self, cell: Cell) -> bool:
        """Whether a cell has its result, whole; of a damaged one a warning says that it is run again.

        Raises:
            UserError: it has one, of other settings; or its encoder is not the one that it made.
        """
        record = self.record(cell)
        if record is None:
            return False
        before, now = dict(record["settings"]), self.settings(cell)
        # Results alone may have been kept or moved, and the first version did not note the encoder.
        if now.get("encoder") is None or "encoder" not in before:
            before["encoder"] = now["encoder"] = None
        if before != now:
            changed = ", ".join(name for name in now if before.get(name) != now[name])
            raise UserError(f"{self.place(cell) / CELL_FILE}: this cell was done with another {changed}. {OTHER_OUT}")
        damaged = self._damaged_file(cell, record)
        if damaged is None:
            return True
        if isinstance(cell, PretrainingCell):
            raise UserError(
                f"{damaged}: not the encoder that {cell.key} made. Put that one back, or delete {self.place(cell)} and "
                "rerun the command to pretrain it anew."
            )
        if cell.key not in self._warned:
            self._warned.add(cell.key)
            logger.warning(
                "warning: %s is missing or was changed after %s was done; the results of this cell are made again.",
                damaged,
                cell.key,
            )
        return False

    def _damaged_file(self, cell: Cell, record: dict[str, Any]) -> Path | None:
        """The first file of a cell's result that is not as it was when the cell was done."""
        place = self.place(cell)
        for name, expected in record.get("files", {}).items():
            path = place / name
            if isinstance(cell, PretrainingCell) and not path.exists():
                continue  # results alone were kept; what needs the encoder says that it is missing
            if not path.is_file() or _sha256(path) != expected:
                return path
        # The first version kept no hashes.
        without_hashes = isinstance(cell, TrainingCell) and "files" not in record
        return place / SCORES_FILE if without_hashes and not _has_scores(place / SCORES_FILE) else None

    def record(self, cell: Cell) -> dict[str, Any] | None:
        """What is kept of a cell that is done: `settings`, `minutes`, `ended`; of a training more; None before.

        Of a training: `steps`, `device`, and beneath the benchmark's folder, which may be moved, `predictions`; of our
        own also `training` (the fold), `train_cases` and `validation_cases`.
        """
        path = self.place(cell) / CELL_FILE
        if not path.is_file():
            return None
        remedy = "Delete it and rerun the command; the cell is done again."
        record = files.read_json(path, what="record of a cell", remedy=remedy)
        if not isinstance(record, dict) or record.get("sha256", _record_hash(record)) != _record_hash(record):
            raise UserError(f"{path}: was changed after the cell was done. {remedy}")
        minutes = record.get("minutes")
        if not isinstance(record.get("settings"), dict) or not isinstance(minutes, int | float):
            raise UserError(f"{path}: is no record of a cell. {remedy}")
        return record

    def keep(self, cell: Cell, **facts: Any) -> None:
        """Record that a cell is done."""
        ended = datetime.now(UTC).isoformat(timespec="seconds")
        place = self.place(cell)
        hashes = {name: files.sha256_of(place / name) for name in RESULT_FILES if (place / name).is_file()}
        record = {"settings": self.settings(cell), **facts, "files": hashes, "ended": ended}
        files.write_json(place / CELL_FILE, {**record, "sha256": _record_hash(record)})

    def check(self, cells: Sequence[Cell]) -> None:
        """Refuse at once what would fail later, before any of `cells` runs.

        Raises:
            UserError: there is no such device, a peer has no Python, or a pretraining knows a test case.
        """
        if not cells:
            return
        from swinssl.core.devices import select_device

        select_device(self.device)
        for cell in cells:
            if isinstance(cell, TrainingCell) and self.config.inits[cell.init].is_peer and self.peer_python is None:
                raise UserError(
                    f"inits.{cell.init}: needs --peer-python, the Python of an environment with nnunetv2. Give it, or "
                    "choose other cells with --only."
                )
        self.refuse_leaks()

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
                if not encoder_path(init.encoder).is_file():
                    raise UserError(f"inits.{name}: {init.encoder} is no file. Give an encoder file or a shipped name.")
                run_file = run_beside(encoder_path(init.encoder))
                learnt = LearntFrom() if run_file is None else LearntFrom.read(run_file)
                known[name] = {value: case for case, own in learnt.image_sha256.items() for value in own.values()}
            for dataset in self.config.datasets_of(init) if init.method is not None else ():
                if dataset not in hashed:
                    names = {image: case.id for case in self.raw(dataset).cases for image in case.images}
                    hashed[dataset] = {value: names[i] for i, value in hashes_of(names, self.folder).items()}
                known.setdefault(name, {}).update(hashed[dataset])
        return known


def _record_hash(record: dict[str, Any]) -> str:
    """Of a cell's record, without the hash itself."""
    content = {name: value for name, value in record.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _has_scores(path: Path) -> bool:
    try:
        return bool(csv_records(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return False


def _sha256(path: Path) -> str:
    """Of a file; computed once while it stays as it is, since every cell asks for it."""
    status = path.stat()
    return _sha256_of(path, status.st_mtime_ns, status.st_size, status.st_ino)


@functools.lru_cache(maxsize=4096)
def _sha256_of(path: Path, *_: int) -> str:
    return files.sha256_of(path)


def training_cells(benchmark: Benchmark) -> tuple[TrainingCell, ...]:
    """The cells that have scores."""
    return tuple(cell for cell in benchmark.cells if isinstance(cell, TrainingCell))
