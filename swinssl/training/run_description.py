"""`run.json`: what a run was, so that its result can be judged and repeated."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from swinssl import files
from swinssl.errors import UserError
from swinssl.json_model import read_model
from swinssl.training.config import MAY_CHANGE_ON_RESUME, TrainingConfig

RUN_VERSION = 1
REMEDY = "Start anew with --restart, or choose another --name."


class RunDescription(BaseModel):
    """One fine-tuning run.

    Args:
        status: `running` also of a run that was killed.
        dataset_name: folder name of the raw data set.
        fold: number of the fold, or `all`.
        config: what the user chose.
        plans_sha256: of the plans' decisions that the run trained with.
        train_cases, validation_cases: case ids.
        image_sha256: per case, content hashes of its image files: whoever tests the model can see whether it knew them.
        init_report: what was taken from the pretrained encoder, in words.
        parameters: trained numbers.
        steps: done. `best_step_score`: the best validation score while training, on the plan's grid.
        final_dice: per structure, mean over the validation cases on their source grids.
        seconds: time used over all sittings.
    """

    model_config = ConfigDict(extra="forbid")

    version: int = RUN_VERSION
    status: Literal["running", "stopped", "done"] = "running"
    dataset_name: str
    fold: str
    config: TrainingConfig
    plans_sha256: str
    train_cases: tuple[str, ...]
    validation_cases: tuple[str, ...]
    image_sha256: dict[str, dict[str, str]] = {}
    init_report: str | None = None
    parameters: int = 0
    device: str = ""
    precision: str = ""
    ranks: int = 1
    threads: int = 1
    steps: int = 0
    best_epoch: int | None = None
    best_score: float | None = None
    final_dice: dict[str, float | None] = {}
    seconds: float = 0.0
    started: str = Field(default_factory=lambda: _now())
    ended: str | None = None
    versions: dict[str, str] = {}
    revision: str | None = None
    command: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> RunDescription:
        """The description in a file.

        Raises:
            UserError: missing, not JSON, or of another version.
        """
        return read_model(cls, path, what="run description", remedy=REMEDY, version=RUN_VERSION)

    def write(self, path: Path) -> None:
        """Write atomically."""
        files.write_json(path, self.model_dump(mode="json"))

    def ended_as(self, status: Literal["stopped", "done"], **facts: object) -> RunDescription:
        """The description of the run now that it has ended."""
        return self.model_copy(update={"status": status, "ended": _now(), **facts})

    def refuse_to_go_on_as(self, other: RunDescription, path: Path) -> None:
        """Check that `other` may go on where this run, described in `path`, is.

        Raises:
            UserError: it is another run: other choices, plans or cases.
        """
        mine, theirs = (run.config.model_dump() for run in (self, other))
        changed = [n for n in mine if mine[n] != theirs[n] and n not in MAY_CHANGE_ON_RESUME]
        if changed:
            listed = ", ".join(f"--{n.replace('_', '-')} {mine[n]} (now {theirs[n]})" for n in changed)
            raise UserError(f"{path}: the run that is here was started with {listed}. {REMEDY}")
        for what, before, now in (
            ("plans", self.plans_sha256, other.plans_sha256),
            ("training cases", self.train_cases, other.train_cases),
            ("validation cases", self.validation_cases, other.validation_cases),
        ):
            if before != now:
                raise UserError(f"{path}: the {what} have changed since the run that is here was started. {REMEDY}")


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")
