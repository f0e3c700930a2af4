"""Running one cell: ordinary commands in processes of their own, then what they came to in the cell's folder."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import IO, Any

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.core.text import csv_records, csv_text
from swinssl.dataset.splits import Fold
from swinssl.evaluation.comparison.convergence import LOG_FILE
from swinssl.evaluation.summary import METRICS_FILE
from swinssl.experiments.benchmark.cells import ComparisonCell, PretrainingCell, TrainingCell
from swinssl.experiments.benchmark.commands import run_swinssl
from swinssl.experiments.benchmark.config import ALL, BASELINES, Init
from swinssl.experiments.benchmark.result_tables import ScoreRow
from swinssl.experiments.benchmark.study import REMEDY, Benchmark, comparison_result
from swinssl.experiments.peers.nnunet_side import LEFT_RIGHT, PEER_PLANS, NnunetSide
from swinssl.networks.checkpoints.encoder_file import (
    FIRST_KERNEL,
    EncoderRecord,
    read_encoder_header,
    write_encoder,
)
from swinssl.preprocessing.plans import Plans
from swinssl.training.engine.run_folder import RunFolder

# More epochs than any run has: the encoder is never trained.
FOREVER = 1_000_000


def prepare_pretraining(benchmark: Benchmark, log: IO[str]) -> None:
    """Plan and preprocess everything that is pretrained on, and what the frozen probe reads; quick where it is done.

    Raises:
        subprocess.CalledProcessError: a command failed; it has said why.
    """
    config = benchmark.config
    inits = [init for init in config.inits.values() if init.method is not None]
    names = dict.fromkeys(dataset for init in inits for dataset in config.datasets_of(init))
    if config.pretraining.probe is not None:
        names[config.pretraining.probe] = None
    where = ["--root", benchmark.pretraining_data]
    for name in names:
        raw = benchmark.raw(name).source
        run_swinssl("plan", raw, *where, "--device", benchmark.device, *config.pretraining.plan, log=log)
        run_swinssl("preprocess", raw, *where, log=log)


def run_pretraining(benchmark: Benchmark, cell: PretrainingCell, log: IO[str]) -> None:
    """Pretrain an encoder, or go on where that was stopped.

    Raises:
        subprocess.CalledProcessError: the command failed; it has said why.
        KeyboardInterrupt: it was stopped.
    """
    config, init, place = benchmark.config, benchmark.config.inits[cell.init], benchmark.place(cell)
    options: list[object] = [*config.pretraining.options, *init.options]
    options += ["--cases", init.cases] if init.cases is not None else []
    options += ["--seed", cell.seed] if cell.seed is not None else []
    if config.pretraining.probe is not None:
        options += ["--probe", benchmark.raw(config.pretraining.probe).name]
    datasets = [benchmark.raw(dataset).name for dataset in config.datasets_of(init)]
    where = ["--root", benchmark.pretraining_data, "--out", place / "run", "--device", benchmark.device]
    run_swinssl(f"pretrain_{init.method}", *datasets, *where, *options, log=log)
    run = files.read_json(place / "run" / "run.json", what="run description", remedy=REMEDY)
    benchmark.keep(
        cell, minutes=run["seconds"] / 60, steps=run["steps"], volumes=len(run["volumes"]), device=run["device"]
    )
    _forget_checkpoints(place / "run")


def run_training(benchmark: Benchmark, cell: TrainingCell, log: IO[str]) -> None:
    """Train, predict the test cases and measure them, or go on where that was stopped.

    Raises:
        UserError: a peer is asked for and cannot be had.
        subprocess.CalledProcessError: a command failed; it has said why.
        KeyboardInterrupt: it was stopped.
    """
    workspace, init, place = benchmark.tasks[cell.task], benchmark.config.inits[cell.init], benchmark.place(cell)
    began_with = benchmark.settings(cell)
    predictions, facts = (_peer if init.is_peer else _ours)(benchmark, cell, log)
    evaluation = place / "evaluation"
    what = ["-p", predictions, "-r", workspace.test_labels, "--images", workspace.test_images]
    run_swinssl("evaluate", *what, "--dataset", workspace.test_description, "--out", evaluation, log=log)
    about = {
        "model": cell.init,
        "seed": cell.seed,
        "task": cell.task,
        "modality": workspace.task.modality,
        "shots": cell.shots,
        "volumes": _volumes(benchmark, cell),
        "parameters": facts.pop("parameters"),
    }
    patients = {case.id: case.group or "" for case in workspace.cases.test}
    if benchmark.settings(cell) != began_with:
        raise UserError(f"{cell.key}: its encoder was replaced while it was trained. Delete {place} and rerun.")
    scores = _scores(evaluation / METRICS_FILE, about, patients)
    benchmark.keep(cell, scores, predictions=os.path.relpath(predictions, benchmark.folder), **facts)
    if not init.is_peer:
        _forget_checkpoints(benchmark.folder / facts["training"])


def run_comparison(benchmark: Benchmark, cell: ComparisonCell, log: IO[str]) -> None:
    """What fine-tuning did to the encoder, on the test cases of its task, which neither has seen.

    Raises:
        subprocess.CalledProcessError: the command failed; it has said why.
        KeyboardInterrupt: it was stopped.
    """
    workspace, place, began = benchmark.tasks[cell.trained.task], benchmark.place(cell), time.monotonic()
    encoder = benchmark.encoder(cell.init, cell.seed)
    assert encoder is not None  # else there is no such cell
    seen, channels = read_encoder_header(encoder)[1][FIRST_KERNEL][1], len(workspace.raw.channel_names)
    if seen != channels:  # it took the images' kernels on when it was fine-tuned
        benchmark.keep(cell, minutes=0.0, left_out=f"the encoder sees {seen} channels, the images have {channels}")
        return
    fold = benchmark.folder / (benchmark.record(cell.trained) or {})["training"]
    where = ["--root", workspace.test, "--data", workspace.raw.name, "--device", benchmark.device, "--out", place]
    run_swinssl("cka", encoder, fold, *where, *(benchmark.config.cka or ()), log=log)
    benchmark.keep(cell, minutes=(time.monotonic() - began) / 60, **comparison_result(place))


def _ours(benchmark: Benchmark, cell: TrainingCell, log: IO[str]) -> tuple[Path, dict[str, Any]]:
    """Where the predictions are, and what is known of the run."""
    workspace, init = benchmark.tasks[cell.task], benchmark.config.inits[cell.init]
    name = f"{cell.init}_{cell.run.replace('/', '_')}"
    few = [] if cell.shots == ALL else ["--shots", cell.shots]
    where = ["--root", workspace.root, "--name", name, "--fold", 0, "--seed", cell.seed, "--device", benchmark.device]
    start = _start(benchmark, init, cell)
    run_swinssl("train", workspace.dataset, *where, *few, *start, *workspace.task.train, *init.train, log=log)
    fold = workspace.root / "results" / workspace.raw.name / name / "fold_0"
    predictions = benchmark.place(cell) / "predictions"
    # Networks are compared, and what post-processing adds depends on the cases that chose it.
    what = [
        "-i",
        workspace.test_images,
        "-o",
        predictions,
        "-m",
        fold,
        "--device",
        benchmark.device,
        "--no-postprocessing",
    ]
    run_swinssl("predict", *what, *workspace.task.predict, log=log)
    run = files.read_json(fold / "run.json", what="run description", remedy=REMEDY)
    shutil.copyfile(fold / LOG_FILE, benchmark.place(cell) / LOG_FILE)
    return predictions, {
        "minutes": run["seconds"] / 60,
        "steps": run["steps"],
        "device": run["device"],
        "parameters": run["parameters"] / 1e6,
        "training": os.path.relpath(fold, benchmark.folder),
        "train_cases": run["train_cases"],
        "validation_cases": run["validation_cases"],
    }


def _forget_checkpoints(run: Path) -> None:
    """Remove what only going on would need, several times the weights: a cell that is done is not gone on with."""
    shutil.rmtree(RunFolder(run).checkpoints, ignore_errors=True)


def _start(benchmark: Benchmark, init: Init, cell: TrainingCell) -> list[object]:
    encoder = benchmark.encoder(cell.init, cell.seed)
    if encoder is not None:
        return ["--init", encoder]
    if init.start in BASELINES:
        return ["--network", init.start]
    if init.start != "zeroed":
        return ["--init", "scratch"]
    workspace = benchmark.tasks[cell.task]
    path = workspace.root / "zeroed.safetensors"
    if not path.is_file():
        write_zeroed_encoder(path, workspace.plans)
    return ["--init", path, "--freeze-epochs", FOREVER]


def _peer(benchmark: Benchmark, cell: TrainingCell, log: IO[str]) -> tuple[Path, dict[str, Any]]:
    """nnU-Net on the same cases, for the minutes that scratch took."""
    workspace, plans = benchmark.tasks[cell.task], PEER_PLANS[str(benchmark.config.inits[cell.init].start)]
    if benchmark.peer_python is None:
        raise UserError(f"{cell.init}: needs --peer-python, the Python of an environment with nnunetv2.")
    scratch = next(own for own in benchmark.cells if own.key in cell.needs)
    record = benchmark.record(scratch) or {}
    side = NnunetSide(benchmark.peer_python, workspace.root / "nnunet", workspace.dataset)
    side.prepare(plans=plans, spacing=workspace.plans.spacing, log=log)
    found = side.train(
        minutes=record["minutes"],
        plans=plans,
        seed=cell.seed,
        device=_device(benchmark),
        keep_sides=LEFT_RIGHT not in workspace.plans.training.mirror_axes,
        split=Fold(tuple(record["train_cases"]), tuple(record["validation_cases"])),
        images=workspace.test_images,
        name=cell.run.replace("/", "_"),
        log=log,
    )
    facts = {"minutes": found["minutes"], "steps": found["steps"], "device": _device(benchmark)}
    return Path(found["predictions"]), facts | {"parameters": found["parameters"] / 1e6}


def _device(benchmark: Benchmark) -> str:
    from swinssl.core.devices import select_device

    return str(select_device(benchmark.device))


def _volumes(benchmark: Benchmark, cell: TrainingCell) -> int | str:
    """How many volumes its encoder was pretrained on here; empty where that is not known."""
    init = benchmark.config.inits[cell.init]
    if init.start == "scratch":
        return 0
    if init.method is None:
        return ""
    record = benchmark.record(next(own for own in benchmark.cells if own.key in cell.needs))
    return "" if record is None else record["volumes"]


def _scores(metrics: Path, about: dict[str, Any], patients: dict[str, str]) -> list[ScoreRow]:
    """The rows of a metrics.csv, each with the facts of its cell and the patient of its case."""
    rows = csv_records(metrics.read_text(encoding="utf-8"))
    columns = [*about, "patient", *(name for name in (rows[0] if rows else {}) if name != "label")]
    return csv_records(csv_text(({**about, "patient": patients.get(row["case"], ""), **row} for row in rows), columns))


def write_zeroed_encoder(path: Path, plans: Plans) -> None:
    """Write the planned encoder with all weights 0, so that all its feature maps are 0 too.

    The rest of the network, skip connections from the image included, keeps its size. Train with
    `--freeze-epochs FOREVER`, so that the encoder stays at 0.
    """
    import torch

    from swinssl.networks.swin.encoder import SwinEncoder

    plan, channels = plans.network.encoder, len(plans.channel_names)
    encoder = SwinEncoder(plan, in_channels=channels)
    weights = {name: torch.zeros_like(weight) for name, weight in encoder.state_dict().items()}
    write_encoder(path, weights, EncoderRecord(encoder=plan, in_channels=channels, spacing=plans.spacing))
