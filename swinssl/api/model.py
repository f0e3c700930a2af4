"""A trained model in this process: `load_model(path).predict(image)`."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import warnings as python_warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from swinssl.api.images import ImageLike, OnGrid, PathLike, input_volume
from swinssl.core.devices import Precision, select_device, use_bf16
from swinssl.core.errors import UserError
from swinssl.core.geometry import Spacing
from swinssl.imageio.in_memory import as_itk, as_nibabel
from swinssl.imageio.reader import VALUES_REMEDY, unusable_voxels
from swinssl.imageio.writer import write_volume
from swinssl.inference import trained_model
from swinssl.inference.input_cases import expected_channels
from swinssl.inference.model_archive import unpacked
from swinssl.inference.prediction_run import LoadedCase, load_case, load_volume, volumes_ml
from swinssl.inference.predictor import Predictor
from swinssl.inference.source_grid import SourceGrid
from swinssl.inference.trained_model import ARCHIVE_ENDING
from swinssl.preprocessing.plans import PLANS_FILE, Plans

if TYPE_CHECKING:
    import torch

    from swinssl.api.training import TrainingResult

logger = logging.getLogger(__name__)


class InputWarning(UserWarning):
    """An input is unlike what the model was trained on, or its place is only assumed: look at the result."""


@dataclass(frozen=True, eq=False)
class Prediction(OnGrid):
    """The segmentation of one image, on its grid and in its storage order.

    Attributes:
        geometry: as of `OnGrid`.
        labels: (Z, Y, X) label values, as dataset.json declares them.
        probabilities: (K, Z, Y, X) float32, or None where they were not asked for. Background is first for exclusive
            labels; for regions there is one channel per region. They are those before post-processing.
        warnings: how the input is unlike what the model was trained on, and what of its place is assumed.
        far: in what it lies outside 1/4 to 4 times the training range (voxels, field of view, intensities).
        volumes_ml: of each structure, by name.
    """

    labels: NDArray[Any]
    probabilities: NDArray[np.float32] | None = None
    warnings: tuple[str, ...] = ()
    far: tuple[str, ...] = ()
    volumes_ml: dict[str, float] = field(default_factory=dict)

    def save(self, path: PathLike, *, overwrite: bool = False) -> Path:
        """Write the label map; the file is the one that swinssl_predict writes.

        Raises:
            UserError: the ending is unknown, or the file exists.
        """
        path = Path(path)
        if path.exists() and not overwrite:
            raise UserError(f"{path}: exists. Choose another name, or pass overwrite=True to replace it.")
        write_volume(path, self.labels, self.geometry)
        return path

    def to_nibabel(self) -> Any:
        """The label map as a `nibabel.Nifti1Image` (X, Y, Z)."""
        return as_nibabel(self.labels, self.geometry)

    def to_simpleitk(self) -> Any:
        """The label map as a `SimpleITK.Image`."""
        return as_itk(self.labels, self.geometry)


class TrainedModel:
    """A trained model that is ready to segment images; made by `load_model` and `train`.

    Several threads may call `predict` at the same time: a call changes nothing in the model. Each needs the memory of
    one prediction, and they share the cores.

    Attributes:
        folder: of the model, or its archive.
        folds: whose networks predict together; their logits are averaged.
        device, precision: what it computes on, and in: `fp32` or `bf16`.
        notes: what whoever uses the model should know of its files.
        training: what `train` measured; None of a model that was loaded.
    """

    def __init__(
        self,
        model: trained_model.TrainedModel,
        *,
        device: torch.device,
        bf16: bool,
        overlap: float = 0.5,
        tta: bool = False,
        postprocessing: bool = True,
    ) -> None:
        self.folder, self.folds, self.notes = model.folder, model.folds, _notes(model, postprocessing=postprocessing)
        self.device, self.precision = str(device), "bf16" if bf16 else "fp32"
        self._model, self._trained_on = model, trained_on(model)
        self.training: TrainingResult | None = None
        self._lock = threading.Lock()
        self._loaded: Predictor | None = None
        self._load = lambda: model.predictor(
            device, overlap=overlap, mirror=tta, postprocessing=postprocessing, bf16=bf16
        )

    def __repr__(self) -> str:
        return f"TrainedModel({str(self.folder)!r}, folds={self.folds}, device={self.device!r})"

    @property
    def plans(self) -> Plans:
        """What was decided: how images are prepared, and which network it is."""
        return self._model.plans

    @property
    def dataset_name(self) -> str:
        """Name of the data set that it was trained on."""
        return self.plans.dataset_name

    @property
    def channel_names(self) -> tuple[str, ...]:
        """The channels of an image, in order."""
        return self.plans.channel_names

    @property
    def labels(self) -> dict[str, tuple[int, ...]]:
        """The label values of each structure; of a region those of all its parts."""
        return dict(zip(self.plans.labels.names, self.plans.labels.values, strict=True))

    @property
    def spacing(self) -> Spacing:
        """Voxel distance (z, y, x) in mm at which the network sees images; `predict` resamples to it and back."""
        return self.plans.spacing

    @property
    def postprocessing(self) -> tuple[tuple[str, ...], ...]:
        """Structures that keep their largest component alone, one group after another."""
        return self._predictor.postprocessing

    def predict(
        self,
        image: ImageLike | Sequence[ImageLike],
        *,
        spacing: Sequence[float] | None = None,
        affine: ArrayLike | None = None,
        probabilities: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Prediction:
        """Segment one image, as swinssl_predict does with its file: the label maps are equal voxel for voxel.

        Args:
            image: an array (C, Z, Y, X), or (Z, Y, X) where the model has one channel; an `Image`; an image of nibabel
                or SimpleITK; a path; or a list of paths or images, one per channel in the order of `channel_names`.
            spacing: of an array, (z, y, x) in mm. Alone, it means axes that point to superior, anterior and the
                patient's right, and a warning says so.
            affine: of an array, (4, 4), as of `Image.affine`; its axes may have any order and direction.
            probabilities: give these too.
            progress: called with the windows that are done, and how many there are.

        Returns:
            The label map on the grid of the image. What is unlike the training data is in its `warnings`, and is
            given to Python's `warnings` as `InputWarning`.

        Raises:
            UserError: the image cannot be read or used, or has other channels than the model.
        """
        paths = _paths_of(image)
        if paths is not None:
            if folder := next((path for path in paths if path.is_dir()), None):
                raise UserError(f"{folder}: a folder; give the file of one image, or its files in a list.")
            if spacing is not None or affine is not None:
                raise UserError(f"{paths[0]}: the file says where its voxels lie. Leave out spacing and affine.")
            self._require_channels(len(paths), str(paths[0]))
            loaded = load_case(paths, self.plans, trained_on=self._trained_on)
        else:
            loaded = self._load_volume(image, spacing=spacing, affine=affine)
        for warning in loaded.warnings:
            python_warnings.warn(InputWarning(warning), stacklevel=2)
        return self._segment(loaded, probabilities=probabilities, progress=progress)

    @property
    def _predictor(self) -> Predictor:
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
            return self._loaded

    def _load_volume(self, image: Any, *, spacing: Sequence[float] | None, affine: ArrayLike | None) -> LoadedCase:
        volume, warnings, name = input_volume(image, spacing=spacing, affine=affine)
        self._require_channels(len(volume.array), name)
        for number, channel in enumerate(volume.array):
            if (found := unusable_voxels(channel)) is not None:
                which = f", channel {number:04d}" if len(volume.array) > 1 else ""
                raise UserError(f"{name}{which}: {found}. {VALUES_REMEDY.partition(',')[0]}.")
        return load_volume(volume, self.plans, name=name, warnings=warnings)

    def _require_channels(self, count: int, name: str) -> None:
        if count != len(self.channel_names):
            raise UserError(
                f"{name}: {'1 channel' if count == 1 else f'{count} channels'}; the model expects "
                f"{expected_channels(self.channel_names)}. Give an array (C, Z, Y, X), or a list of one path or image "
                "per channel, in this order."
            )

    def _segment(
        self, loaded: LoadedCase, *, probabilities: bool, progress: Callable[[int, int], None] | None
    ) -> Prediction:
        predictor, prepared = self._predictor, loaded.prepared
        total, done = predictor.window_count(prepared.shape), 0

        def advance(more: int) -> None:
            nonlocal done
            done += more
            if progress is not None:
                progress(done, total)

        source_grid = SourceGrid.of(prepared)
        result = predictor.segment(prepared.image, source_grid, probabilities=probabilities, on_windows=advance)
        return Prediction(
            geometry=prepared.source,
            labels=result.label_map,
            probabilities=result.probabilities,
            warnings=loaded.warnings,
            far=loaded.far,
            volumes_ml=volumes_ml(result.label_map, prepared.source, self.plans.labels),
        )


def load_model(
    path: PathLike,
    *,
    folds: str | int | Sequence[str | int] | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    overlap: float = 0.5,
    tta: bool = False,
    postprocessing: bool = True,
) -> TrainedModel:
    """Load a trained model into this process; what it needs of the disk is read once.

    Args:
        path: folder of a model or of one of its folds, or an archive (.zip) that swinssl_model export wrote.
        folds: those to average, such as `0`, `[0, 1]` or `"all"` (the fold of this name); by default all complete ones.
        device: `auto` (cuda, else mps, else cpu), `cpu`, `cuda`, `cuda:1` or `mps`.
        precision: `fp32`, `bf16`, or `auto`: bf16 where the hardware has instructions for it.
        overlap: least share of a window that its neighbour sees too, in [0, 0.9].
        tta: average over mirror images along the axes that training mirrored: 2 to 8 times the work.
        postprocessing: keep the largest component alone of the structures where training measured that this helps.

    Raises:
        UserError: there is no such model or fold, or it is damaged.
    """
    if not 0 <= overlap <= 0.9:
        raise UserError(f"overlap={overlap}: expected a share from 0 to 0.9.")
    chosen = [folds] if isinstance(folds, str | int) else folds
    on = select_device(device)
    options = {"device": on, "bf16": use_bf16(on, precision), "overlap": overlap, "tta": tta}
    with _opened(Path(path), chosen) as opened:
        model = TrainedModel(opened, **options, postprocessing=postprocessing)  # type: ignore[arg-type]
        _ = model.postprocessing  # the weights are read now, so that a damaged file is refused here
    model.folder = Path(path) if Path(path).is_file() else model.folder
    return model


def trained_on(model: trained_model.TrainedModel) -> frozenset[str]:
    """Content hashes of the images that the model's folds were trained on, as far as their runs tell."""
    from swinssl.training.engine.run_description import LearntFrom
    from swinssl.training.engine.run_folder import RunFolder

    hashes: set[str] = set()
    for fold in model.folds:
        path = RunFolder(trained_model.fold_folder(model.folder, fold)).run_file
        if not path.is_file():
            continue
        try:
            hashes |= LearntFrom.read(path).hashes
        except UserError as error:  # it serves this warning alone
            logger.warning("%s So images that the model was trained on cannot be told from others.", error)
    return frozenset(hashes)


@contextlib.contextmanager
def _opened(path: Path, folds: Sequence[str | int] | None) -> Iterator[trained_model.TrainedModel]:
    if path.suffix.lower() != ARCHIVE_ENDING or path.is_dir():
        if path.is_file():
            remedy = f"Give the folder of a trained model, with {PLANS_FILE} in it, or an archive ({ARCHIVE_ENDING})."
            raise UserError(f"{path}: a file. {remedy}")
        yield trained_model.TrainedModel.open(path, folds)
        return
    with unpacked(path) as (_, model):
        yield model if folds is None else trained_model.TrainedModel.open(model.folder, folds)


def _notes(model: trained_model.TrainedModel, *, postprocessing: bool) -> tuple[str, ...]:
    notes = list(model.notes)
    if model.unfinished:
        notes.append(f"fold {', '.join(model.unfinished)} has no weights yet and is left out")
    if postprocessing and model.postprocessing_is_outdated:
        notes.append(
            "no post-processing, because postprocessing.json was measured with other weights; rerun "
            "swinssl_train with the options of this model to measure anew"
        )
    return tuple(notes)


def _paths_of(image: object) -> list[Path] | None:
    """The files of an image that is given as a path or a list of paths; None where it is something else."""
    if isinstance(image, str | os.PathLike):
        return [Path(image)]
    if isinstance(image, list | tuple) and image and all(isinstance(one, str | os.PathLike) for one in image):
        return [Path(one) for one in image]
    return None
