"""A benchmark on disk: its places, what each cell rests on, and what is done.

<out>/cells.csv, scores.csv.gz       the results (`result_tables.py`); elsewhere with --results
      pretraining_data/              workspace of what is pretrained on
      workspaces/<task>/             workspace of a task (`task_workspace.py`)
      pretraining/<init>[/seedN]/    a pretraining: run/
      cells/<task>/<init>/<shots>/seedN/    a training: predictions, evaluation, log.jsonl
      cka/<task>/<init>/<shots>/seedN/      what swinssl_cka wrote
      report/                        tables, figures and report.html
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.core.text import counted, csv_records
from swinssl.core.workspace import Workspace
from swinssl.dataset.raw_dataset import RawDataset
from swinssl.evaluation.comparison.convergence import LOG_FILE
from swinssl.evaluation.encoders.compared_encoder import run_beside
from swinssl.evaluation.encoders.comparison_files import CKA_FILE
from swinssl.evaluation.summary import METRICS_FILE
from swinssl.experiments.benchmark.cells import (
    Cell,
    ComparisonCell,
    PretrainingCell,
    TrainingCell,
    cells_of,
    pretraining_of,
)
from swinssl.experiments.benchmark.config import BenchmarkConfig
from swinssl.experiments.benchmark.result_tables import (
    CELLS_TABLE,
    SCORES_TABLE,
    Record,
    ResultTables,
    ScoreRow,
    record_hash,
)
from swinssl.experiments.benchmark.task_workspace import OTHER_OUT, TaskWorkspace
from swinssl.metrics.registry import DICE
from swinssl.networks.checkpoints.shipped_encoders import encoder_path
from swinssl.training.engine.run_description import LearntFrom

logger = logging.getLogger(__name__)

# What version 0.1.0 kept of a cell in its folder, instead of the two tables.
CELL_FILE, SCORES_FILE = "cell.json", "scores.csv"
ENCODER_FILE = "run/encoder.safetensors"
CACHE_FILE = "image_hashes.json"
REMEDY = "Delete the folder of the cell and rerun the command."
# Files of a cell whose hashes its record keeps.
RESULT_FILES = (f"evaluation/{METRICS_FILE}", LOG_FILE, CKA_FILE, ENCODER_FILE)


@dataclass(frozen=True)
class Benchmark:
    """A configuration and where it runs.

    Args:
        folder: for everything that it makes.
        workspace: where raw data sets are found.
        device: as in `--device`.
        peer_python: of an environment with nnunetv2.
        results: folder of the two tables. Default: `folder`.
    """

    config: BenchmarkConfig
    folder: Path
    workspace: Workspace
    device: str = "auto"
    peer_python: Path | None = None
    results: Path | None = None
    _raw: dict[str, RawDataset] = field(default_factory=dict, compare=False)
    _warned: set[str] = field(default_factory=set, compare=False)

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        return cells_of(self.config)

    @cached_property
    def tables(self) -> ResultTables:
        return ResultTables(self.results or self.folder)

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
        try:
            encoder = self.encoder(cell.init, cell.seed)
        except UserError:  # results are read without it; `check` refuses to run what needs it
            encoder = None
        own["encoder"] = None if encoder is None or not encoder.is_file() else _sha256(encoder)
        return own | {"task": rests_on, "shots": cell.shots, "seed": cell.seed, "plan_for": self.config.planned_for}

    def is_done(self, cell: Cell) -> bool:
        """Whether a cell has its result, whole; of a damaged one a warning says that it is run again.

        Raises:
            UserError: it has one, of other settings; or its encoder is not the one that it made; or its folder has
                another record than the tables.
        """
        record = self.record(cell)
        if record is None:
            return False
        before, now = dict(record["settings"]), self.settings(cell)
        # The encoder's file may be gone, and version 0.1.0 did not note its hash.
        if now.get("encoder") is None or "encoder" not in before:
            before["encoder"] = now["encoder"] = None
        if before != now:
            changed = ", ".join(name for name in now if before.get(name) != now[name])
            raise UserError(f"{self.tables.cells_path}: cell {cell.key} was run with another {changed}. {OTHER_OUT}")
        if not self.tables.has_scores(cell.key, record) and cell.key in self.tables.records():
            self._warn(
                cell.key,
                f"{self.tables.scores_path}: the scores of {cell.key} are missing or were changed; the cell is run "
                "again.",
            )
            return False
        self._compare_with_folder(cell, record)
        return True

    def _compare_with_folder(self, cell: Cell, record: Record) -> None:
        """Say where the folder of a cell has other files than its record names; a folder without them is fine."""
        for name, expected in record.get("files", {}).items():
            path = self.place(cell) / name
            if not path.exists() or (path.is_file() and _sha256(path) == expected):
                continue
            if isinstance(cell, PretrainingCell):
                raise UserError(
                    f"{path}: not the encoder that {cell.key} made. Put that one back, or delete {self.place(cell)} "
                    f"and the row of the cell in {self.tables.cells_path}, and rerun the command to pretrain again."
                )
            self._warn(
                cell.key,
                f"{path} was changed after {cell.key} was done; {self.tables.cells_path} and {SCORES_TABLE} take "
                f"precedence. To run the cell again, delete its row in {CELLS_TABLE}.",
            )
        old = self._cell_file(cell) if cell.key in self.tables.records() else None
        if old is not None and any(old.get(name) != record.get(name) for name in ("minutes", "steps", "ended")):
            path = self.place(cell) / CELL_FILE
            raise UserError(
                f"{path}: says something else about {cell.key} than {self.tables.cells_path}. Delete {path} to keep "
                "the result of the table, or delete the row of the cell in the table to keep that of the folder."
            )

    def _warn(self, key: str, text: str) -> None:
        if key not in self._warned:
            self._warned.add(key)
            logger.warning("warning: %s", text)

    def record(self, cell: Cell) -> Record | None:
        """The record of a finished cell: `settings`, `minutes`, `ended`; None before.

        Of a training also `steps`, `device`, `predictions` (a path beneath the benchmark's folder) and, unless it is of
        nnU-Net, `training` (the fold), `train_cases` and `validation_cases`. A cell that version 0.1.0 finished has its
        record in its folder until `upgrade`.
        """
        known = self.tables.records().get(cell.key)
        if known is not None:
            return known
        found = self._old_result(cell)
        return None if found is None else found[0]

    def scores(self, cell: TrainingCell) -> Sequence[ScoreRow]:
        """The scores of a finished cell, a row per test case and structure."""
        if cell.key in self.tables.records():
            return self.tables.scores(cell.key)
        found = self._old_result(cell)
        return () if found is None else found[1]

    def upgrade(self) -> None:
        """Take the results that version 0.1.0 left in the folders of cells into the tables."""
        known = self.tables.records()
        old = {cell.key: found for cell in self.cells if cell.key not in known and (found := self._old_result(cell))}
        if old:
            self.tables.add(old)
            logger.info("%s of version 0.1.0 added to %s.", counted(len(old), "cell"), self.tables.cells_path)

    def _cell_file(self, cell: Cell) -> dict[str, Any] | None:
        """The record that version 0.1.0 left in the folder of a cell."""
        path = self.place(cell) / CELL_FILE
        if not path.is_file():
            return None
        remedy = "Delete it and rerun the command; the cell is then run again."
        record = files.read_json(path, what="record of a cell", remedy=remedy)
        if not isinstance(record, dict) or record.get("sha256", record_hash(record, null=True)) != record_hash(
            record, null=True
        ):
            raise UserError(f"{path}: was changed after the cell was done. {remedy}")
        minutes = record.get("minutes")
        if not isinstance(record.get("settings"), dict) or not isinstance(minutes, int | float):
            raise UserError(f"{path}: is no record of a cell. {remedy}")
        return record

    def _old_result(self, cell: Cell) -> tuple[Record, list[ScoreRow]] | None:
        """Record and scores that version 0.1.0 left in the folder of a cell; None without them or if damaged."""
        record = self._cell_file(cell)
        if record is None:
            return None
        expected, path = record.get("files", {}).get(SCORES_FILE), self.place(cell) / SCORES_FILE
        rows: list[ScoreRow] = []
        if isinstance(cell, TrainingCell):
            if path.is_file() and expected in (None, _sha256(path)):
                rows = _csv_rows(path)
            if not rows and (expected is not None or "files" not in record):
                self._warn(cell.key, f"{path} is missing or was changed after {cell.key} was done; it is run again.")
                return None
        kept = {name: value for name, value in record.get("files", {}).items() if name != SCORES_FILE}
        result = {**record, "files": kept, **_mean_dice(rows)}
        if isinstance(cell, ComparisonCell):
            result |= comparison_result(self.place(cell))
        return result, rows

    def keep(self, cell: Cell, scores: Sequence[ScoreRow] = (), **facts: Any) -> None:
        """Add a finished cell to the tables."""
        ended = datetime.now(UTC).isoformat(timespec="seconds")
        place = self.place(cell)
        hashes = {name: files.sha256_of(place / name) for name in RESULT_FILES if (place / name).is_file()}
        facts |= _mean_dice(scores)
        record = {"settings": self.settings(cell), **facts, "files": hashes, "ended": ended}
        self.tables.add({cell.key: (record, scores)})
        for name in (CELL_FILE, SCORES_FILE):  # of a run before, by version 0.1.0
            (place / name).unlink(missing_ok=True)

    def check(self, cells: Sequence[Cell]) -> None:
        """Refuse at once what would fail later, before any of `cells` runs.

        Raises:
            UserError: there is no such device, a peer has no Python, an encoder was deleted after its pretraining, or
                a pretraining knows a test case.
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
            for needed in (own for own in self.cells if own.key in cell.needs and isinstance(own, PretrainingCell)):
                path = self.place(needed) / ENCODER_FILE
                if ENCODER_FILE in (self.record(needed) or {}).get("files", {}) and not path.is_file():
                    raise UserError(
                        f"{path}: is missing, and {cell.key} needs it. Put the encoder of {needed.key} back, or delete "
                        f"the row of {needed.key} in {self.tables.cells_path} to pretrain again."
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


def comparison_result(place: Path) -> Record:
    """What a report shows of a comparison of encoders; empty if the folder has none."""
    path = place / CKA_FILE
    if not path.is_file():
        return {}
    content = files.read_json(path, what="comparison of encoders", remedy=REMEDY)
    heads = {
        letter: [{name: head[name] for name in ("distance_mm", "even_distance_mm")} for head in rows]
        for letter, rows in content["attention"].items()
    }
    counts = {name: content["counts"][name] for name in ("crops", "cases")}
    return {"cka": {"counts": counts, "curve": content["curve"], "attention": heads}}


def _mean_dice(rows: Sequence[ScoreRow]) -> Record:
    values = [float(row[DICE]) for row in rows if row.get(DICE)]
    return {"mean_dice": round(sum(values) / len(values), 4)} if values else {}


def _csv_rows(path: Path) -> list[ScoreRow]:
    try:
        return csv_records(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []


def hashes_of(images: Iterable[Path], folder: Path) -> dict[Path, str]:
    """SHA-256 of the image files that exist; from a cache in `folder` if size and time are unchanged.

    Ten thousand CTs are not read again at every start.
    """
    cache = folder / CACHE_FILE
    kept: dict[str, Any] = {}
    if cache.is_file():
        kept = files.read_json(cache, what="hashes of images", remedy="Delete it and rerun the command.")
    hashes: dict[Path, str] = {}
    changed = False
    for path in images:
        if not path.is_file():
            continue
        now = [path.stat().st_size, path.stat().st_mtime_ns]
        known = kept.get(str(path.absolute()))
        if not known or known[:2] != now:
            known, changed = [*now, files.sha256_of(path)], True
            kept[str(path.absolute())] = known
        hashes[path] = known[2]
    if changed and folder.is_dir():
        files.write_json(cache, kept)
    return hashes


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
