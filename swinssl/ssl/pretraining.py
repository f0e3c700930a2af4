"""Pretrain an encoder: from preprocessed data sets to `encoder.safetensors` and the record of its run."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, Field

from swinssl.core.devices import autocast, select_device, use_bf16
from swinssl.core.errors import UserError
from swinssl.core.pictures import spare_the_run
from swinssl.core.text import dimensions
from swinssl.networks.checkpoints.encoder_file import EncoderRecord, write_encoder
from swinssl.networks.checkpoints.encoder_transfer import load_encoder
from swinssl.networks.checkpoints.shipped_encoders import encoder_path
from swinssl.networks.network_plan import PRESETS, SwinEncoderPlan, encoder_preset
from swinssl.networks.swin.encoder import DIVISOR, SwinEncoder
from swinssl.planning.encoder_facts import encoder_name, read_encoder_facts
from swinssl.ssl.config import EPOCHS, LEARNING_RATE, PretrainingConfig
from swinssl.ssl.method import Images, Method
from swinssl.ssl.methods.registry import load_method
from swinssl.ssl.parts.crops import CropSampler
from swinssl.ssl.parts.pretext_network import PretextNetwork
from swinssl.ssl.picture import draw_picture
from swinssl.ssl.pretext_task import PretextTask
from swinssl.ssl.probe import Probe
from swinssl.ssl.sources import Sources
from swinssl.training.effective_plans import length_of
from swinssl.training.engine.distribution import Ranks
from swinssl.training.engine.lifecycle import RunLifecycle
from swinssl.training.engine.loop import Engine
from swinssl.training.engine.progress import Length
from swinssl.training.engine.run_description import EngineRun, sha256_of_init, surroundings
from swinssl.training.engine.run_folder import RunFolder
from swinssl.training.initial_weights import draws_of, refuse_non_finite
from swinssl.training.progress_picture import draw_progress

logger = logging.getLogger(__name__)

ENCODER, BEST, PICTURE = "encoder.safetensors", "encoder_best.safetensors", "learnt.png"
# Between two lines of the log, however many volumes there are.
MOST_STEPS_PER_EPOCH = 100
# Between two pictures of the curves, and of what was learnt, with the encoder as it is then: epochs may be short.
CURVES_SECONDS, PICTURE_SECONDS = 10.0, 60.0
# Fields of `run.json` that say how a run ended.
OUTCOME = {"steps", "seconds", "images_per_second", "best_score", "best_epoch", "unreadable", "ended"}


@dataclass(frozen=True)
class Pretrained:
    """A finished run: its folder, what `run.json` says, and whether this process is the one that speaks."""

    folder: Path
    run: PretrainingRun
    first_rank: bool

    @property
    def encoder(self) -> Path:
        """As the run left it."""
        return self.folder / ENCODER

    @property
    def best(self) -> Path:
        """The one that the probe found best; it is there if there was a probe."""
        return self.folder / BEST


@dataclass(frozen=True)
class PretrainingPlan:
    """What a run is made of, before anything is computed.

    Args:
        method: the pretext task with its options.
        sources: volumes.
        images: of the crops.
        sampler: draws them.
        encoder: its form.
        preset: name of its size, if it has one.
        batch_size: samples a step over all ranks.
        length: of the run.
        probe: says what the encoder is worth, if that was asked for.
    """

    method: Method
    sources: Sources
    images: Images
    sampler: CropSampler
    encoder: SwinEncoderPlan
    preset: str | None
    batch_size: int
    length: Length
    probe: Probe | None


def default_folder(method: str, names: Sequence[str], config: PretrainingConfig) -> str:
    """The run's folder name where the user gives none: method, size, data sets, and what else tells runs apart."""
    parts = [method, *([config.preset] if config.preset else []), names[0]]
    parts[-1] += f"+{len(names) - 1}" if len(names) > 1 else ""
    parts += [f"from_{encoder_name(Path(config.init))}"] if config.init != "scratch" else []
    parts += [f"{config.cases}cases"] if config.cases else []
    parts += [f"seed{config.seed}"] if config.seed else []
    return "__".join(parts)


def plan_pretraining(
    method: str,
    preprocessed: Sequence[Path],
    *,
    config: PretrainingConfig,
    options: BaseModel,
    probe: Path | None = None,
) -> PretrainingPlan:
    """What a run would be; nothing is written. Arguments as of `pretrain`.

    Raises:
        UserError: something that the user gave does not fit.
    """
    sources = Sources.open(preprocessed, weights=config.weights, cases=config.cases, seed=config.seed)
    first = sources.plans[0]
    encoder, preset, patch = first.network.encoder, first.network.preset, first.patch_size
    if config.preset is not None:
        encoder, preset = encoder_preset(config.preset), config.preset
    if config.init != "scratch":
        facts = read_encoder_facts(encoder_path(config.init))
        if facts.encoder is not None:
            encoder, preset = facts.encoder, facts.preset or ""
    patch = config.patch or patch
    if any(edge < 1 or edge % DIVISOR for edge in patch):
        raise UserError(f"--patch {' '.join(map(str, patch))}: expected multiples of {DIVISOR}.")
    images = Images(patch, first.spacing, len(first.channel_names))
    method_class = load_method(method)
    sampler = CropSampler(sources.volumes, images, views=method_class.views, context=config.context)
    images = replace(images, mean=sampler.mean_intensity(seed=config.seed))
    pretext = method_class(options, images)
    batch_size = config.batch_size or max(first.training.batch_size, pretext.least_batch)
    if batch_size // config.accumulate < pretext.least_batch:
        raise UserError(
            f"--batch-size {batch_size} in {config.accumulate} parts: {method} compares samples with each other and "
            f"needs {pretext.least_batch} in each part at least. Give a larger --batch-size or a smaller --accumulate."
        )
    # An epoch is as many samples as there are volumes; for the log it is cut where that is long.
    epochs, whole = config.epochs or EPOCHS, max(1, round(len(sources.volumes) / batch_size))
    per_epoch = min(whole, MOST_STEPS_PER_EPOCH)
    length = length_of(
        config, epochs=max(1, round(epochs * whole / per_epoch)), steps_per_epoch=per_epoch, step_seconds=None
    )
    probed = None if probe is None else Probe.open(probe, images, cases=config.probe_cases)
    return PretrainingPlan(
        pretext,
        sources,
        images,
        sampler,
        encoder,
        preset if preset in PRESETS else None,
        batch_size,
        length,
        probed,
    )


def pretrain(
    method: str,
    preprocessed: Sequence[Path],
    folder: Path,
    *,
    config: PretrainingConfig,
    options: BaseModel,
    probe: Path | None = None,
    restart: bool = False,
) -> Pretrained:
    """Run a pretext task to its end; goes on where an earlier call was stopped.

    Writes `encoder.safetensors` (and, as JSON beside it, what it is), `run.json`, `log.jsonl`, `progress.png` and
    `learnt.png`; encoder and picture also as training goes. With a probe `encoder_best.safetensors` is the encoder
    that it found best.

    Args:
        method: name of the pretext task.
        preprocessed: `<root>/preprocessed/<name>` of one or several data sets.
        folder: of the run.
        options: of the method.
        probe: preprocessed data set with labels, of `config.probe`.
        restart: put an earlier run in this folder aside (`old_<folder>_<n>`) and begin anew.

    Raises:
        UserError: something that the user gave does not fit.
        Interrupted: someone asked to stop; everything is saved.
    """
    asked = config
    config = config if restart else _with_kept_length(config, folder)
    start = _checked(method, preprocessed, folder, config=config, options=options, probe=probe)
    life = start.lifecycle
    if life.is_main and (kept := config.kept_length(asked)) is not None:
        logger.info("%s", kept)
    with life.begin(restart=restart):
        if life.closed:
            logger.info("%s: pretrained before", folder)
        life.run = life.run.finish("done", **life.train(partial(_train, start), outcome=OUTCOME))
        life.write()
    return Pretrained(folder, life.run, life.is_main)


def check_start(
    method: str,
    preprocessed: Sequence[Path],
    folder: Path,
    *,
    config: PretrainingConfig,
    options: BaseModel,
    probe: Path | None = None,
    restart: bool = False,
) -> PretrainingPlan:
    """Run every check that `pretrain` makes before its first step, and write nothing; what the run would be.

    Raises:
        UserError: as `pretrain` would.
    """
    config = config if restart else _with_kept_length(config, folder)
    start = _checked(method, preprocessed, folder, config=config, options=options, probe=probe)
    start.lifecycle.check(restart=restart)
    return start.plan


def _with_kept_length(config: PretrainingConfig, folder: Path) -> PretrainingConfig:
    return PretrainingRun.keep_length(config, RunFolder(folder), result=folder / ENCODER)


@dataclass(frozen=True)
class _Start:
    """A run that passed all checks for which its folder is not needed."""

    plan: PretrainingPlan
    folder: RunFolder
    network: PretextNetwork
    device: torch.device
    bf16: bool
    ranks: Ranks
    lifecycle: RunLifecycle[PretrainingRun]


def _checked(
    method: str,
    preprocessed: Sequence[Path],
    folder: Path,
    *,
    config: PretrainingConfig,
    options: BaseModel,
    probe: Path | None,
) -> _Start:
    plan = plan_pretraining(method, preprocessed, config=config, options=options, probe=probe)
    device = select_device(config.device)
    bf16, ranks = use_bf16(device, config.precision), Ranks.join(device)
    network, report = _initial_network(plan, config)
    run = _described(plan, config, options, device=device, bf16=bf16, ranks=ranks).model_copy(
        update={"init_report": report, "parameters": sum(p.numel() for p in network.parameters())}
    )
    run_folder = RunFolder(folder, folder_option=PretrainingRun.folder_option)
    lifecycle = RunLifecycle(
        run_folder,
        run,
        ranks=ranks,
        length=plan.length,
        batch_size=plan.batch_size,
        result=lambda: ENCODER if (folder / ENCODER).is_file() else None,
    )
    return _Start(plan, run_folder, network, device, bf16, ranks, lifecycle)


def _described(
    plan: PretrainingPlan,
    config: PretrainingConfig,
    options: BaseModel,
    *,
    device: torch.device,
    bf16: bool,
    ranks: Ranks,
) -> PretrainingRun:
    # Not on the mean: it starts a run, and is another one where a volume can no longer be read.
    images = {name: value for name, value in vars(plan.images).items() if name != "mean"}
    rests_on = [plan.encoder.model_dump(), images, plan.batch_size]
    return PretrainingRun(
        method=plan.method.name,
        options=options.model_dump(),
        config=config,
        datasets=tuple(plans.dataset_name for plans in plan.sources.plans),
        volumes=tuple(volume.name for volume in plan.sources.volumes),
        unreadable=plan.sources.unreadable,
        plans_sha256=hashlib.sha256(json.dumps(rests_on, sort_keys=True).encode()).hexdigest(),
        image_sha256=plan.sources.image_sha256,
        init_sha256=sha256_of_init(config.init),
        planned_steps=plan.length.steps,
        **surroundings(device, bf16=bf16, ranks=ranks.world),
    )


def _initial_network(plan: PretrainingPlan, config: PretrainingConfig) -> tuple[PretextNetwork, str | None]:
    """The network as pretraining starts; the encoder is the same whatever the method."""
    with draws_of(config.seed, "initial weights"):
        encoder = SwinEncoder(plan.encoder, in_channels=plan.images.channels)
    encoder.recompute = config.recompute
    method = plan.method
    with draws_of(config.seed, "initial heads"):
        network = PretextNetwork(encoder, method.heads(encoder), masks=method.masks, feature_level=method.feature_level)
    if config.init == "scratch":
        return network, None
    report = str(load_encoder(network, encoder_path(config.init)))
    refuse_non_finite(network, config.init)
    logger.info("encoder from %s: %s", config.init, report)
    return network, report


def _train(start: _Start, run: PretrainingRun) -> dict[str, Any]:
    """Train, and return the fields of `run.json` that say how it ended."""
    plan, run_folder, network, config = start.plan, start.folder, start.network, run.config
    device, bf16, ranks = start.device, start.bf16, start.ranks
    network.to(device)
    method = plan.method
    task = PretextTask(
        network,
        method,
        plan.sampler,
        batch_size=plan.batch_size,
        save_best=partial(_save_encoder, run_folder.path / BEST, plan),
        probe=plan.probe,
        is_main=ranks.is_main,
    )
    save = partial(_save_encoder, run_folder.path / ENCODER, plan)
    title = f"{method.name}: {', '.join(plans.dataset_name for plans in plan.sources.plans)}"
    show = _Show(task, run_folder.path, save=save, seed=config.seed, title=title, device=device, bf16=bf16)
    engine = Engine(
        task,
        run_folder,
        config=config,
        learning_rate=config.lr or LEARNING_RATE,
        length=plan.length,
        device=device,
        ranks=ranks,
        shard=config.shards(plan.preset),
        activity=f"pretraining ({method.name})",
        run=run.model_dump(mode="json"),
        after_epoch=show,
    )
    if ranks.is_main:
        logger.info(
            "%d volumes, crops of %s; encoder %.1f M parameters and heads %.1f M, batch %d, %s, %s",
            len(plan.sources.volumes),
            dimensions(plan.images.patch_size),
            sum(p.numel() for p in network.encoder.parameters()) / 1e6,
            sum(p.numel() for p in network.heads.parameters()) / 1e6,
            plan.batch_size,
            device,
            "bf16" if bf16 else "fp32",
        )
    progress = engine.run()
    if ranks.is_main:
        show.curves(run_folder.read_log())
        show.picture()
        save(task.best_network.encoder)
    crops, validated = progress.step * plan.batch_size, progress.validations > 0
    return {
        "steps": progress.step,
        "seconds": round(progress.seconds, 1),
        "images_per_second": round(crops / progress.seconds, 2) if progress.seconds > 0 else None,
        "best_score": progress.best_score if validated else None,
        "best_epoch": progress.best_epoch if validated else None,
        "unreadable": {**plan.sources.unreadable, **plan.sampler.damaged},
    }


class _Show:
    """After an epoch, but not too often: the curves, the encoder so far and the picture of what it has learnt."""

    def __init__(
        self,
        task: PretextTask,
        folder: Path,
        *,
        save: Callable[[SwinEncoder], None],
        seed: int,
        title: str,
        device: torch.device,
        bf16: bool,
    ) -> None:
        self.task, self.folder, self.save, self.seed, self.title = task, folder, save, seed, title
        self.device, self.bf16 = device, bf16
        self.drawn_at = self.shown_at = time.monotonic()

    def __call__(self, log: list[dict[str, Any]]) -> None:
        if time.monotonic() - self.drawn_at > CURVES_SECONDS:
            self.curves(log)
        if time.monotonic() - self.shown_at > PICTURE_SECONDS:
            self.picture()
            self.save(self.task.best_network.encoder)

    def curves(self, log: list[dict[str, Any]]) -> None:
        draw_progress(log, self.folder / "progress.png", title=self.title, score="Dice of the frozen probe")
        self.drawn_at = time.monotonic()

    def picture(self) -> None:
        with spare_the_run(self.folder / PICTURE), autocast(self.device, bf16=self.bf16):
            draw_picture(self.task, self.folder / PICTURE, seed=self.seed, title=self.title)
        self.shown_at = time.monotonic()


def _save_encoder(path: Path, plan: PretrainingPlan, encoder: SwinEncoder) -> None:
    intensity = plan.sources.intensity
    record = EncoderRecord(
        encoder=plan.encoder,
        preset=plan.preset,
        axis_order=plan.encoder.axis_order,
        in_channels=plan.images.channels,
        source=f"swinssl {plan.method.name}",
        spacing=plan.images.spacing,
        patch_size=plan.images.patch_size,
        intensity=None if intensity is None else intensity.model_dump(mode="json"),
    )
    write_encoder(path, encoder.state_dict(), record)


class PretrainingRun(EngineRun):
    """One pretraining run.

    Args:
        method: name of the pretext task.
        options: its own choices.
        datasets: names of the data sets.
        volumes: `<data set>/<case>` that crops were drawn from.
        unreadable: those that could not be read, with the reason.
        plans_sha256: of the encoder, the grid and the crop that the run rests on.
        images_per_second: samples over the whole run, all sittings.
        best_score: highest mean Dice of the frozen probe, and the epoch that it was in.
    """

    folder_option: ClassVar[str] = "--out"
    planned: ClassVar[frozenset[str]] = frozenset({"batch_size", "preset", "patch"})

    config: PretrainingConfig
    method: str
    options: dict[str, Any]
    datasets: tuple[str, ...]
    volumes: tuple[str, ...]
    unreadable: dict[str, str] = Field(default_factory=dict)
    plans_sha256: str
    images_per_second: float | None = None
    best_score: float | None = None
    best_epoch: int | None = None

    @property
    def choices(self) -> dict[str, Any]:
        return {**super().choices, "method": self.method, **self.options}

    @property
    def rests_on(self) -> dict[str, object]:
        return {"encoder, grid or crop": self.plans_sha256, "volumes": self.volumes}
