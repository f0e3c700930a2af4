"""An encoder to look into: of a file, of the package, or inside a trained model; and which images it was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.inference.trained_model import FOLD, WEIGHTS_FILE, TrainedModel, fold_folder
from swinssl.networks.checkpoints.encoder_file import EncoderRecord
from swinssl.networks.checkpoints.encoder_import import import_encoder
from swinssl.networks.checkpoints.foreign_checkpoint import open_checkpoint
from swinssl.networks.checkpoints.shipped_encoders import SCRATCH, encoder_path
from swinssl.networks.network_plan import SwinEncoderPlan
from swinssl.networks.swin.encoder import SwinEncoder
from swinssl.planning.encoder_facts import encoder_name, read_encoder_facts
from swinssl.preprocessing.plans import Intensity
from swinssl.training.engine.run_description import LearntFrom
from swinssl.training.engine.run_folder import RunFolder


@dataclass(frozen=True, eq=False)
class TrainedOn:
    """The images that an encoder's weights know, as far as run descriptions tell.

    Args:
        hashes: content hashes of image files.
        runs: the descriptions: of its own run, and of those that this one started from.
        unknown: in words, whose training images no description tells; None where all is told.
    """

    hashes: frozenset[str]
    runs: tuple[Path, ...]
    unknown: str | None


@dataclass(frozen=True, eq=False)
class ComparedEncoder:
    """An encoder, in evaluation mode on the CPU.

    Args:
        name: for tables and pictures.
        path: of its weights.
        sha256: of that file.
        network: the encoder.
        in_channels: of its images.
        spacing: mm (z, y, x) of the images it was trained on; None where nothing tells.
        intensity: how they were normalised, likewise.
        trained_on: those images.
    """

    name: str
    path: Path
    sha256: str
    network: SwinEncoder
    in_channels: int
    spacing: tuple[float, float, float] | None
    intensity: Intensity | None
    trained_on: TrainedOn

    @classmethod
    def open(cls, given: str) -> ComparedEncoder:
        """The encoder that a user means.

        Args:
            given: an encoder file, the name of one that comes with the package, the folder of a trained model's fold
                or the weights in it, or the model's folder where it has a single complete fold.

        Raises:
            UserError: there is none, it is damaged, or it is no Swin encoder.
        """
        path = Path(given)
        if path.is_file() and path.name == WEIGHTS_FILE and FOLD.fullmatch(path.resolve().parent.name):
            path = path.resolve().parent
        return _of_model(path) if path.is_dir() else _of_file(encoder_path(given))


def trained_on(run_file: Path | None, what: Path) -> TrainedOn:
    """What is known of the images behind the weights of `what`, whose run is described in `run_file`, if anywhere."""
    hashes: frozenset[str] = frozenset()
    runs: list[Path] = []
    while run_file is not None and run_file not in runs:
        run = LearntFrom.read(run_file)
        hashes, runs = hashes | run.hashes, [*runs, run_file]
        if run.config.init == SCRATCH:
            return TrainedOn(hashes, tuple(runs), None)
        try:
            what = encoder_path(run.config.init)
        except UserError:
            return TrainedOn(hashes, tuple(runs), f"{run.config.init}, which it started from, is not there any more")
        run_file = run_beside(what)
    return TrainedOn(hashes, tuple(runs), f"no run description beside {what}")


def _of_file(path: Path) -> ComparedEncoder:
    checkpoint = open_checkpoint(path)
    record = EncoderRecord.from_metadata(path, checkpoint.metadata)
    encoder = import_encoder(checkpoint, "swinssl", own_plan=record.described)
    facts = read_encoder_facts(path)
    network = _unfilled(encoder.plan, encoder.in_channels)
    network.load_state_dict(encoder.tensors)
    return ComparedEncoder(
        name=encoder_name(path),
        path=path,
        sha256=checkpoint.sha256,
        network=network,
        in_channels=encoder.in_channels,
        spacing=facts.reference.spacing,
        intensity=facts.intensity,
        trained_on=trained_on(run_beside(path), path),
    )


def _of_model(path: Path) -> ComparedEncoder:
    model = TrainedModel.open(path)
    if len(model.folds) > 1:
        raise UserError(
            f"{path}: has folds {', '.join(model.folds)}, each with an encoder of its own. Give the folder of one: "
            f"{fold_folder(path, model.folds[0])}"
        )
    plans, fold = model.plans, fold_folder(model.folder, model.folds[0])
    if not plans.network.has_swin_encoder:
        raise UserError(f"{path}: a {plans.network.architecture} network; it has no Swin encoder. Give another model.")
    (network,) = model.networks(torch.device("cpu"))
    assert isinstance(network.encoder, SwinEncoder)
    run_file = RunFolder(fold).run_file
    weights = fold / WEIGHTS_FILE
    return ComparedEncoder(
        name=f"{model.folder.resolve().name}, fold {model.folds[0]}",
        path=weights,
        sha256=files.sha256_of(weights),
        network=network.encoder,
        in_channels=len(plans.channel_names),
        spacing=plans.spacing,
        intensity=plans.intensity[0] if len(set(plans.intensity)) == 1 else None,
        trained_on=trained_on(run_file if run_file.is_file() else None, weights),
    )


def _unfilled(plan: SwinEncoderPlan, in_channels: int) -> SwinEncoder:
    with torch.random.fork_rng(devices=[]):  # the weights that are drawn here are thrown away
        return SwinEncoder(plan, in_channels=in_channels).eval()


def run_beside(path: Path) -> Path | None:
    """The description of an encoder file's run: beside one of the package, or in the folder of a run."""
    kept = (path.with_suffix(".run.json"), RunFolder(path.resolve().parent).run_file)
    return next((file for file in kept if file.is_file()), None)
