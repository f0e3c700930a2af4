"""The volumes that a pretraining run reads: one or several preprocessed data sets, labelled or not."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from swinssl.core.errors import UserError
from swinssl.core.rng import generator
from swinssl.core.text import listed
from swinssl.preprocessing.plans import Intensity, Plans
from swinssl.preprocessing.store import PreprocessedCase, PreprocessedDataset

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SourceVolume:
    """A stored case of a source, and its share of all draws."""

    name: str
    case: PreprocessedCase
    share: float


@dataclass(frozen=True)
class Sources:
    """What a run reads.

    Args:
        plans: of the data sets, in their order.
        volumes: those that can be read and were chosen.
        unreadable: why, by name, others are left out.
    """

    plans: tuple[Plans, ...]
    volumes: tuple[SourceVolume, ...]
    unreadable: dict[str, str]

    @classmethod
    def open(cls, folders: Sequence[Path], *, weights: str | None, cases: int | None, seed: int) -> Sources:
        """The volumes of preprocessed data sets.

        Args:
            folders: `<root>/preprocessed/<name>` each.
            weights: `2,1`: how often each data set is drawn from; None draws every volume alike.
            cases: number of volumes, over all data sets; those of a smaller number are among those of a larger one.
            seed: decides which.

        Raises:
            UserError: a data set is missing, they do not go together, or too few volumes can be read.
        """
        datasets = [PreprocessedDataset.open(folder) for folder in folders]
        plans = tuple(dataset.plans for dataset in datasets)
        _require_agreement(plans)
        per_dataset = _weights(weights, len(datasets))
        found: list[tuple[int, str, PreprocessedCase]] = []
        unreadable = {}
        for number, dataset in enumerate(datasets):
            for case_id in dataset.case_ids:
                name = f"{dataset.plans.dataset_name}/{case_id}"
                try:
                    found.append((number, name, dataset.case(case_id)))
                except UserError as error:
                    unreadable[name] = str(error)
        if unreadable:
            logger.warning("%s", _report(unreadable, len(found)))
        if not found:
            raise UserError(f"{folders[0]}: none of the volumes can be read. Run swinssl_preprocess again.")
        if cases is not None:
            if cases > len(found):
                raise UserError(f"--cases {cases}: there are {len(found)} volumes. Give 1 to {len(found)}.")
            order = generator(seed, "cases of pretraining").permutation(len(found))
            found = [found[i] for i in sorted(order[:cases])]
        counts = np.bincount([number for number, _, _ in found], minlength=len(datasets))
        weighed = counts if per_dataset is None else np.where(counts > 0, per_dataset, 0.0)
        shares = weighed / weighed.sum()
        volumes = tuple(
            SourceVolume(name, case, float(shares[number] / counts[number])) for number, name, case in found
        )
        return cls(plans, volumes, unreadable)

    @property
    def intensity(self) -> Intensity | None:
        """How images were normalised, where all channels and data sets agree."""
        schemes = {own for plans in self.plans for own in plans.intensity}
        return schemes.pop() if len(schemes) == 1 else None

    @property
    def image_sha256(self) -> dict[str, dict[str, str]]:
        """Content hashes of the image files, by volume."""
        return {volume.name: volume.case.properties.image_sha256 for volume in self.volumes}


def _require_agreement(plans: Sequence[Plans]) -> None:
    first = plans[0]
    names = [own.dataset_name for own in plans]
    if len(set(names)) < len(names):
        raise UserError(
            f"{', '.join(names)}: a data set is given twice. Give each once; --weights draws it more often."
        )
    for other in plans[1:]:
        for what, mine, theirs in (
            ("spacing", first.spacing, other.spacing),
            ("number of channels", len(first.channel_names), len(other.channel_names)),
        ):
            if mine != theirs:
                raise UserError(
                    f"{first.dataset_name} has {what} {mine}, {other.dataset_name} {theirs}: an encoder is trained on "
                    "one grid. Run swinssl_plan_and_preprocess for both with the same --spacing."
                )


def _weights(text: str | None, count: int) -> np.ndarray | None:
    if text is None:
        return None
    try:
        weights = np.array([float(part) for part in text.split(",")])
    except ValueError:
        weights = np.empty(0)
    if len(weights) != count or not (np.isfinite(weights).all() and (weights > 0).all()):
        raise UserError(f"--weights {text}: expected {count} numbers above 0, one a data set, separated by commas.")
    return weights


def _report(unreadable: dict[str, str], readable: int) -> str:
    reasons = listed([f"\n  {name}: {reason}" for name, reason in unreadable.items()], separator="")
    volumes = "volume" if len(unreadable) == 1 else "volumes"
    return f"{len(unreadable)} {volumes} cannot be read and will be skipped ({readable} can):{reasons}"
