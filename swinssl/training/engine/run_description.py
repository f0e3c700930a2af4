"""`run.json`: what a run was, so that its result can be judged and repeated."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeVar

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from swinssl.core import files, provenance
from swinssl.core.errors import UserError
from swinssl.core.json_model import read_model
from swinssl.networks.checkpoints.shipped_encoders import encoder_path
from swinssl.preprocessing.plans import Plans
from swinssl.training.config import TrainingConfig
from swinssl.training.engine.checkpoint import newest_step, run_of_checkpoints
from swinssl.training.engine.config import LENGTH_OPTIONS, MAY_CHANGE_ON_RESUME, EngineConfig
from swinssl.training.engine.run_folder import RunFolder

if TYPE_CHECKING:
    from swinssl.training.engine.progress import Length

logger = logging.getLogger(__name__)

ConfigT = TypeVar("ConfigT", bound=EngineConfig)

RUN_VERSION = 1
# Of the planned steps; a run that made fewer says so at its end.
SHORT = 0.5


class EngineRun(BaseModel):
    """What every run of the engine says of itself.

    Args:
        status: `running` also of a run that was killed; `failed` of one that ended with an error.
        failure: that error, in words.
        config: what the user chose.
        image_sha256: per case, content hashes of its image files: whoever tests the model can see whether it knew them.
        init_sha256: of the encoder's file, wherever that lies; None from scratch.
        init_report: what was taken from the pretrained encoder, in words.
        parameters: trained numbers.
        steps: done.
        planned_steps: that a run makes without a time limit and without stopping early; None where time is the plan.
        seconds: time used over all sittings.
    """

    model_config = ConfigDict(extra="forbid")

    version: int = RUN_VERSION
    # Chooses another folder; fields that `rests_on` covers, so that how they were given does not matter.
    folder_option: ClassVar[str] = "--name"
    planned: ClassVar[frozenset[str]] = frozenset()

    status: Literal["running", "stopped", "failed", "done"] = "running"
    failure: str | None = None
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
    planned_steps: int | None = None
    seconds: float = 0.0
    started: str = Field(default_factory=provenance.now)
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
        return read_model(cls, path, what="run description", remedy=cls.remedy(), version=RUN_VERSION)

    @classmethod
    def remedy(cls) -> str:
        """How to begin another run where one is."""
        return f"Begin anew with --restart (the run that is here is kept aside), or choose another {cls.folder_option}."

    def write(self, path: Path) -> None:
        """Write atomically."""
        files.write_json(path, self.model_dump(mode="json"))

    def finish(self, status: Literal["stopped", "failed", "done"], **facts: object) -> Self:
        """The description of the run now that it has ended."""
        return self.model_copy(update={"status": status, "ended": provenance.now(), **facts})

    @property
    def shortfall(self) -> str | None:
        """A warning for the end of a run that made less than half of its planned steps; None for another one."""
        if self.planned_steps is None or self.steps >= SHORT * self.planned_steps:
            return None
        limit, patience = self.config.max_minutes, getattr(self.config, "patience", None)
        option = (
            "--patience" if limit is None else "--max-minutes" if patience is None else "--max-minutes or --patience"
        )
        why, remedy = f"{option} ended it", f"Rerun the command with a larger {option} to extend it"
        share = 100 * self.steps / self.planned_steps
        return (
            f"warning: the run made {self.steps} of {self.planned_steps} planned steps ({share:.0f} %), because {why}. "
            f"Its result may fall far behind what the plan can reach. {remedy}."
        )

    @property
    def choices(self) -> dict[str, Any]:
        """What the user chose, by option."""
        return self.config.model_dump()

    @property
    def rests_on(self) -> dict[str, object]:
        """What else makes it this run, by its name in a message."""
        return {}

    @classmethod
    def keep_length(cls, config: ConfigT, folder: RunFolder, *, result: Path) -> ConfigT:
        """The choices of a run, with the length of the one in its folder where they have none.

        Args:
            result: weights that the run leaves.
        """
        try:
            earlier = cls.earlier_in(folder, warn=False)
        except UserError:  # which refuses the start later
            return config
        resumes = result.is_file() or newest_step(folder.checkpoints) is not None
        return config.with_length_of(earlier.config) if earlier is not None and resumes else config

    @classmethod
    def earlier_in(cls, folder: RunFolder, *, warn: bool = True) -> Self | None:
        """The run that a folder has: by `run.json` or, where that is missing or damaged, by its checkpoints.

        Args:
            warn: where checkpoints had to tell.

        Raises:
            UserError: there are checkpoints, and nothing tells what run they are of.
        """
        kept = run_of_checkpoints(folder.checkpoints)
        try:
            return cls.read(folder.run_file)
        except UserError as error:
            if kept is None:  # nothing was trained yet that could be of another run
                return None
            try:
                earlier = cls.model_validate(kept)
            except ValidationError:
                raise error from None
            if warn:
                logger.warning("%s: missing or damaged; what it said was taken from a checkpoint.", folder.run_file)
            return earlier

    def resuming(self, earlier: Self | None, folder: RunFolder, *, result: str | None, length: Length) -> Self:
        """This run, after the `earlier` one of the folder was found to be the same, and begun when that was.

        A run that has neither a checkpoint nor a result yet is simply replaced: there is nothing to lose.

        Args:
            result: name of the weights that the folder has; None where it has none.
            length: that the run is to have.

        Raises:
            UserError: another run is there, or its result and nothing that tells how that was made.
        """
        checkpoints = newest_step(folder.checkpoints) is not None
        if earlier is None and result is not None:
            raise UserError(
                f"{folder.path}: has {result}, but {folder.run_file.name} is missing or damaged, so it may be of "
                f"another run. {self.remedy()}"
            )
        if earlier is None or not (result or checkpoints):
            return self
        earlier.refuse_to_go_on_as(self, folder.run_file)
        before, now = (run.config.model_dump(include=LENGTH_OPTIONS) for run in (earlier, self))
        longer = length.minutes is not None or length.expected > earlier.steps
        if earlier.is_closed(folder, result=result) and before != now and longer:
            raise UserError(
                f"{folder.checkpoints}: no checkpoint is left of this finished run, so it cannot be extended. Ask for "
                f"the length that it had. {self.remedy()}"
            )
        return self.model_copy(update={"started": earlier.started})

    def is_closed(self, folder: RunFolder, *, result: str | None) -> bool:
        """Whether this run was finished and its checkpoints were removed since, so that it stays as it is."""
        return self.status == "done" and result is not None and newest_step(folder.checkpoints) is None

    def refuse_to_go_on_as(self, other: Self, path: Path) -> None:
        """Check that `other` may go on where this run, described in `path`, is.

        Raises:
            UserError: it is another run: other choices, plans or cases.
        """
        earlier, later = self.choices, other.choices
        if None not in (self.init_sha256, other.init_sha256):
            if self.init_sha256 == other.init_sha256:
                later["init"] = earlier["init"]  # the same encoder at another place
            elif later["init"] == earlier["init"]:
                raise UserError(
                    f"{path}: {earlier['init']} has changed since the run that is here was started. {self.remedy()}"
                )
        before, now = self.rests_on, other.rests_on
        free = MAY_CHANGE_ON_RESUME | (self.planned if before == now else set())
        changed = [n for n in earlier if earlier[n] != later.get(n) and n not in free]
        if changed:
            listed = ", ".join(_as_typed(n, earlier[n], later.get(n)) for n in changed)
            raise UserError(f"{path}: the run that is here was started with {listed}. {self.remedy()}")
        for what in before:
            if before[what] != now[what]:
                raise UserError(
                    f"{path}: the {what} have changed since the run that is here was started. {self.remedy()}"
                )


class RunDescription(EngineRun):
    """One fine-tuning run.

    Args:
        dataset_name: folder name of the raw data set.
        fold: number of the fold, or `all`.
        plans_sha256: of the plans' decisions that the run trained with.
        train_cases, validation_cases: case ids.
        best_epoch, best_score: of the best validation while training, on the plan's grid.
        final_dice: per structure, mean over the validation cases on their source grids.
        prediction_sha256: of the label maps of the validation cases, by file name.
    """

    planned: ClassVar[frozenset[str]] = frozenset(
        {"lr", "batch_size", "preset", "decoder", "network", "norm", "dice", "deep_supervision"}
    )

    dataset_name: str
    fold: str
    config: TrainingConfig
    plans_sha256: str
    train_cases: tuple[str, ...]
    validation_cases: tuple[str, ...]
    best_epoch: int | None = None
    best_score: float | None = None
    final_dice: dict[str, float | None] = {}
    prediction_sha256: dict[str, str] = {}

    @property
    def rests_on(self) -> dict[str, object]:
        return {
            "plans": self.plans_sha256,
            "training cases": self.train_cases,
            "validation cases": self.validation_cases,
        }


class StartOfRun(BaseModel):
    """`--init` of a run: scratch, or the encoder that it started from."""

    # Runs of fine-tuning from scratch in 0.1.0 say null.
    init: Annotated[str, BeforeValidator(lambda init: "scratch" if init is None else init)] = "scratch"


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


def sha256_of_decisions(plans: Plans) -> str:
    """Of the plans' decisions that a run is tied to: neither reasons and costs, nor how long it trains."""
    # Decisions have the same form in both versions of plans, so that runs begun with version 1 can be resumed.
    decisions = plans.model_dump(
        mode="json", exclude={"reasons": True, "warnings": True, "cost": True, "training": LENGTH_OPTIONS}
    )
    decisions["version"] = 1
    return hashlib.sha256(json.dumps(decisions, sort_keys=True).encode()).hexdigest()


def _as_typed(name: str, before: Any, now: Any) -> str:
    """`--flag value (now value)` of an option that was changed; None is what was not given."""
    flag = "--" + name.replace("_", "-")
    said = "as planned" if now is None else f"{now}"
    return f"no {flag} (now {flag} {said})" if before is None else f"{flag} {before} (now {said})"


def surroundings(device: torch.device, *, bf16: bool, ranks: int) -> dict[str, Any]:
    """The fields of an `EngineRun` that tell what this process computes with."""
    return {
        "device": str(device),
        "precision": "bf16" if bf16 else "fp32",
        "ranks": ranks,
        "threads": torch.get_num_threads(),
        "versions": provenance.versions(),
        "revision": provenance.revision(),
        "command": (Path(sys.argv[0]).name, *map(provenance.without_folders, sys.argv[1:])),
    }
