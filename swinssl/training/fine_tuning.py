"""Fine-tune one fold of a preprocessed data set: from its cases and plans to a trained model and its predictions."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from swinssl.core import files
from swinssl.core.devices import select_device, use_bf16
from swinssl.core.errors import UserError
from swinssl.core.terminal import track
from swinssl.core.text import counted
from swinssl.dataset.case import case_name
from swinssl.dataset.case_tables import read_groups
from swinssl.dataset.splits import Fold, fold_of, load_or_make_splits, shots_subset
from swinssl.imageio.formats import images_in
from swinssl.imageio.writer import write_volume
from swinssl.inference.predictor import Predictor
from swinssl.inference.source_grid import SourceGrid
from swinssl.inference.trained_model import (
    WEIGHTS_FILE,
    TrainedModel,
    fold_folder,
    kept_sha256,
    refuse_other_plans,
    whole_sha256,
    write_descriptions,
    write_fold,
)
from swinssl.networks.architectures import build_network
from swinssl.networks.checkpoints.encoder_transfer import load_encoder
from swinssl.networks.checkpoints.shipped_encoders import SCRATCH, encoder_path
from swinssl.networks.swin.encoder import SwinEncoder
from swinssl.networks.swin.low_rank import adapt_encoder, merged
from swinssl.preprocessing.plans import Plans
from swinssl.preprocessing.store import REFERENCES, PreprocessedCase, PreprocessedDataset
from swinssl.training.config import TrainingConfig
from swinssl.training.effective_plans import effective_plans, planned_steps, run_length
from swinssl.training.engine.config import MACHINE_OPTIONS
from swinssl.training.engine.distribution import Ranks
from swinssl.training.engine.lifecycle import RunLifecycle
from swinssl.training.engine.loop import Engine
from swinssl.training.engine.optimiser import EncoderLrSchedule
from swinssl.training.engine.progress import Length, Progress
from swinssl.training.engine.run_description import (
    RunDescription,
    sha256_of_decisions,
    sha256_of_init,
    surroundings,
)
from swinssl.training.engine.run_folder import RunFolder
from swinssl.training.grid_validation import GridValidation, spread
from swinssl.training.initial_weights import draws_of, refuse_non_finite
from swinssl.training.progress_picture import draw_progress
from swinssl.training.segmentation_task import SegmentationTask
from swinssl.training.start import default_name, remedy, start_in_words, with_start

logger = logging.getLogger(__name__)

VALIDATION, TRAINING_CASES = "validation", "training_cases"
# With fewer validation cases than these, training cases are asked too what post-processing helps; of many, so many.
ENOUGH_CASES, MOST_TRAINING_CASES = 3, 20
# Fields of `run.json` that say how training ended.
OUTCOME = {"steps", "best_epoch", "best_score", "seconds"}


@dataclass(frozen=True)
class FineTuned:
    """A trained fold.

    Args:
        model: the model's folder.
        folder: the fold's folder in it.
        plans: those that it was trained with.
        run: what `run.json` says.
        predictions: folder with the label maps of the validation cases, each on the grid of its file; None where there
            are no such cases, and on all ranks but the first.
        first_rank: whether this process is the one that writes and speaks.
        done_before: an earlier call trained all of it, and measured these predictions.
    """

    model: Path
    folder: Path
    plans: Plans
    run: RunDescription
    predictions: Path | None
    first_rank: bool
    done_before: bool = False

    @property
    def run_file(self) -> Path:
        """Where `run` is kept."""
        return RunFolder(self.folder).run_file


@dataclass(frozen=True)
class _Setting:
    """What a run is made of, before anything is computed."""

    dataset: PreprocessedDataset
    plans: Plans
    train: tuple[str, ...]
    validation: tuple[str, ...]
    device: torch.device
    bf16: bool
    ranks: Ranks

    def cases(self, ids: Sequence[str]) -> list[PreprocessedCase]:
        return [self.dataset.case(case_id) for case_id in ids]


def fine_tune(
    preprocessed: Path,
    results: Path,
    *,
    fold: str,
    config: TrainingConfig,
    name: str | None = None,
    restart: bool = False,
) -> FineTuned:
    """Train one fold to its end and predict its validation cases; goes on where an earlier call was stopped.

    Of a fold that an earlier call finished, nothing is done again.

    Args:
        preprocessed: `<root>/preprocessed/<name>`.
        results: `<root>/results/<name>`; the model goes to `results/<name>/fold_<fold>`.
        fold: number of the fold, or `all`.
        name: of the model.
        restart: put an earlier run of this fold aside (`old_fold_<fold>_<n>`) and begin anew.

    Raises:
        UserError: something that the user gave does not fit.
        Interrupted: someone asked to stop; everything is saved.
    """
    start = _checked(preprocessed, results, fold=fold, config=config, name=name, restart=restart)
    model, life, is_main = start.model, start.lifecycle, start.setting.ranks.is_main
    if is_main:
        for line in start.lines:
            logger.info("%s", line)
    predictions, done_before = None, False
    with life.begin(restart=restart):
        weights_before = whole_sha256(model, fold)
        life.update(**life.train(partial(_train, start), outcome=OUTCOME))
        if is_main:
            write_descriptions(model, start.plans, start.description)
            predictions = start.folder.path / VALIDATION if start.setting.validation else None
            same_weights = weights_before is not None and weights_before == kept_sha256(model, fold)
            done_before = same_weights and _was_measured(start, predictions)
            life.write()
            if predictions is not None and not done_before:
                with life.failure_noted():
                    life.update(prediction_sha256=_predict_validation(start, predictions))
                life.write()
    return FineTuned(model, start.folder.path, start.plans, life.run, predictions, is_main, done_before)


def _was_measured(start: _Start, predictions: Path | None) -> bool:
    """Whether an earlier sitting finished this run and its predictions are unchanged; it then stays as it ended."""
    life, earlier = start.lifecycle, start.lifecycle.earlier
    if earlier is None or earlier.status != "done":
        return False
    if not _are_as_written(start.setting, predictions, earlier.prediction_sha256):
        return False
    logger.info("%s: trained and measured before", start.folder.path)
    measured = earlier.model_dump(include={"final_dice", "prediction_sha256"})
    life.run = life.run.finish("done", ended=earlier.ended, **measured)
    return True


def check_start(
    preprocessed: Path,
    results: Path,
    *,
    fold: str,
    config: TrainingConfig,
    name: str | None = None,
    restart: bool = False,
) -> CheckedStart:
    """Run every check that `fine_tune` makes before its first step, and write nothing; what it would do.

    Raises:
        UserError: as `fine_tune` would.
    """
    start = _checked(preprocessed, results, fold=fold, config=config, name=name, restart=restart, writes=False)
    start.lifecycle.check(restart=restart)
    _task(start)
    run = start.lifecycle.run
    return CheckedStart(start.folder.path, run.config, start.plans, start.lifecycle.length, start.lines)


@dataclass(frozen=True)
class CheckedStart:
    """What `fine_tune` would do.

    Args:
        folder: of the fold.
        config: with start and length decided.
        plans: those that it would train with.
        length: of the run.
        lines: start, encoder and length in words.
    """

    folder: Path
    config: TrainingConfig
    plans: Plans
    length: Length
    lines: tuple[str, ...]


def fold_configs(
    preprocessed: Path,
    results: Path,
    *,
    folds: Sequence[str],
    config: TrainingConfig,
    name: str | None = None,
    restart: bool = False,
) -> dict[str, TrainingConfig]:
    """By fold, the choices that it is trained with where several are trained in a row.

    Folds that no earlier call began get the length of those that one did, unless `config` says how long they are.
    """
    dataset = PreprocessedDataset.open(preprocessed)
    decided = with_start(config, dataset.plans, preprocessed)
    model = results / (name or default_name(effective_plans(dataset.plans, decided), decided))
    if restart:
        return dict.fromkeys(folds, config)
    began = [fold for fold in folds if RunFolder(fold_folder(model, fold)).run_file.exists()]
    lengths = (_with_kept_length(config, model, fold) for fold in began)
    first = next((kept for kept in lengths if kept != config), config)
    return {fold: config if fold in began else first for fold in folds}


def _with_kept_length(config: TrainingConfig, model: Path, fold: str) -> TrainingConfig:
    folder = fold_folder(model, fold)
    return RunDescription.keep_length(config, RunFolder(folder), result=folder / WEIGHTS_FILE)


@dataclass(frozen=True)
class _Start:
    """A run that passed all checks for which its folder is not needed."""

    setting: _Setting
    fold: str
    model: Path
    folder: RunFolder
    description: dict[str, Any]
    network: nn.Module
    lifecycle: RunLifecycle[RunDescription]
    lines: tuple[str, ...]

    @property
    def plans(self) -> Plans:
        return self.setting.plans


def _checked(
    preprocessed: Path,
    results: Path,
    *,
    fold: str,
    config: TrainingConfig,
    name: str | None,
    restart: bool,
    writes: bool = True,
) -> _Start:
    dataset = PreprocessedDataset.open(preprocessed)
    config = asked = with_start(config, dataset.plans, preprocessed)
    model = results / (name or default_name(effective_plans(dataset.plans, config), config))
    if not restart:
        config = _with_kept_length(config, model, fold)
    plans = effective_plans(dataset.plans, config)
    setting = _setting(dataset, plans, fold=fold, config=config, keep=writes)
    refuse_other_plans(model, fold, plans)
    dataset.check((*setting.train, *setting.validation))
    description = files.read_json(
        preprocessed / "dataset.json", what="description of the data set", remedy="Run swinssl_preprocess."
    )
    _check_references(setting)
    network, report = _initial_network(plans, config, preprocessed)
    described = _described(setting, fold, config).model_copy(
        update={"init_report": report, "parameters": sum(p.numel() for p in network.parameters())}
    )
    folder = RunFolder(fold_folder(model, fold))
    lifecycle = RunLifecycle(
        folder,
        described,
        ranks=setting.ranks,
        length=run_length(plans, config),
        batch_size=plans.training.batch_size,
        result=lambda: None if whole_sha256(model, fold) is None else WEIGHTS_FILE,
    )
    lines = [*start_in_words(config, plans, preprocessed)]
    lines += [] if report is None else [f"encoder from {config.init}: {report}"]
    lines += [] if (kept := config.kept_length(asked)) is None else [kept]
    return _Start(setting, fold, model, folder, description, network, lifecycle, tuple(lines))


def can_start(preprocessed: Path, results: Path, *, fold: str, config: TrainingConfig, name: str) -> bool:
    """Whether a fold of a model may be begun or resumed with these choices, as far as what is there may refuse it."""
    dataset = PreprocessedDataset.open(preprocessed)
    plans = effective_plans(dataset.plans, config)
    described = _described(_setting(dataset, plans, fold=fold, config=config, keep=False), fold, config)
    folder = RunFolder(fold_folder(results / name, fold))
    try:
        refuse_other_plans(results / name, fold, plans)
        result = None if whole_sha256(results / name, fold) is None else WEIGHTS_FILE
        described.resuming(described.earlier_in(folder), folder, result=result, length=run_length(plans, config))
    except UserError:
        return False
    return True


def is_done(dataset: PreprocessedDataset, model: Path, *, fold: str, config: TrainingConfig) -> bool:
    """Whether a fold of a model was trained to its end and measured, with these choices, plans and cases."""
    path = RunFolder(fold_folder(model, fold)).run_file
    if not path.exists():
        return False
    try:
        run, weights = RunDescription.read(path), kept_sha256(model, fold)
    except UserError:  # damaged, or of another version
        return False
    config = with_start(config, dataset.plans, dataset.folder)
    plans = effective_plans(dataset.plans, config)
    asked = _described(_setting(dataset, plans, fold=fold, config=config), fold, config)
    same = run.config.model_dump(exclude=MACHINE_OPTIONS) == config.model_dump(exclude=MACHINE_OPTIONS)
    return run.status == "done" and weights is not None and same and run.rests_on == asked.rests_on


def folds_of(dataset: PreprocessedDataset, *, keep: bool = True) -> tuple[Fold, ...]:
    """The folds of a preprocessed data set; made where there are none, and written there with `keep`.

    Raises:
        UserError: `splits_final.json` does not fit the cases.
    """
    return load_or_make_splits(
        dataset.folder, structures=_structures(dataset), groups=read_groups(dataset.folder), keep=keep
    )


def _structures(dataset: PreprocessedDataset) -> dict[str, tuple[str, ...]]:
    """By annotated case, the structures that it has."""
    facts = {case_id: dataset.case(case_id).properties for case_id in dataset.case_ids}
    return {
        i: tuple(n for n, v in properties.voxels_after.items() if v)
        for i, properties in facts.items()
        if properties.annotated
    }


def _setting(
    dataset: PreprocessedDataset, plans: Plans, *, fold: str, config: TrainingConfig, keep: bool = True
) -> _Setting:
    device = select_device(config.device)
    structures = _structures(dataset)
    train, validation = fold_of(
        dataset.folder, fold, structures=structures, groups=read_groups(dataset.folder), keep=keep
    )
    if config.shots is not None:
        train = shots_subset(
            dataset.folder, train, config.shots, seed=config.seed, fold=fold, structures=structures, keep=keep
        )
    for case_id in validation:
        if case_id in train:
            logger.warning("%s is trained on and validated on: its Dice says nothing about other cases.", case_id)
    return _Setting(
        dataset, plans, tuple(train), tuple(validation), device, use_bf16(device, config.precision), Ranks.join(device)
    )


def _described(setting: _Setting, fold: str, config: TrainingConfig) -> RunDescription:
    return RunDescription(
        dataset_name=setting.plans.dataset_name,
        fold=fold,
        config=config,
        plans_sha256=sha256_of_decisions(setting.plans),
        train_cases=setting.train,
        validation_cases=setting.validation,
        image_sha256={c.properties.case_id: c.properties.image_sha256 for c in setting.cases(setting.train)},
        init_sha256=sha256_of_init(config.init),
        planned_steps=planned_steps(setting.plans, config),
        **surroundings(setting.device, bf16=setting.bf16, ranks=setting.ranks.world),
    )


def _initial_network(plans: Plans, config: TrainingConfig, preprocessed: Path) -> tuple[nn.Module, str | None]:
    """The network as training starts, and what was taken from a pretrained encoder."""
    with draws_of(config.seed, "initial weights"):
        network = build_network(
            plans.network, in_channels=len(plans.channel_names), num_outputs=plans.labels.num_outputs
        )
    encoder = getattr(network, "encoder", None)
    if isinstance(encoder, SwinEncoder):
        encoder.recompute = config.recompute
    if config.init is None or config.init == SCRATCH:
        for option, chosen in (("--freeze-epochs", config.freeze_epochs > 0), ("--peft lora", config.peft == "lora")):
            if chosen:
                raise UserError(f"{option}: holds a pretrained encoder still, but none was given. Add --init ENCODER.")
        return network, None
    report = str(load_encoder(network, encoder_path(config.init), remedy=remedy(config, preprocessed)))
    refuse_non_finite(network, config.init)
    if config.peft == "lora":
        with draws_of(config.seed, "low-rank weights"):
            adapt_encoder(cast(SwinEncoder, network.encoder), rank=config.lora_rank)
    return network, report


def _task(start: _Start) -> SegmentationTask:
    """The learning problem; its data are looked at, and nothing is computed."""
    setting, plans, config = start.setting, start.plans, start.lifecycle.run.config
    validation = GridValidation.within_budget(
        setting.cases(setting.validation),
        plans,
        steps=run_length(plans, config).expected,
        device=setting.device,
        bf16=setting.bf16,
        training_cases=setting.cases(training_cases_to_predict(setting.train, setting.validation)),
    )
    return SegmentationTask(
        start.network,
        {case_id: setting.dataset.case(case_id) for case_id in setting.train},
        plans,
        validation=validation,
        ema=config.ema,
        augmentation=config.augmentation,
        loss=config.loss,
        save_best=partial(_save_fold, start),
    )


def _train(start: _Start, run: RunDescription) -> dict[str, Any]:
    """Train, and return the fields of `run.json` that say how it ended."""
    start.network.to(start.setting.device)
    setting, plans, config, run_folder = start.setting, start.plans, run.config, start.folder
    ranks, length = setting.ranks, run_length(plans, config)
    task = _task(start)
    validation = task.validation
    encoder_lr = EncoderLrSchedule(
        config.encoder_lr_scale, config.layer_decay, config.freeze_epochs * length.steps_per_epoch
    )
    engine = Engine(
        task,
        run_folder,
        config=config,
        encoder_lr=encoder_lr,
        shard=config.shards(plans.network.preset),
        activity=f"training fold {run_folder.path.name.removeprefix('fold_')}",
        learning_rate=plans.training.learning_rate,
        length=length,
        device=setting.device,
        ranks=ranks,
        run=run.model_dump(mode="json"),
        after_epoch=partial(
            draw_progress,
            path=run_folder.path / "progress.png",
            title=f"{plans.dataset_name}, {start.model.name}",
        ),
    )
    if ranks.is_main:
        looked_at = len(validation.cases)
        logger.info(
            "%s to train on, %d to validate on%s; %s, loss %s, batch %d, %s, %s",
            counted(len(setting.train), "case"),
            len(validation.all_cases),
            f" ({looked_at} of them while training)" if looked_at < len(validation.all_cases) else "",
            f"{run.parameters / 1e6:.1f} M parameters",
            config.loss,
            plans.training.batch_size,
            setting.device,
            "bf16" if setting.bf16 else "fp32",
        )
    progress = engine.run()
    if ranks.is_main and whole_sha256(start.model, start.fold) is None:
        # Those of the best validation were deleted or damaged after they had been written.
        logger.warning(
            "%s: missing or damaged; the weights of the last step are kept in place of the best ones.",
            run_folder.path / WEIGHTS_FILE,
        )
        task.keep_best()
    return _outcome(progress)


def _save_fold(start: _Start, network: nn.Module) -> None:
    write_fold(start.model, start.fold, merged(network), start.plans, description=start.description)


def training_cases_to_predict(train: Sequence[str], validation: Sequence[str]) -> tuple[str, ...]:
    """Training cases that are predicted after the training, evenly spread; none where enough cases validate."""
    if len(validation) >= ENOUGH_CASES:
        return ()
    return tuple(spread([case for case in train if case not in validation], MOST_TRAINING_CASES))


def predict_training_cases(trained: FineTuned, preprocessed: Path) -> Path:
    """Predict `training_cases_to_predict` with the kept weights, as validation cases are; the folder of the label maps.

    It has these and no others afterwards. They say what such predictions look like, and nothing about other cases.
    """
    dataset, config = PreprocessedDataset.open(preprocessed), trained.run.config
    chosen = training_cases_to_predict(trained.run.train_cases, trained.run.validation_cases)
    folder, device = trained.folder / TRAINING_CASES, select_device(config.device)
    cases = _file_names(dataset, [dataset.case(case_id) for case_id in chosen])
    shutil.rmtree(folder, ignore_errors=True)
    model = TrainedModel.open(trained.model, [trained.run.fold])
    predictor = model.predictor(device, postprocessing=False, bf16=use_bf16(device, config.precision))
    _predict(predictor, cases, folder, "predicting training cases")
    return folder


def _predict_validation(start: _Start, folder: Path) -> dict[str, str]:
    """Predict every validation case with the kept weights, on the grid of its image, in the format of its reference.

    Returns:
        The SHA-256 of each label map, by file name.
    """
    setting, cases = start.setting, _predicted(start.setting)
    model = TrainedModel.open(start.model, [start.fold])
    _predict(model.predictor(setting.device, postprocessing=False, bf16=setting.bf16), cases, folder, "validating")
    return {name: files.sha256_of(folder / name) for name in cases}


def _predict(predictor: Predictor, cases: Mapping[str, PreprocessedCase], folder: Path, activity: str) -> None:
    for name, case in track(cases.items(), activity):
        source_grid = SourceGrid.of(case.properties)
        segmentation = predictor.segment(case.image(), source_grid)
        write_volume(folder / name, segmentation.label_map, source_grid.source)


def _check_references(setting: _Setting) -> None:
    """Check that the reference labels of the cases that are measured are those that were preprocessed.

    Raises:
        UserError: one is missing or another file.
    """
    folder = setting.dataset.folder / REFERENCES
    names = {case_name(path): path for path in images_in(folder)} if folder.is_dir() else {}
    learnt = training_cases_to_predict(setting.train, setting.validation)
    for case in setting.cases([*setting.validation, *learnt]):
        case_id, expected = case.properties.case_id, case.properties.input_sha256.get("label")
        if not case.properties.annotated:
            continue
        path = names.get(case_id)
        if path is None or (expected is not None and files.sha256_of(path) != expected):
            what = "missing" if path is None else "not the label that was preprocessed"
            raise UserError(
                f"{path or folder / case_id}: {what}. Run swinssl_preprocess {setting.plans.dataset_name}: it copies "
                "the label again."
            )


def _predicted(setting: _Setting) -> dict[str, PreprocessedCase]:
    """The validation cases that are predicted, by the file name of their label maps."""
    return _file_names(setting.dataset, setting.cases(setting.validation))


def _file_names(dataset: PreprocessedDataset, cases: Sequence[PreprocessedCase]) -> dict[str, PreprocessedCase]:
    """The annotated ones of the cases, by the file name of their reference."""
    names = {case_name(path): path.name for path in images_in(dataset.folder / REFERENCES)}
    return {names[case.properties.case_id]: case for case in cases if case.properties.annotated}


def _are_as_written(setting: _Setting, predictions: Path | None, sha256: Mapping[str, str]) -> bool:
    """Whether the label maps of the validation cases are there as they were written."""
    if predictions is None:
        return True
    paths = [predictions / name for name in _predicted(setting)]
    return all(path.is_file() and files.sha256_of(path) == sha256.get(path.name) for path in paths)


def _outcome(progress: Progress) -> dict[str, Any]:
    validated = progress.validations > 0
    return {
        "steps": progress.step,
        "best_epoch": progress.best_epoch if validated else None,
        "best_score": progress.best_score if validated else None,
        "seconds": round(progress.seconds, 1),
    }
