"""One cell of transfer.py: train from an init with a seed, predict the test cases, measure them."""

from __future__ import annotations

import json
from pathlib import Path

from transfer_rows import Row
from transfer_study import AVERAGED, RESENC, SCRATCH, ZEROED, Init, Study, options_of

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.dataset.splits import SPLITS_FILE
from swinssl.experiments.benchmark.commands import run_swinssl
from swinssl.experiments.benchmark.zeroed_encoder import FOR_EVER, write_zeroed_encoder
from swinssl.experiments.peers.nnunet_side import LEFT_RIGHT, PEER_PLANS, NnunetSide
from swinssl.networks.checkpoints.shipped_encoders import encoder_path
from swinssl.preprocessing.plans import Plans


def run_cell(study: Study, init: Init, seed: int) -> tuple[Row, ...]:
    """Run a cell, or go on where it was stopped; returns its rows.

    Raises:
        UserError: a peer is asked for and cannot be had.
        subprocess.CalledProcessError: a command failed; it has said why.
        KeyboardInterrupt: it was stopped.
    """
    predictions, steps, minutes = (_peer if init.is_peer else _ours)(study, init, seed)
    out = study.work / "evaluations" / f"{init.name}_{study.steps}steps_seed{seed}"
    description = study.preprocessed / "dataset.json"
    what = ["-p", predictions, "-r", study.references, "--images", study.images]
    run_swinssl("evaluate", *what, "--dataset", description, "--out", out)
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    names = {key: one["name"] for key, one in summary["swinssl"]["structures"].items()}
    return tuple(
        Row(
            init=init.name,
            seed=seed,
            steps=steps,
            minutes=minutes,
            case=case["case"],
            dice={names[key]: numbers["Dice"] for key, numbers in case["metrics"].items()},
            mean=case["Dice"],
        )
        for case in summary["metric_per_case"]
    )


def scratch_minutes(study: Study, seed: int) -> float | None:
    """How long training from scratch took with this seed; None where that is not done yet."""
    return next((row.minutes for row in study.rows if (row.init, row.seed) == (SCRATCH, seed)), None)


def _ours(study: Study, init: Init, seed: int) -> tuple[Path, int, float]:
    """Where the predictions are, the steps and the minutes; of several models, of each and of all."""
    # What is in --work under this name is of this very encoder, whatever becomes of the file.
    encoder = "" if init.encoder is None else f"_{files.sha256_of(encoder_path(init.encoder))[:8]}"
    name = f"{init.name}{encoder}_{study.steps}steps"
    length = ["--steps", study.steps, "--patience", FOR_EVER]
    start = {RESENC: ["--network", "resenc"], SCRATCH: ["--init", "scratch"]}.get(init.name, ["--init", init.encoder])
    if init.name == ZEROED:
        start = ["--init", zeroed_encoder(study), "--freeze-epochs", FOR_EVER]
    folds = study.cases.numbers_of_members(seed) if init.name == AVERAGED else [seed]
    for fold in folds:
        where = ["--root", study.root, "--name", name, "--fold", fold, "--seed", seed, "--device", study.device]
        run_swinssl("train", study.raw, *where, *length, *start, *options_of(study, init))
    trained = study.root / "results" / study.raw.name / name
    predictions = study.work / "predictions" / f"{name}_seed{seed}"
    models = ["-m", trained, "--folds", ",".join(map(str, folds))]
    run_swinssl(
        "predict", "-i", study.images, "-o", predictions, *models, "--device", study.device, "--no-postprocessing"
    )
    runs = [json.loads((trained / f"fold_{fold}" / "run.json").read_text(encoding="utf-8")) for fold in folds]
    return predictions, runs[0]["steps"], sum(run["seconds"] for run in runs) / 60


def _peer(study: Study, init: Init, seed: int) -> tuple[Path, int, float]:
    minutes = scratch_minutes(study, seed)
    if study.peer_python is None:
        raise UserError(
            f"{init.name}: needs --peer-python, an environment with nnunetv2 (benchmarks/requirements.txt)."
        )
    if minutes is None:
        raise UserError(f"{init.name}, seed {seed}: gets the minutes of {SCRATCH}, which is not done. Run that first.")
    side, plans = NnunetSide(study.peer_python, study.work / "nnunet", study.raw), PEER_PLANS[init.name]
    side.prepare(study.preprocessed / SPLITS_FILE, plans=plans, spacing=Plans.read(study.preprocessed).spacing)
    found = side.train(
        minutes=minutes,
        fold=seed,
        plans=plans,
        seed=seed,
        device=_peer_device(study),
        keep_sides=LEFT_RIGHT not in Plans.read(study.preprocessed).training.mirror_axes,
        cases=study.cases.test,
    )
    return Path(found["predictions"]), found["steps"], found["minutes"]


def _peer_device(study: Study) -> str:
    from swinssl.core.devices import select_device

    return str(select_device(study.device))


def zeroed_encoder(study: Study) -> Path:
    """The file of the encoder that gives nothing."""
    path = study.work / "zeroed.safetensors"
    write_zeroed_encoder(path, Plans.read(study.preprocessed))
    return path
