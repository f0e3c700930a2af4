"""Train: pretrain an encoder without labels, fine-tune a segmentor."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from swinssl.api.images import PathLike
from swinssl.api.model import TrainedModel
from swinssl.core.devices import select_device, use_bf16
from swinssl.core.errors import UserError
from swinssl.core.json_model import first_fault
from swinssl.core.terminal import Progress, progress_to
from swinssl.core.workspace import Workspace, safe_name
from swinssl.experiments.cross_validation import check_folds, cross_validate
from swinssl.experiments.fine_tuned_fold import EvaluatedFold, train_and_judge
from swinssl.inference.postprocessing import Postprocessing
from swinssl.inference.trained_model import TrainedModel as ModelFolder
from swinssl.ssl import pretraining
from swinssl.ssl.config import PretrainingConfig, config_of
from swinssl.ssl.methods.registry import load_method
from swinssl.training.config import TrainingConfig
from swinssl.training.fine_tuning import CheckedStart, check_start, fold_configs

if TYPE_CHECKING:
    from swinssl.evaluation.aggregate import Report
    from swinssl.evaluation.results import Evaluation

Fold = int | str | Sequence[int | str]


@dataclass(frozen=True)
class TrainingResult:
    """Trained folds of a model, and what they are worth.

    Attributes:
        model: the model's folder.
        folds: each with its run (`fold.run`), and evaluation and report over its validation cases.
        evaluation, report: over the validation cases of all folds; None where there is none.
        postprocessing: of which structures the largest component is kept, and what that was worth; None where too few
            cases could tell.
        folder: where the numbers over several folds are; None for one fold.
        is_main: whether this is the process that writes and speaks.
    """

    model: Path
    folds: tuple[EvaluatedFold, ...]
    evaluation: Evaluation | None
    report: Report | None
    postprocessing: Postprocessing | None
    folder: Path | None
    is_main: bool

    @property
    def dice(self) -> float | None:
        """Mean over structures of the mean Dice of the validation cases."""
        return None if self.report is None else self.report.dice.mean


@dataclass(frozen=True)
class TrainingEstimate:
    """What a training would be, fold by fold.

    Attributes:
        folds: of each its folder, its config with start and length decided, plans, length, and lines that say so.
    """

    folds: tuple[CheckedStart, ...]


@dataclass(frozen=True)
class PretrainingEstimate:
    """What a pretraining would be: its folder and what it is made of."""

    folder: Path
    plan: pretraining.PretrainingPlan


def train(
    dataset: PathLike,
    *,
    fold: Fold = 0,
    config: TrainingConfig | None = None,
    name: str | None = None,
    restart: bool = False,
    root: PathLike | None = None,
    progress: Progress | None = None,
) -> TrainedModel:
    """Fine-tune a fold of a preprocessed data set, or several, and measure them; the model is ready to predict.

    The model goes to `<root>/results/<data set>/<name>`. Call it again to resume a run that was stopped. Called in the
    main thread, SIGINT and SIGTERM end the run after the step in progress while it lasts; a file STOP in the folder of
    the fold does so from anywhere.

    Args:
        dataset: a preprocessed data set: path of its raw data, id or name.
        fold: number, several numbers one after another (a cross-validation), or `"all"` (no validation).
        config: such as `TrainingConfig(max_minutes=30, init="scratch")`.
        name: of the model's folder; by default from network and start.
        restart: put an earlier run aside and begin anew.
        root, progress: as of `check`.

    Returns:
        The model with all its complete folds; `training` says what they are worth. Weights are read at the first
        prediction.

    Raises:
        UserError: something that was given does not fit.
        Interrupted: someone asked to stop; everything is saved.
    """
    config = config or TrainingConfig()
    result = train_folds(dataset, fold=fold, config=config, name=name, restart=restart, root=root, progress=progress)
    device = select_device(config.device)
    model = TrainedModel(ModelFolder.open(result.model), device=device, bf16=use_bf16(device, "auto"))
    model.training = result
    return model


def train_folds(
    dataset: PathLike,
    *,
    fold: Fold,
    config: TrainingConfig,
    name: str | None = None,
    restart: bool = False,
    root: PathLike | None = None,
    progress: Progress | None = None,
) -> TrainingResult:
    """What `train` does, without the model; also one process of several that train together."""
    preprocessed, results = _places(dataset, root)
    folds = _names(fold)
    if name is not None:
        safe_name(name, what="--name")
    with progress_to(progress):
        if len(folds) > 1:
            done = cross_validate(preprocessed, results, folds=folds, config=config, name=name, restart=restart)
            return TrainingResult(
                done.model, done.folds, done.evaluation, done.report, done.postprocessing, done.folder, done.first_rank
            )
        judged = train_and_judge(preprocessed, results, fold=folds[0], config=config, name=name, restart=restart)
    return TrainingResult(
        judged.fold.model,
        (judged,),
        judged.evaluation,
        judged.report,
        judged.postprocessing,
        None,
        judged.fold.first_rank,
    )


def estimate_training(
    dataset: PathLike,
    *,
    fold: Fold = 0,
    config: TrainingConfig | None = None,
    name: str | None = None,
    restart: bool = False,
    root: PathLike | None = None,
) -> TrainingEstimate:
    """Run every check that `train` makes before its first step, and say what it would do; nothing is written.

    Raises:
        UserError: as `train` would.
    """
    preprocessed, results = _places(dataset, root)
    folds = _names(fold)
    config = config or TrainingConfig()
    if len(folds) > 1:
        check_folds(preprocessed, folds)
    configs = fold_configs(preprocessed, results, folds=folds, config=config, name=name, restart=restart)
    return TrainingEstimate(
        tuple(
            check_start(preprocessed, results, fold=number, config=configs[number], name=name, restart=restart)
            for number in folds
        )
    )


def pretrain(
    method: str,
    datasets: PathLike | Sequence[PathLike],
    *,
    config: PretrainingConfig | None = None,
    options: BaseModel | Mapping[str, Any] | None = None,
    out: PathLike | None = None,
    restart: bool = False,
    root: PathLike | None = None,
    progress: Progress | None = None,
) -> pretraining.Pretrained:
    """Pretrain an encoder on preprocessed images without labels; `load_encoder(result.encoder)` loads it.

    Resumes as `train` does.

    Args:
        method: a name of `list_methods`.
        datasets: one or several preprocessed data sets.
        config: such as `PretrainingConfig(max_minutes=60)`.
        options: of the method, by name.
        out: folder of the run; by default `<root>/results/pretraining/<method>__<data set>`.
        restart, root, progress: as of `train`.

    Returns:
        `folder`, `encoder` (the file), `run` (what run.json says) and `best`, where there was a probe.

    Raises:
        UserError: something that was given does not fit.
        Interrupted: someone asked to stop; everything is saved.
    """
    call = _pretraining_call(method, datasets, config, options, out, root)
    with progress_to(progress):
        return pretraining.pretrain(**call, restart=restart)


def estimate_pretraining(
    method: str,
    datasets: PathLike | Sequence[PathLike],
    *,
    config: PretrainingConfig | None = None,
    options: BaseModel | Mapping[str, Any] | None = None,
    out: PathLike | None = None,
    restart: bool = False,
    root: PathLike | None = None,
) -> PretrainingEstimate:
    """Run every check that `pretrain` makes before its first step, and say what it would do; nothing is written.

    Raises:
        UserError: as `pretrain` would.
    """
    call = _pretraining_call(method, datasets, config, options, out, root)
    return PretrainingEstimate(call["folder"], pretraining.check_start(**call, restart=restart))


def _pretraining_call(
    method: str,
    datasets: PathLike | Sequence[PathLike],
    config: PretrainingConfig | None,
    options: BaseModel | Mapping[str, Any] | None,
    out: PathLike | None,
    root: PathLike | None,
) -> dict[str, Any]:
    """The arguments of `ssl.pretraining.pretrain`."""
    workspace = Workspace.locate(root)
    several = [datasets] if isinstance(datasets, str | os.PathLike) else datasets
    preprocessed = [workspace.preprocessed(os.fspath(dataset)) for dataset in several]
    method_class = load_method(method)
    config = config_of(method_class)() if config is None else config
    if not isinstance(options, BaseModel):
        try:
            options = method_class.Options(**(options or {}))
        except ValidationError as error:
            raise UserError(f"options of {method}: {first_fault(error)}. See swinssl.list_methods().") from None
    folder = (
        workspace.root
        / "results"
        / "pretraining"
        / pretraining.default_folder(method, [place.name for place in preprocessed], config)
        if out is None
        else Path(out)
    )
    probe = None if config.probe is None else workspace.preprocessed(config.probe)
    return {
        "method": method,
        "preprocessed": preprocessed,
        "folder": folder,
        "config": config,
        "options": options,
        "probe": probe,
    }


def _places(dataset: PathLike, root: PathLike | None) -> tuple[Path, Path]:
    workspace = Workspace.locate(root)
    return workspace.preprocessed(os.fspath(dataset)), workspace.results(os.fspath(dataset))


def _names(fold: Fold) -> list[str]:
    several = [fold] if isinstance(fold, int | str) else fold
    names = list(dict.fromkeys(map(str, several)))
    if not names or not all(name == "all" or name.isdecimal() for name in names) or ("all" in names and len(names) > 1):
        raise UserError(f"fold={fold!r}: expected a number from 0 on, several such as [0, 1], or 'all'.")
    return names
