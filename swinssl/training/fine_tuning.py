"""Fine-tune one fold of a preprocessed data set: from its cases and plans to a trained model and its predictions."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from swinssl import files
from swinssl.dataset.case_names import case_name
from swinssl.dataset.case_tables import read_groups
from swinssl.dataset.splits import Fold, fold_of, load_or_make_splits, shots_subset
from swinssl.devices import select_device, use_bf16
from swinssl.errors import Interrupted, UserError
from swinssl.imageio.endings import images_in
from swinssl.imageio.writer import write_volume
from swinssl.inference.predictor import Predictor
from swinssl.inference.trained_model import TrainedModel, fold_folder, kept_sha256, refuse_other_plans, write_fold
from swinssl.inference.way_back import WayBack
from swinssl.networks.build import build_network
from swinssl.networks.encoder_transfer import load_encoder
from swinssl.networks.low_rank import adapt_encoder, merged
from swinssl.networks.shipped_encoders import encoder_path
from swinssl.networks.swin_encoder import SwinEncoder
from swinssl.preprocessing.encoder_facts import encoder_name
from swinssl.preprocessing.plans import Plans
from swinssl.preprocessing.store import REFERENCES, PreprocessedCase, PreprocessedDataset
from swinssl.progress import track
from swinssl.training.config import TrainingConfig
from swinssl.training.distribution import Ranks
from swinssl.training.effective_plans import effective_plans, run_length
from swinssl.training.engine import Engine, Progress
from swinssl.training.grid_validation import GridValidation
from swinssl.training.initial_weights import draws_of
from swinssl.training.optimiser import EncoderPace
from swinssl.training.progress_picture import draw_progress
from swinssl.training.run_description import RunDescription, sha256_of_init, surroundings
from swinssl.training.run_folder import RunFolder, put_aside
from swinssl.training.segmentation_task import SegmentationTask
from swinssl.training.start import SCRATCH, remedy, start_in_words, with_start

logger = logging.getLogger(__name__)

VALIDATION = "validation"


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
        references: folder with their labels.
        labels_present: per validation case, the structures that were annotated; all of them where it is not listed.
        first_rank: whether this process is the one that writes and speaks.
        done_before: an earlier call trained all of it, and measured these predictions.
    """

    model: Path
    folder: Path
    plans: Plans
    run: RunDescription
    predictions: Path | None
    references: Path
    labels_present: dict[str, tuple[str, ...]]
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


def default_name(plans: Plans, config: TrainingConfig) -> str:
    """The model's name where the user gives none: network, start, and what else tells runs of one data set apart.

    Args:
        config: with its start decided (`with_start`).
    """
    network = plans.network.preset if plans.network.architecture == "swin" else plans.network.architecture
    parts = [network, SCRATCH if config.init in (None, SCRATCH) else encoder_name(Path(config.init))]
    parts += ["lora"] if config.peft == "lora" else []
    parts += [f"{config.shots}shots"] if config.shots else []
    parts += [f"seed{config.seed}"] if config.seed else []
    return "__".join(parts)


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
    dataset = PreprocessedDataset.open(preprocessed)
    config = with_start(config, dataset.plans, preprocessed)
    plans = effective_plans(dataset.plans, config)
    setting = _setting(dataset, plans, fold=fold, config=config)
    model = results / (name or default_name(plans, config))
    folder = fold_folder(model, fold)
    if restart:
        if setting.ranks.first:
            put_aside(folder)
        setting.ranks.meet()
    refuse_other_plans(model, fold, plans)
    own = RunFolder(folder)
    with own if setting.ranks.first else nullcontext(own) as run_folder:
        earlier = RunDescription.read(run_folder.run_file) if run_folder.run_file.exists() else None
        weights_before = kept_sha256(model, fold)
        run = _described(setting, fold, config).going_on_at(run_folder.run_file)
        description = files.read_json(preprocessed / "dataset.json", what="description", remedy="Run swinssl_plan.")
        keep = partial(_keep, model, fold, plans, description)
        if setting.ranks.first:
            for line in start_in_words(config, plans, preprocessed):
                logger.info("%s", line)
        network, report = _initial_network(plans, config, preprocessed)
        run = run.model_copy(update={"init_report": report, "parameters": sum(p.numel() for p in network.parameters())})
        if setting.ranks.first:
            run.write(run_folder.run_file)
        try:
            progress = _train(setting, network, run_folder, config, keep, title=f"{plans.dataset_name}, {model.name}")
        except Interrupted:
            if setting.ranks.first:
                run.ended_as("stopped").write(run_folder.run_file)
            raise
        run = run.model_copy(update=_outcome(progress))
        predictions, done_before = None, False
        if setting.ranks.first:
            predictions = folder / VALIDATION if setting.validation else None
            same_weights = weights_before is not None and weights_before == kept_sha256(model, fold)
            if earlier is not None and earlier.status == "done" and same_weights and _all_there(setting, predictions):
                done_before = True
                logger.info("%s: trained and measured before", folder)
                run = run.ended_as("done", ended=earlier.ended, final_dice=earlier.final_dice)
            run.write(run_folder.run_file)
            if predictions is not None and not done_before:
                _predict_validation(setting, model, fold, predictions)
    annotated = {c.properties.case_id: c.properties.labels_present for c in setting.cases(setting.validation)}
    return FineTuned(
        model,
        folder,
        plans,
        run,
        predictions,
        preprocessed / REFERENCES,
        {case_id: names for case_id, names in annotated.items() if names is not None},
        setting.ranks.first,
        done_before,
    )


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
    no_matter = {"device", "readers"}
    same = run.config.model_dump(exclude=no_matter) == config.model_dump(exclude=no_matter)
    return run.status == "done" and weights is not None and same and run.rests_on == asked.rests_on


def folds_of(dataset: PreprocessedDataset) -> tuple[Fold, ...]:
    """The folds of a preprocessed data set; made and kept where there are none.

    Raises:
        UserError: `splits_final.json` does not fit the cases.
    """
    return load_or_make_splits(dataset.folder, structures=_structures(dataset), groups=read_groups(dataset.folder))


def _structures(dataset: PreprocessedDataset) -> dict[str, tuple[str, ...]]:
    """By annotated case, the structures that it has."""
    facts = {case_id: dataset.case(case_id).properties for case_id in dataset.case_ids}
    return {i: tuple(n for n, v in own.voxels_after.items() if v) for i, own in facts.items() if own.annotated}


def _setting(dataset: PreprocessedDataset, plans: Plans, *, fold: str, config: TrainingConfig) -> _Setting:
    device = select_device(config.device)
    structures = _structures(dataset)
    train, validation = fold_of(dataset.folder, fold, structures=structures, groups=read_groups(dataset.folder))
    if config.shots is not None:
        train = shots_subset(dataset.folder, train, config.shots, seed=config.seed, fold=fold, structures=structures)
    for case_id in validation:
        if case_id in train:
            logger.warning("%s is trained on and validated on: its Dice says nothing about other cases.", case_id)
    return _Setting(
        dataset, plans, tuple(train), tuple(validation), device, use_bf16(device, config.precision), Ranks.join(device)
    )


def _described(setting: _Setting, fold: str, config: TrainingConfig) -> RunDescription:
    decisions = setting.plans.model_dump(mode="json", exclude={"reasons", "cost"})
    return RunDescription(
        dataset_name=setting.plans.dataset_name,
        fold=fold,
        config=config,
        plans_sha256=hashlib.sha256(json.dumps(decisions, sort_keys=True).encode()).hexdigest(),
        train_cases=setting.train,
        validation_cases=setting.validation,
        image_sha256={c.properties.case_id: c.properties.image_sha256 for c in setting.cases(setting.train)},
        init_sha256=sha256_of_init(config.init),
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
    logger.info("encoder from %s: %s", config.init, report)
    if config.peft == "lora":
        with draws_of(config.seed, "low-rank weights"):
            adapt_encoder(cast(SwinEncoder, network.encoder), rank=config.lora_rank)
    return network, report


def _train(
    setting: _Setting, network: nn.Module, run_folder: RunFolder, config: TrainingConfig, keep: Any, *, title: str
) -> Progress:
    plans, ranks = setting.plans, setting.ranks
    length = run_length(plans, config)
    network.to(setting.device)
    validation = GridValidation.within_budget(
        setting.cases(setting.validation), plans, steps=length.expected, device=setting.device, bf16=setting.bf16
    )
    task = SegmentationTask(
        network,
        {case_id: setting.dataset.case(case_id) for case_id in setting.train},
        plans,
        validation=validation,
        ema=config.ema,
        augmentation=config.augmentation,
        keep=keep,
    )
    pace = EncoderPace(config.encoder_lr_scale, config.layer_decay, config.freeze_epochs * length.steps_per_epoch)
    engine = Engine(
        task,
        run_folder,
        config=config,
        pace=pace,
        shard=config.shards(plans.network.preset),
        activity=f"training fold {run_folder.path.name.removeprefix('fold_')}",
        learning_rate=plans.training.learning_rate,
        length=length,
        device=setting.device,
        ranks=ranks,
        after_epoch=partial(draw_progress, path=run_folder.path / "progress.png", title=title),
    )
    if ranks.first:
        looked_at = len(validation.cases)
        logger.info(
            "%d cases to train on, %d to validate on%s; %s, batch %d, %s, %s",
            len(setting.train),
            len(validation.all_cases),
            f" ({looked_at} of them while training)" if looked_at < len(validation.all_cases) else "",
            f"{sum(p.numel() for p in network.parameters()) / 1e6:.1f} M parameters",
            plans.training.batch_size,
            setting.device,
            "bf16" if setting.bf16 else "fp32",
        )
    return engine.run()


def _keep(model: Path, fold: str, plans: Plans, description: dict[str, Any], network: nn.Module) -> None:
    write_fold(model, fold, merged(network), plans, description=description)


def _predict_validation(setting: _Setting, model: Path, fold: str, folder: Path) -> None:
    """Predict every validation case with the kept weights, on the grid of its image, in the format of its reference."""
    kept = TrainedModel.open(model, [fold])
    predictor = Predictor.of(kept.networks(setting.device), setting.plans, device=setting.device, bf16=setting.bf16)
    for name, case in track(_predicted(setting).items(), "validating"):
        way_back = WayBack.of(case.properties)
        found = predictor.segment(case.image(), way_back)
        write_volume(folder / name, found.label_map, way_back.source)


def _predicted(setting: _Setting) -> dict[str, PreprocessedCase]:
    """The validation cases that are predicted, by the file name of their label maps."""
    names = {case_name(path): path.name for path in images_in(setting.dataset.folder / REFERENCES)}
    annotated = [case for case in setting.cases(setting.validation) if case.properties.annotated]
    return {names[case.properties.case_id]: case for case in annotated}


def _all_there(setting: _Setting, predictions: Path | None) -> bool:
    return predictions is None or all((predictions / name).is_file() for name in _predicted(setting))


def _outcome(progress: Progress) -> dict[str, Any]:
    validated = progress.validations > 0
    return {
        "steps": progress.step,
        "best_epoch": progress.best_epoch if validated else None,
        "best_score": progress.best_score if validated else None,
        "seconds": round(progress.seconds, 1),
    }
