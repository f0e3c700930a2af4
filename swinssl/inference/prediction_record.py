"""`predict_args.json`: how the label maps of a folder were made, so that they can be reproduced and completed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from swinssl.core import files, provenance
from swinssl.core.json_model import read_model

if TYPE_CHECKING:  # it imports torch, and a command's --help needs the options below alone
    from swinssl.inference.trained_model import TrainedModel

RECORD_FILE = "predict_args.json"
RECORD_VERSION = 3
REMEDY = "Choose another output folder, or predict again with --overwrite."


class CaseRecord(BaseModel):
    """The outcome of one case.

    Args:
        status: `done`, or `failed` with the reason in `message`.
        images: file names of the channels.
        input_sha256: of the image contents; if they change, the case is predicted again.
        result_sha256: by file name, of the written results; if they change, the case is predicted again.
        warnings: differences from the model's training data.
        far: properties outside 1/4 to 4 times the training range.
        volumes_ml: by structure, in ml.
    """

    model_config = ConfigDict(frozen=True)

    status: Literal["done", "failed"]
    message: str = ""
    images: tuple[str, ...] = ()
    input_sha256: tuple[str, ...] = ()
    result_sha256: dict[str, str] = {}
    warnings: tuple[str, ...] = ()
    far: tuple[str, ...] = ()
    volumes_ml: dict[str, float] = {}
    seconds: float = 0.0


class PredictionRecord(BaseModel):
    """The record of a folder of predictions.

    Args:
        model: as given by the user, without the folders of an absolute path.
        fold_sha256: by fold, of its weights.
        plans_sha256: of the plans' decisions; empty in folders of swinssl 0.1.0.
        options: of the user.
        mirror_axes: array axes (0 z, 1 y, 2 x) of test-time augmentation.
        postprocessing: groups of structures that keep only their largest component, in order.
        precision: of matrix products and convolutions, `fp32` or `bf16`.
        cases: by id.
    """

    model_config = ConfigDict(frozen=True)

    version: int = RECORD_VERSION
    model: str
    fold_sha256: dict[str, str]
    plans_sha256: str
    options: PredictionOptions
    mirror_axes: tuple[int, ...]
    postprocessing: tuple[tuple[str, ...], ...] = ()
    device: str = ""
    precision: str = ""
    started: str = Field(default_factory=provenance.now)
    versions: dict[str, str] = Field(default_factory=provenance.versions)
    revision: str | None = Field(default_factory=provenance.revision)
    cases: dict[str, CaseRecord] = {}

    @classmethod
    def of(
        cls, model: TrainedModel, options: PredictionOptions, *, given_as: str, device: str = "", precision: str = ""
    ) -> PredictionRecord:
        """The record of a run that begins now; `given_as` is the model as the user typed it."""
        return cls(
            model=provenance.without_folders(given_as),
            fold_sha256=model.sha256,
            plans_sha256=model.plans.prediction_sha256,
            options=options,
            mirror_axes=model.plans.training.mirror_axes if options.tta else (),
            postprocessing=model.postprocessing_groups if options.postprocessing else (),
            device=device,
            precision=precision,
        )

    @classmethod
    def read(cls, folder: Path) -> PredictionRecord | None:
        """The record of a folder; None if there is none.

        Raises:
            UserError: it cannot be read or has another version.
        """
        path = Path(folder) / RECORD_FILE
        if files.is_missing(path):
            return None
        return read_model(cls, path, what="prediction record", remedy=REMEDY, version=RECORD_VERSION, upgrade=_upgraded)

    def write(self, folder: Path) -> None:
        """Write atomically."""
        files.write_json(Path(folder) / RECORD_FILE, self.model_dump(mode="json"))

    def difference(self, other: PredictionRecord) -> str | None:
        """What makes the label maps of `other` differ from those of this record; None if nothing does.

        Device and precision do not count: they only change voxels within rounding of a boundary.
        """
        for name, mine, others in (
            ("weights or folds", self.fold_sha256, other.fold_sha256),
            ("plans", self.plans_sha256 or other.plans_sha256, other.plans_sha256 or self.plans_sha256),
            ("overlap (--overlap)", self.options.overlap, other.options.overlap),
            ("mirror images (--tta)", self.mirror_axes, other.mirror_axes),
            ("post-processing (--no-postprocessing)", self.postprocessing, other.postprocessing),
        ):
            if mine != others:
                return name
        return None

    def with_cases(self, cases: Mapping[str, CaseRecord]) -> PredictionRecord:
        """The record with these cases added."""
        return self.model_copy(update={"cases": {**self.cases, **cases}})


def _upgraded(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a record of version 1 or 2 in this version.

    Version 1 (swinssl 0.1.0) hashed the plans differently and did not hash its results, so cases are predicted again.
    Up to version 2, post-processing was called `clean_up`.
    """
    if content.get("version") == 1:
        content = {**content, "version": 2, "plans_sha256": ""}
    if content.get("version") == 2:
        content = _renamed(content)
        if isinstance(content.get("options"), dict):
            content["options"] = _renamed(content["options"])
        content["version"] = RECORD_VERSION
    return content


def _renamed(content: dict[str, Any]) -> dict[str, Any]:
    return {"postprocessing" if name == "clean_up" else name: value for name, value in content.items()}


class PredictionOptions(BaseModel):
    """Options of a prediction run; the model's plans determine everything else."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    overlap: float = Field(
        default=0.5, ge=0, le=0.9, description="Minimum fraction of a window that its neighbour shares."
    )
    tta: bool = Field(
        default=False,
        description="Test-time augmentation: average over mirror images along the axes that training mirrored. Takes "
        "2 to 8 times as long.",
    )
    save_probabilities: bool = Field(
        default=False,
        description="Also write <case>.npz with the array `probabilities` (structure, z, y, x) in float32.",
    )
    postprocessing: bool = Field(
        default=True,
        description="Keep only the largest component of structures for which swinssl_train measured that this helps.",
    )
    device: str = Field(default="auto", description="auto (cuda, else mps, else cpu), cpu, cuda, cuda:1 or mps.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="auto computes in bf16 if the hardware has instructions for it."
    )
    overwrite: bool = Field(
        default=False, description="Predict all cases again, also those that the output folder has."
    )
