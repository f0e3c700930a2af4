"""The folder of a trained model: its plans, its data set's description, and the weights of each fold.

    <model>/swinsslPlans.json           what was decided; how images are prepared
            dataset.json                channels and labels, in nnU-Net's form
            fold_<k>/model.safetensors  k = 0 ... n-1 or `all`; a fold is complete if and only if this file is there
            clean_up.json               after a cross-validation: what predictions keep the largest component of

It is read and written here and nowhere else; a run may keep further files beside these.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from swinssl import files
from swinssl.errors import UserError
from swinssl.inference.clean_up import CleanUp
from swinssl.networks.build import build_network
from swinssl.networks.weights_file import read_shapes, read_weights, write_weights
from swinssl.preprocessing.plans import PLANS_FILE, Plans

DATASET_FILE, WEIGHTS_FILE = "dataset.json", "model.safetensors"
FORMAT, VERSION = "swinssl-model", "1"
FOLD = re.compile(r"fold_(\d+|all)")
COPY_AGAIN = "Copy the whole model folder again, or train this fold with swinssl_train."


@dataclass(frozen=True)
class TrainedModel:
    """A model that is ready to predict.

    Args:
        folder: where it lies.
        plans: how images are prepared and which network it is.
        description: content of dataset.json.
        folds: the folds that predict together, "0" ... or "all".
        unfinished: folds that have a folder but no weights.
        sha256: by fold, of its weights.
        clean_up: what a cross-validation found to help; None where there was none.
    """

    folder: Path
    plans: Plans
    description: dict[str, Any]
    folds: tuple[str, ...]
    unfinished: tuple[str, ...]
    sha256: dict[str, str]
    clean_up: CleanUp | None = None

    @classmethod
    def open(cls, path: Path, folds: Sequence[str | int] | None = None) -> TrainedModel:
        """The model of a model folder, or of one of its `fold_<k>` folders.

        Only headers are read here; `networks` reads the weights.

        Args:
            folds: those to predict with; by default all complete ones, or the one whose folder is given.

        Raises:
            UserError: something is missing, of another version, damaged, or does not fit the plans.
        """
        folder, chosen = _model_folder(Path(path), folds)
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder. Give the folder of a trained model, with {PLANS_FILE} in it.")
        plans = Plans.read(folder, remedy=COPY_AGAIN)
        description = files.read_json(folder / DATASET_FILE, what="description of the data set", remedy=COPY_AGAIN)
        complete, unfinished = _folds(folder)
        if not complete:
            begun = f"; unfinished: {', '.join(unfinished)}" if unfinished else ""
            raise UserError(
                f"{folder}: no trained fold here{begun}. Expected fold_0/{WEIGHTS_FILE} or the like: let swinssl_train "
                "come to its first validation, or copy the whole model folder."
            )
        for fold in chosen or ():
            if fold not in complete:
                what = f"has no {WEIGHTS_FILE} yet" if fold in unfinished else "is not there"
                raise UserError(
                    f"{fold_folder(folder, fold)}: this fold {what}; complete are {', '.join(complete)}. Choose among "
                    "these with --folds, or train it with swinssl_train."
                )
        taken = tuple(dict.fromkeys(chosen)) if chosen else complete
        expected = _expected_shapes(plans)
        sha256 = {fold: _check_header(fold_folder(folder, fold) / WEIGHTS_FILE, expected) for fold in taken}
        clean_up = CleanUp.read(folder, plans.labels)
        return cls(folder, plans, description, taken, unfinished, sha256, clean_up)

    @property
    def clean_up_is_outdated(self) -> bool:
        """Whether a fold was trained further, or anew, since the clean-up was decided."""
        return self.clean_up is not None and not self.clean_up.is_of(self.sha256)

    def networks(self, device: torch.device) -> list[nn.Module]:
        """The networks of the chosen folds, in evaluation mode.

        Raises:
            UserError: a weights file is damaged, or has numbers that are not finite.
        """
        return [self._network(fold).to(device).eval() for fold in self.folds]

    def _network(self, fold: str) -> nn.Module:
        path = fold_folder(self.folder, fold) / WEIGHTS_FILE
        weights, _ = read_weights(path)
        if _sha256(weights) != self.sha256[fold]:
            raise UserError(f"{path}: the weights are not those that were written; the file is damaged. {COPY_AGAIN}")
        for name, tensor in weights.items():
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise UserError(f"{path}: {name} has numbers that are not finite, so the training failed. Train anew.")
        with torch.random.fork_rng(devices=[]):  # the weights that are drawn here are thrown away
            network = _build(self.plans)
        network.load_state_dict(weights)
        return network


def write_fold(
    folder: Path,
    fold: str | int,
    network: nn.Module,
    plans: Plans,
    *,
    description: Mapping[str, Any],
    facts: Mapping[str, str] | None = None,
) -> None:
    """Write one fold of a model folder, or replace it; at no moment is there half a fold.

    Args:
        folder: the model's folder; its folds share plans and description.
        network: what `build_network` makes of `plans`.
        description: content of the data set's dataset.json.
        facts: what else the weights' metadata say (epoch, score).

    Raises:
        UserError: the other folds in `folder` were trained with other plans (see `refuse_other_plans`).
    """
    folder, fold = Path(folder), str(fold)
    if not FOLD.fullmatch(fold_folder(folder, fold).name):
        raise ValueError(f"fold {fold!r}; expected a number or all")
    refuse_other_plans(folder, fold, plans)
    plans.write(folder / PLANS_FILE)
    files.write_json(folder / DATASET_FILE, dict(description))
    weights = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    metadata = {**(facts or {}), "format": FORMAT, "version": VERSION, "sha256": _sha256(weights)}
    write_weights(fold_folder(folder, fold) / WEIGHTS_FILE, weights, metadata=metadata)


def refuse_other_plans(folder: Path, fold: str | int, plans: Plans) -> None:
    """Check that `fold` of `folder` may be trained with these plans: all folds of a model predict as one.

    Raises:
        UserError: another fold is complete that prepares images or builds the network otherwise.
    """
    complete, _ = _folds(Path(folder))
    others = [other for other in complete if other != str(fold)]
    if not others or not (Path(folder) / PLANS_FILE).is_file():
        return
    mine, theirs = _decisions(plans), _decisions(Plans.read(folder))
    if changed := [name for name in mine if mine[name] != theirs[name]]:
        raise UserError(
            f"{folder}: fold {', '.join(others)} was trained with another {', '.join(changed)}, and the folds of one "
            "model predict together. Choose another name for the new model, or delete the old folds."
        )


def kept_sha256(folder: Path, fold: str | int) -> str | None:
    """The SHA-256 that the weights of a fold say they have; None where there are none yet."""
    path = fold_folder(folder, fold) / WEIGHTS_FILE
    return read_shapes(path)[1].get("sha256") if path.is_file() else None


def fold_folder(folder: Path, fold: str | int) -> Path:
    """The folder of a fold of a model folder."""
    return Path(folder) / f"fold_{fold}"


def _model_folder(path: Path, folds: Sequence[str | int] | None) -> tuple[Path, tuple[str, ...] | None]:
    """The model folder of a path to it or to one of its folds, and the folds that were chosen."""
    chosen = None if folds is None else tuple(map(str, folds))
    own = FOLD.fullmatch(path.name)
    if own is None or (path / PLANS_FILE).is_file():
        return path, chosen
    if chosen not in (None, (own[1],)):
        raise UserError(f"{path}: is fold {own[1]}, but --folds asks for others. Give the folder above it.")
    return path.parent, (own[1],)


def _folds(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Complete and unfinished folds, in order of their numbers, `all` last."""
    found = [match[1] for path in folder.glob("fold_*") if path.is_dir() and (match := FOLD.fullmatch(path.name))]
    found.sort(key=lambda fold: (not fold.isdigit(), int(fold) if fold.isdigit() else 0))
    complete = tuple(fold for fold in found if (fold_folder(folder, fold) / WEIGHTS_FILE).is_file())
    return complete, tuple(fold for fold in found if fold not in complete)


def _decisions(plans: Plans) -> dict[str, object]:
    """What prediction depends on."""
    kept = {"patch_size": plans.patch_size, "network": plans.network, "mirror axes": plans.training.mirror_axes}
    return {**plans.preprocessing_key, **kept}


def _expected_shapes(plans: Plans) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in _build(plans).state_dict().items()}


def _build(plans: Plans) -> nn.Module:
    return build_network(plans.network, in_channels=len(plans.channel_names), num_outputs=plans.labels.num_outputs)


def _check_header(path: Path, expected: Mapping[str, tuple[int, ...]]) -> str:
    """The SHA-256 that a weights file says it has, after its header was found to fit the plans."""
    shapes, metadata = read_shapes(path)
    if metadata.get("format") != FORMAT:
        found = metadata.get("format", "no format")
        raise UserError(f"{path}: says {found!r}; expected {FORMAT!r}. Give a model that swinssl_train wrote.")
    if metadata.get("version") != VERSION:
        raise UserError(
            f"{path}: model version {metadata.get('version')}; this swinssl reads version {VERSION}. Update swinssl."
        )
    for name in sorted(set(expected) | set(shapes)):
        if shapes.get(name) != expected.get(name):
            raise UserError(
                f"{path}: does not fit the network of {PLANS_FILE} beside its folder: {name} is "
                f"{shapes.get(name, 'missing')}, expected {expected.get(name, 'none')}. Weights and plans must come "
                f"from one training. {COPY_AGAIN}"
            )
    return metadata.get("sha256", "")


def _sha256(weights: Mapping[str, Tensor]) -> str:
    """Of names, types, shapes and numbers; does not depend on how the file orders them."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
