"""Segment the images of a folder with a trained model, as swinssl_predict does."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from swinssl.api.images import PathLike
from swinssl.api.model import trained_on
from swinssl.core.devices import select_device, use_bf16
from swinssl.core.terminal import Progress, progress_to
from swinssl.core.workspace import Workspace
from swinssl.imageio.formats import unread_images
from swinssl.inference.input_cases import InputCase, find_cases
from swinssl.inference.output_folder import OutputFile, OutputFolder, names_a_file
from swinssl.inference.prediction_record import PredictionOptions, PredictionRecord
from swinssl.inference.prediction_run import CaseOutcome, expected_windows, predict_cases, unreadable
from swinssl.inference.predictor import Predictor
from swinssl.inference.trained_model import TrainedModel as ModelFolder
from swinssl.inference.trained_model import find_model

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class PredictionResult:
    """What became of each case.

    Attributes:
        output: folder of the label maps, or the file of one.
        outcomes: by case: `status` (`done`, `finished` before, or `failed`), `result`, the label map's path, and
            `record` with warnings and volumes.
        postprocessing: structures that keep their largest component alone, one group after another.
        unread: files that look like images and are not read, a sentence each.
    """

    output: Path
    outcomes: tuple[CaseOutcome, ...]
    postprocessing: tuple[tuple[str, ...], ...]
    unread: tuple[str, ...]

    @property
    def failed(self) -> dict[str, str]:
        """Why a case failed, by id."""
        return {o.case.id: o.record.message for o in self.outcomes if o.status == "failed"}


@dataclass(frozen=True)
class PredictionEstimate:
    """What a run would do.

    Attributes:
        would_segment: ids of the cases that can be read and are not done.
        failed: why a case would fail, by id.
        cases, done: how many there are, and how many of them are done.
        windows: that would be computed.
        seconds_on_two_cores: they would take.
        on_cpu: whether it would run there.
    """

    would_segment: list[str]
    failed: dict[str, str]
    cases: int
    done: int
    windows: int
    seconds_on_two_cores: float
    on_cpu: bool


@dataclass(frozen=True, eq=False)
class PredictionJob:
    """A model, cases and a place for the results that were found to fit each other; nothing is written yet."""

    model: ModelFolder
    cases: tuple[InputCase, ...]
    place: OutputFolder
    output: Path
    unread: tuple[str, ...]
    device: torch.device
    bf16: bool

    @property
    def record(self) -> PredictionRecord:
        """What will be written of the run beside its results."""
        return self.place.record

    def run(self, *, progress: Progress | None = None) -> PredictionResult:
        """Segment the cases that are not done."""
        options = self.record.options
        predictor = self.model.predictor(
            self.device,
            overlap=options.overlap,
            mirror=options.tta,
            postprocessing=options.postprocessing,
            bf16=self.bf16,
        )
        self.place.begin(self.model)
        with progress_to(progress):
            outcomes = predict_cases(self.cases, predictor, self.place, trained_on=trained_on(self.model))
        return PredictionResult(self.output, outcomes, self.record.postprocessing, self.unread)

    def estimate(self) -> PredictionEstimate:
        """Read weights and images, and say what `run` would do."""
        options, plans = self.record.options, self.model.plans
        self.model.networks(self.device)  # refused where they are damaged
        predictor = Predictor.of((), plans, device=self.device, overlap=options.overlap, mirror=options.tta)
        todo = [case for case in self.cases if not self.place.has(case)]
        windows = sum(expected_windows(case, predictor) for case in todo)
        passes = windows * len(self.model.folds) * 2 ** len(predictor.windows.mirror_axes)
        failed = unreadable(todo, plans)
        return PredictionEstimate(
            would_segment=[case.id for case in todo if case.id not in failed],
            failed=failed,
            cases=len(self.cases),
            done=len(self.cases) - len(todo),
            windows=windows,
            # A pass without gradients is a third of a training step of one patch.
            seconds_on_two_cores=passes * plans.cost.step_seconds_cpu / (3 * plans.training.batch_size),
            on_cpu=self.device.type == "cpu",
        )


def predict(
    images: PathLike | Sequence[PathLike],
    output: PathLike,
    model: PathLike,
    *,
    folds: Sequence[str | int] | None = None,
    options: PredictionOptions | None = None,
    root: PathLike | None = None,
    progress: Progress | None = None,
) -> PredictionResult:
    """Segment the images of a folder; cases that are done are left alone, and one that fails does not stop the others.

    For images in memory, or one after another, use `load_model`.

    Args:
        images: a folder, named as nnU-Net has it (`<case>_0000.nii.gz`); or the files of one case, one per channel.
        output: folder for the label maps, or the file for that of one case.
        model: folder of a trained model or of one of its folds, or a data set (id, name) that has just one model.
        folds: those to average; by default all complete ones.
        options: such as `PredictionOptions(tta=True, save_probabilities=True)`.
        root: as of `check`.
        progress: as of `check`.

    Raises:
        UserError: model, images and output cannot be used together. What is wrong with a case is in `failed`.
    """
    return open_prediction(images, output, model, folds=folds, options=options, root=root).run(progress=progress)


def open_prediction(
    images: PathLike | Sequence[PathLike],
    output: PathLike,
    model: PathLike,
    *,
    folds: Sequence[str | int] | None = None,
    options: PredictionOptions | None = None,
    root: PathLike | None = None,
) -> PredictionJob:
    """What `predict` would do, to look at before it is done; arguments and errors as of `predict`."""
    options = options or PredictionOptions()
    inputs = [Path(images)] if isinstance(images, str | os.PathLike) else [Path(image) for image in images]
    output = Path(output)
    device = select_device(options.device)
    workspace = Workspace.locate(root)
    opened = ModelFolder.open(find_model(os.fspath(model), workspace), folds)
    cases = find_cases(inputs, opened.plans.channel_names)
    unread = tuple(line for path in inputs if path.is_dir() for line in unread_images(path))
    bf16 = use_bf16(device, options.precision)
    record = PredictionRecord.of(
        opened, options, given_as=os.fspath(model), device=str(device), precision="bf16" if bf16 else "fp32"
    )
    place = OutputFile if names_a_file(output) else OutputFolder
    results = place.open(output, record, cases, overwrite=options.overwrite)
    return PredictionJob(opened, cases, results, output, unread, device, bf16)
