"""`run.json`: what a run was, so that its result can be judged and repeated."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field

from swinssl import files, provenance
from swinssl.errors import UserError
from swinssl.json_model import read_model
from swinssl.networks.shipped_encoders import encoder_path
from swinssl.training.config import TrainingConfig
from swinssl.training.engine_config import MAY_CHANGE_ON_RESUME, EngineConfig

RUN_VERSION = 1
REMEDY = "Start anew with --restart, or choose another --name."


class EngineRun(BaseModel):
    """What every run of the engine says of itself.

    Args:
        status: `running` also of a run that was killed.
        config: what the user chose.
        image_sha256: per case, content hashes of its image files: whoever tests the model can see whether it knew them.
        init_sha256: of the encoder's file, wherever that lies; None from scratch.
        init_report: what was taken from the pretrained encoder, in words.
        parameters: trained numbers.
        steps: done.
        seconds: time used over all sittings.
    """

    model_config = ConfigDict(extra="forbid")

    version: int = RUN_VERSION
    status: Literal["running", "stopped", "done"] = "running"
    config: EngineConfig
    image_sha256: dict[str, dict[str, str]] = {}
    init_sha256: str | None = None
    init_report: str | None = None
    parameters: int = 0
    device: str = ""
    precision: str = ""
    ranks: int = 1
    threads: int = 1
    steps: int = 0
    seconds: float = 0.0
    started: str = Field(default_factory=lambda: _now())
    ended: str | None = None
    versions: dict[str, str] = {}
    revision: str | None = None
    command: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Self:
        """The description in a file.

        Raises:
            UserError: missing, not JSON, or of another version.
        """
        return read_model(cls, path, what="run description", remedy=REMEDY, version=RUN_VERSION)

    def write(self, path: Path) -> None:
        """Write atomically."""
        files.write_json(path, self.model_dump(mode="json"))

    def ended_as(self, status: Literal["stopped", "done"], **facts: object) -> Self:
        """The description of the run now that it has ended."""
        return self.model_copy(update={"status": status, "ended": _now(), **facts})

    @property
    def choices(self) -> dict[str, Any]:
        """What the user chose, by option."""
        return self.config.model_dump()

    @property
    def rests_on(self) -> dict[str, object]:
        """What else makes it this run, by its name in a message."""
        return {}

    def going_on_at(self, path: Path) -> Self:
        """This run, after any run that is described in `path` was found to be the same, and begun when that was.

        Raises:
            UserError: another run is there.
        """
        if not path.exists():
            return self
        before = self.read(path)
        before.refuse_to_go_on_as(self, path)
        return self.model_copy(update={"started": before.started})

    def refuse_to_go_on_as(self, other: Self, path: Path) -> None:
        """Check that `other` may go on where this run, described in `path`, is.

        Raises:
            UserError: it is another run: other choices, plans or cases.
        """
        mine, theirs = self.choices, other.choices
        if None not in (self.init_sha256, other.init_sha256):
            if self.init_sha256 == other.init_sha256:
                theirs["init"] = mine["init"]  # the same encoder at another place
            elif theirs["init"] == mine["init"]:
                raise UserError(f"{path}: {mine['init']} has changed since the run that is here was started. {REMEDY}")
        changed = [n for n in mine if mine[n] != theirs.get(n) and n not in MAY_CHANGE_ON_RESUME]
        if changed:
            listed = ", ".join(f"--{n.replace('_', '-')} {mine[n]} (now {theirs.get(n)})" for n in changed)
            raise UserError(f"{path}: the run that is here was started with {listed}. {REMEDY}")
        now = other.rests_on
        for what, before in self.rests_on.items():
            if before != now[what]:
                raise UserError(f"{path}: the {what} have changed since the run that is here was started. {REMEDY}")


class RunDescription(EngineRun):
    """One fine-tuning run.

    Args:
        dataset_name: folder name of the raw data set.
        fold: number of the fold, or `all`.
        plans_sha256: of the plans' decisions that the run trained with.
        train_cases, validation_cases: case ids.
        best_epoch, best_score: of the best validation while training, on the plan's grid.
        final_dice: per structure, mean over the validation cases on their source grids.
    """

    dataset_name: str
    fold: str
    config: TrainingConfig
    plans_sha256: str
    train_cases: tuple[str, ...]
    validation_cases: tuple[str, ...]
    best_epoch: int | None = None
    best_score: float | None = None
    final_dice: dict[str, float | None] = {}

    @property
    def rests_on(self) -> dict[str, object]:
        return {
            "plans": self.plans_sha256,
            "training cases": self.train_cases,
            "validation cases": self.validation_cases,
        }


class StartOfRun(BaseModel):
    """`--init` of a run: scratch, or the encoder that it started from."""

    init: str = "scratch"


class LearntFrom(BaseModel):
    """What `run.json` of any run, pretraining or fine-tuning, says of the images that its weights know.

    Args:
        config: how it started; what that was trained on is known to the weights too.
        image_sha256: as of an `EngineRun`.
    """

    config: StartOfRun = StartOfRun()
    image_sha256: dict[str, dict[str, str]] = {}

    @classmethod
    def read(cls, path: Path) -> Self:
        """That part of a run description.

        Raises:
            UserError: missing, not JSON, or of another version.
        """
        remedy = "Copy the whole folder of the run again."
        return read_model(cls, path, what="run description", remedy=remedy, version=RUN_VERSION)

    @property
    def hashes(self) -> frozenset[str]:
        """Content hashes of all image files."""
        return content_hashes(self.image_sha256)


def content_hashes(image_sha256: Mapping[str, Mapping[str, str]]) -> frozenset[str]:
    """Of all image files of all cases, from what a run description says of each."""
    return frozenset(value for own in image_sha256.values() for value in own.values())


def sha256_of_init(init: str | None) -> str | None:
    """Of the encoder's file; None from scratch.

    Raises:
        UserError: there is no such encoder.
    """
    path = None if init in (None, StartOfRun().init) else encoder_path(init or "")
    return None if path is None or not path.is_file() else files.sha256_of(path)


def surroundings(device: torch.device, *, bf16: bool, ranks: int) -> dict[str, Any]:
    """The fields of an `EngineRun` that tell what this process computes with."""
    return {
        "device": str(device),
        "precision": "bf16" if bf16 else "fp32",
        "ranks": ranks,
        "threads": torch.get_num_threads(),
        "versions": provenance.versions(),
        "revision": provenance.revision(),
        "command": (Path(sys.argv[0]).name, *sys.argv[1:]),
    }


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")
