"""The folder of a trained model: its plans, its data set's description, and the weights of each fold.

    <model>/swinsslPlans.json           the plans: how images are prepared, which network
            dataset.json                channels and labels, in nnU-Net's form; nothing about the training cases
            fold_<k>/model.safetensors  k = 0 ... n-1 or `all`; a fold is complete if and only if this file exists
            postprocessing.json         post-processing of predictions, if it was measured

Only this module reads and writes it; a run may store further files beside these. The weights of a fold contain a hash
of the plans that they were trained with, so that plans and weights that do not belong together are refused.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.core.text import counted, listed
from swinssl.core.workspace import Workspace
from swinssl.dataset.labels import labels_as_json
from swinssl.imageio.formats import images_in, known_endings
from swinssl.inference.postprocessing import Postprocessing
from swinssl.inference.predictor import Predictor
from swinssl.networks.architectures import build_network
from swinssl.networks.checkpoints.shipped_encoders import ENCODER_ENDINGS, ENCODER_FILE, shipped_names
from swinssl.networks.checkpoints.weights_file import (
    FLOATS,
    read_dtypes,
    read_shapes,
    read_weights,
    refuse_unusable,
    write_weights,
)
from swinssl.preprocessing.plans import PLANS_FILE, Plans
from swinssl.preprocessing.store import CASES

DATASET_FILE, WEIGHTS_FILE = "dataset.json", "model.safetensors"
FORMAT, VERSION = "swinssl-model", "2"
# Keys of a weights file's metadata: the hash of the plans' decisions and that of the tensors.
PLANS_HASH, WEIGHTS_HASH = "plans_sha256", "sha256"
FOLD = re.compile(r"fold_([0-9]+|all)")
ARCHIVE_ENDING = ".zip"
COPY_AGAIN = "Copy the whole model folder again, or train this fold with swinssl_train."


@dataclass(frozen=True)
class TrainedModel:
    """A trained model on disk.

    Args:
        folder: the model folder.
        plans: how images are prepared and which network it is.
        description: content of dataset.json (`public_description`).
        folds: the folds that predict together, "0" ... or "all".
        unfinished: folds that have a folder but no weights.
        sha256: by fold, of its weights.
        unsealed: folds of swinssl 0.1.0, whose weights contain no hash of their plans.
        postprocessing: None if none was measured.
    """

    folder: Path
    plans: Plans
    description: dict[str, Any]
    folds: tuple[str, ...]
    unfinished: tuple[str, ...]
    sha256: dict[str, str]
    postprocessing: Postprocessing | None = None
    unsealed: tuple[str, ...] = ()

    @classmethod
    def open(cls, path: Path, folds: Sequence[str | int] | None = None) -> TrainedModel:
        """The model of a model folder or of one of its `fold_<k>` folders.

        Reads headers only; `networks` reads the weights.

        Args:
            folds: to predict with; by default all complete ones, or the one whose folder is given.

        Raises:
            UserError: a file is missing, damaged, of another version, or does not fit the plans.
        """
        folder, chosen = _model_folder(Path(path), folds)
        _refuse_other_place(folder)
        plans = Plans.read(folder, remedy=COPY_AGAIN)
        description = _read_description(folder / DATASET_FILE, plans)
        complete, unfinished = _folds(folder)
        if not complete:
            begun = f"; unfinished: {', '.join(unfinished)}" if unfinished else ""
            raise UserError(
                f"{folder}: no trained fold here{begun}. Expected for example fold_0/{WEIGHTS_FILE}: let swinssl_train "
                "reach its first validation, or copy the whole model folder."
            )
        for fold in chosen or ():
            if fold not in complete:
                what = f"has no {WEIGHTS_FILE} yet" if fold in unfinished else "does not exist"
                raise UserError(
                    f"{fold_folder(folder, fold)}: this fold {what}. Complete folds: {', '.join(complete)}. Choose "
                    "among these with --folds, or train it with swinssl_train."
                )
        taken = tuple(dict.fromkeys(chosen)) if chosen else complete
        headers = {fold: _read_header(fold_folder(folder, fold) / WEIGHTS_FILE, plans) for fold in taken}
        sha256 = {fold: header[WEIGHTS_HASH] for fold, header in headers.items()}
        unsealed = tuple(fold for fold, header in headers.items() if not header[PLANS_HASH])
        postprocessing = Postprocessing.read(folder, plans.labels)
        return cls(folder, plans, description, taken, unfinished, sha256, postprocessing, unsealed)

    @property
    def postprocessing_is_outdated(self) -> bool:
        """Whether a fold was trained further or again since the post-processing was measured."""
        return self.postprocessing is not None and not self.postprocessing.is_of(self.sha256)

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes about the model's files for its user, one sentence each."""
        if not self.unsealed:
            return ()
        folds = f"fold{'s' if len(self.unsealed) > 1 else ''} {', '.join(self.unsealed)}"
        return (
            f"the weights of {folds} were written by swinssl 0.1.0, which stored no hash of the plans. It cannot be "
            f"checked whether they were trained with {PLANS_FILE}.",
        )

    @property
    def postprocessing_groups(self) -> tuple[tuple[str, ...], ...]:
        """Groups of structures that keep only their largest component, in order.

        Empty if nothing was measured, or if it was measured with other weights.
        """
        return () if self.postprocessing is None or self.postprocessing_is_outdated else self.postprocessing.groups

    def predictor(
        self,
        device: torch.device,
        *,
        overlap: float = 0.5,
        mirror: bool = False,
        postprocessing: bool = True,
        bf16: bool | None = None,
    ) -> Predictor:
        """The chosen folds, ready to segment as swinssl_predict does.

        Args:
            postprocessing: keep only the largest component of structures for which that was measured to help.
            overlap, mirror, bf16: as in `Predictor.of`.

        Raises:
            UserError: a weights file is damaged or contains values that are not finite.
        """
        groups = self.postprocessing_groups if postprocessing else ()
        return Predictor.of(
            self.networks(device),
            self.plans,
            device=device,
            overlap=overlap,
            mirror=mirror,
            postprocessing=groups,
            bf16=bf16,
        )

    def networks(self, device: torch.device) -> list[nn.Module]:
        """The networks of the chosen folds, in evaluation mode.

        Raises:
            UserError: a weights file is damaged or contains values that are not finite.
        """
        return [self._network(fold).to(device).eval() for fold in self.folds]

    def _network(self, fold: str) -> nn.Module:
        path = fold_folder(self.folder, fold) / WEIGHTS_FILE
        weights, metadata = read_weights(path)
        if metadata.get(WEIGHTS_HASH) != self.sha256[fold]:
            raise UserError(f"{path}: was replaced while it was read. Rerun the command.")
        floats = {name: tensor for name, tensor in weights.items() if tensor.is_floating_point()}
        refuse_unusable(path, floats, remedy=f"The training failed, or the file was altered. {COPY_AGAIN}")
        with torch.random.fork_rng(devices=[]):  # the initial weights are discarded
            network = _build(self.plans)
        network.load_state_dict(weights)
        return network


def find_model(given: str, workspace: Workspace) -> Path:
    """The folder of a model that a user gave as a path, or as the data set (id or name) whose only model it is.

    Raises:
        UserError: no model answers to it, or several do.
    """
    path = Path(given)
    if path.is_file() and path.suffix.lower() == ARCHIVE_ENDING:
        root = "" if workspace.root == Workspace.locate().root else f" --root {shlex.quote(str(workspace.root))}"
        raise _archive_error(path, root=root)
    if path.exists() or "/" in given or "\\" in given or given.startswith("."):
        return path
    if given in shipped_names():
        raise UserError(
            f"{given}: an encoder that comes with swinssl, not a trained model; it cannot segment by itself. Train a "
            f"model from it first: swinssl_plan_and_preprocess DATASET --init {given}, then swinssl_train DATASET."
        )
    results = workspace.results(given)
    models = models_in(results)
    if len(models) == 1:
        return models[0]
    if not models:
        raise UserError(f"{given}: no trained model in {results}. Train one with swinssl_train, or give its folder.")
    raise UserError(f"{given}: {counted(len(models), 'model')}. Give the folder of one: {listed(models)}")


def models_in(folder: Path) -> list[Path]:
    """The model folders in the results folder of a data set; hidden is what an import has not finished."""
    return sorted(plans.parent for plans in folder.glob(f"[!.]*/{PLANS_FILE}") if any(plans.parent.glob("fold_*")))


def models_below(folder: Path) -> list[Path]:
    """The model folders in a folder, or in the folders of data sets that it has."""
    return models_in(folder) or [model for one in sorted(folder.glob("[!.]*/")) for model in models_in(one)]


def _archive_error(path: Path, *, root: str = "") -> UserError:
    return UserError(f"{path}: a model archive. Unpack it first: swinssl_model import {shlex.quote(str(path))}{root}")


def _refuse_other_place(path: Path) -> None:
    """Raise a UserError where a path is no model's folder: what is there instead, and what to give."""
    if ((path / PLANS_FILE).is_file() or any(_folds(path))) and not (path / CASES).is_dir():
        return
    above = next((one for one in path.absolute().parents if (one / PLANS_FILE).is_file()), None)
    models = [] if path.is_file() else models_below(path) or models_below(path / "results")
    if files.is_missing(path):
        raise UserError(f"{path}: no such folder. Give the folder of a trained model, with {PLANS_FILE} in it.")
    if path.is_file() and path.suffix.lower() == ARCHIVE_ENDING:
        raise _archive_error(path)
    if path.name == ENCODER_FILE or (path / ENCODER_FILE).is_file():
        what, remedy = "a pretrained encoder", "Train a model from it with swinssl_train --init, and give that."
    elif (path / CASES).is_dir():
        what, remedy = "a preprocessed data set", "Train a model on it with swinssl_train, and give the model's folder."
    elif above is not None and FOLD.fullmatch(path.absolute().relative_to(above).parts[0]):
        inside = path.absolute().relative_to(above).parts[0]
        what = f"{'a file' if path.is_file() else 'a folder'} inside a model"
        model, fold = _as_given(above, path), _as_given(above / inside, path)
        remedy = f"Give the folder of the model, {model}, or of one fold, {fold}."
    elif above is not None and (path.is_file() or any(above.glob("fold_*"))):
        what, remedy = "a part of a model", f"Give the folder of the model: {_as_given(above, path)}"
    elif models:
        what = f"a folder with {counted(len(models), 'model')}"
        remedy = f"Give the folder of one: {listed(models)}"
    elif path.name.endswith(ENCODER_ENDINGS):
        what = "a file of weights, without the plans of a model"
        remedy = "Give the folder of a trained model. An encoder goes to swinssl_plan and swinssl_train --init."
    elif path.is_file():
        what, remedy = "a file", "Give the folder of a trained model."
    elif images_in(path) or any((path / name).is_dir() for name in ("imagesTr", "imagesTs")):
        what, remedy = "a folder of images", "Images go after -i; give the folder of a trained model here."
    else:
        what = f"no trained model; it has no {PLANS_FILE}"
        remedy = "swinssl_train leaves models in results/<data set>/<model>; swinssl_model list shows them."
    raise UserError(f"{path}: {what}. {remedy}")


def _as_given(folder: Path, given: Path) -> Path:
    """`folder`, which is above `given`, in the form that the user gave: relative where that was."""
    return folder if given.is_absolute() else Path(os.path.relpath(folder))


def write_fold(
    folder: Path,
    fold: str | int,
    network: nn.Module,
    plans: Plans,
    *,
    description: Mapping[str, Any],
    facts: Mapping[str, str] | None = None,
) -> None:
    """Write or replace one fold of a model folder atomically.

    Args:
        folder: the model folder; its folds share plans and description.
        network: built by `build_network` from `plans`.
        description: content of the data set's dataset.json; entries about cases are left out.
        facts: further metadata of the weights (epoch, score).

    Raises:
        UserError: the other folds in `folder` were trained with other plans (see `refuse_other_plans`).
    """
    folder, fold = Path(folder), str(fold)
    if not FOLD.fullmatch(fold_folder(folder, fold).name):
        raise ValueError(f"fold {fold!r}; expected a number or all")
    refuse_other_plans(folder, fold, plans)
    write_descriptions(folder, plans, description)
    weights = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    metadata = {**(facts or {}), "format": FORMAT, "version": VERSION, PLANS_HASH: plans.prediction_sha256}
    write_weights(fold_folder(folder, fold) / WEIGHTS_FILE, weights, metadata=metadata)


def public_description(plans: Plans, file_ending: object = None) -> dict[str, Any]:
    """The content of dataset.json in a model, an archive or a folder of predictions, derived from the plans only.

    A data set's dataset.json may contain case ids, paths and groups, which must not be passed on with a model.

    Args:
        file_ending: of the data set's images; left out unless swinssl reads it.
    """
    return {
        "channel_names": {str(i): name for i, name in enumerate(plans.channel_names)},
        **labels_as_json(plans.labels),
        **({"file_ending": file_ending} if file_ending in known_endings() else {}),
    }


def write_descriptions(folder: Path, plans: Plans, description: Mapping[str, Any]) -> None:
    """Write plans and description, which the folds of a model share, if they are missing, damaged or different.

    Args:
        description: content of the data set's dataset.json; entries about cases are left out.
    """
    try:
        current = Plans.read(folder)
    except UserError:  # missing or damaged
        current = None
    if current is None or (current.prediction_key, current.training) != (plans.prediction_key, plans.training):
        plans.write(folder / PLANS_FILE)
    public = public_description(plans, description.get("file_ending"))
    try:
        known = files.read_json(folder / DATASET_FILE, what="description of the data set", remedy=COPY_AGAIN)
    except UserError:
        known = None
    if known != public:
        files.write_json(folder / DATASET_FILE, public)


def refuse_other_plans(folder: Path, fold: str | int, plans: Plans) -> None:
    """Check that `fold` of `folder` may be trained with these plans: all folds of a model predict together.

    Raises:
        UserError: another fold is complete whose plans prepare images, build the network or warn differently.
    """
    complete, _ = _folds(Path(folder))
    others = [other for other in complete if other != str(fold)]
    if not others:
        return
    if all(_plans_hash(folder, other) == plans.prediction_sha256 for other in others):
        return  # even if the plans' file has changed since: this training writes it again
    new, old = plans.prediction_key, Plans.read(folder, remedy=COPY_AGAIN).prediction_key
    if changed := [name for name in {**new, **old} if new.get(name) != old.get(name)]:
        raise UserError(
            f"{folder}: fold {', '.join(others)} was trained with another {', '.join(changed)}, and the folds of one "
            "model predict together. Choose another name for the new model, or delete the old folds."
        )


def kept_sha256(folder: Path, fold: str | int) -> str | None:
    """The SHA-256 in the metadata of a fold's weights; None if there are none yet."""
    path = fold_folder(folder, fold) / WEIGHTS_FILE
    return read_shapes(path)[1].get("sha256") if path.is_file() else None


def whole_sha256(folder: Path, fold: str | int) -> str | None:
    """The verified SHA-256 of a fold's weights; None if they are missing or damaged."""
    path = fold_folder(folder, fold) / WEIGHTS_FILE
    if not path.is_file():
        return None
    try:
        return read_weights(path)[1].get(WEIGHTS_HASH)
    except UserError:
        return None


def _plans_hash(folder: Path, fold: str) -> str | None:
    """The hash of the plans that a fold was trained with; None if its weights do not contain it."""
    try:
        return read_shapes(fold_folder(folder, fold) / WEIGHTS_FILE)[1].get(PLANS_HASH)
    except UserError:
        return None


def fold_folder(folder: Path, fold: str | int) -> Path:
    """The folder of a fold of a model folder."""
    return Path(folder) / f"fold_{fold}"


def _model_folder(path: Path, folds: Sequence[str | int] | None) -> tuple[Path, tuple[str, ...] | None]:
    """The model folder of a path to it or to one of its folds, and the chosen folds."""
    chosen = None if folds is None else tuple(map(str, folds))
    match = FOLD.fullmatch(path.name)
    if match is None or (path / PLANS_FILE).is_file():
        return path, chosen
    if chosen not in (None, (match[1],)):
        raise UserError(f"{path}: is fold {match[1]}, but --folds asks for others. Give the folder above it.")
    return path.parent, (match[1],)


def _folds(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Complete and unfinished folds, in order of their numbers, `all` last."""
    folds = [match[1] for path in folder.glob("fold_*") if path.is_dir() and (match := FOLD.fullmatch(path.name))]
    folds.sort(key=lambda fold: (not fold.isdigit(), int(fold) if fold.isdigit() else 0))
    complete = tuple(fold for fold in folds if (fold_folder(folder, fold) / WEIGHTS_FILE).is_file())
    return complete, tuple(fold for fold in folds if fold not in complete)


def _read_description(path: Path, plans: Plans) -> dict[str, Any]:
    """The description in a model's dataset.json, without the entries about cases in files of swinssl 0.1.0.

    Raises:
        UserError: it is missing, or names other channels or structures than the plans.
    """
    content = files.read_json(path, what="description of the data set", remedy=COPY_AGAIN)
    stored = content if isinstance(content, dict) else {}
    expected = public_description(plans, stored.get("file_ending"))
    for key, value in expected.items():
        if key in stored and stored[key] != value:
            raise UserError(f"{path}: {key} differ from those of {PLANS_FILE} beside it. {COPY_AGAIN}")
    return expected


def _build(plans: Plans) -> nn.Module:
    return build_network(plans.network, in_channels=len(plans.channel_names), num_outputs=plans.labels.num_outputs)


def _read_header(path: Path, plans: Plans) -> dict[str, str]:
    """The metadata of a weights file whose header fits the plans.

    Raises:
        UserError: it is not a model of this version or 0.1.0, or was trained with other plans.
    """
    shapes, metadata = read_shapes(path)
    if metadata.get("format") != FORMAT:
        format_name = metadata.get("format", "no format")
        raise UserError(f"{path}: format {format_name!r}; expected {FORMAT!r}. Give a model that swinssl_train wrote.")
    metadata = _upgraded(path, metadata)
    with torch.device("meta"):
        expected = _build(plans).state_dict()
    for name in sorted(set(expected) | set(shapes)):
        wanted = tuple(expected[name].shape) if name in expected else "none"
        if shapes.get(name) != wanted:
            raise UserError(
                f"{path}: does not fit the network of {PLANS_FILE} beside its folder: {name} is "
                f"{shapes.get(name, 'missing')}, expected {wanted}. Weights and plans must come "
                f"from one training. {COPY_AGAIN}"
            )
    for name, dtype in read_dtypes(path).items():
        allowed = FLOATS if expected[name].is_floating_point() else (str(expected[name].dtype).removeprefix("torch."),)
        if dtype not in allowed:
            raise UserError(f"{path}: {name} is {dtype}; expected {', '.join(allowed)}. {COPY_AGAIN}")
    if metadata[PLANS_HASH] not in ("", plans.prediction_sha256):
        raise UserError(
            f"{path}: was trained with other plans than those in {path.parents[1] / PLANS_FILE}, so its predictions "
            "would be wrong. The plans were edited or damaged. Copy the whole model folder again. To change a "
            "decision, plan and train again."
        )
    return metadata


def _upgraded(path: Path, metadata: dict[str, str]) -> dict[str, str]:
    """The metadata of any supported version in the form of this version.

    Version 1 (swinssl 0.1.0) has no hash of the plans: it becomes empty.
    """
    version = metadata.get("version")
    if version == "1":
        return {WEIGHTS_HASH: "", **metadata, PLANS_HASH: ""}
    if version != VERSION or not metadata.get(PLANS_HASH):
        raise UserError(
            f"{path}: model version {version}; this swinssl reads versions 1 and {VERSION}. Update swinssl."
        )
    return metadata
