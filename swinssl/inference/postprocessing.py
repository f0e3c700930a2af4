"""`clean_up.json`: of which structures a model's predictions keep the largest component alone, and what that was worth.

swinssl_train writes it (`experiments/clean_up_choice.py`); every predictor of the model does what it says
(`TrainedModel.predictor`). It names no case.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.core.geometry import union, value_boxes
from swinssl.core.json_model import read_model
from swinssl.dataset.labels import LabelSet

CLEAN_UP_FILE = "clean_up.json"
CLEAN_UP_VERSION = 2
REMEDY = "Delete it, and rerun swinssl_train with the same options to make it anew."
MeasuredOn = Literal["validation cases", "training cases", "validation and training cases"]


class Trial(BaseModel):
    """What keeping the largest component of something came to, over the cases that it was measured on.

    Args:
        structures: whose voxels count as one mask: one structure's, or those of all.
        before, after: mean Dice, of several structures the mean over them; None where no case has one.
        better, worse: cases whose Dice rose and fell.
        cases: those that had a Dice before.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    structures: tuple[str, ...] = Field(min_length=1)
    before: float | None = Field(ge=0, le=1)
    after: float | None = Field(ge=0, le=1)
    better: int = Field(ge=0)
    worse: int = Field(ge=0)
    cases: int = Field(ge=0)


class CleanUp(BaseModel):
    """What was decided, and from which weights.

    Args:
        measured_on: cases that the networks had not learnt from, or also those that they had.
        least_gain: rise of the mean Dice from which it is done.
        applied: what is done, in this order; nothing where nothing helped.
        rejected: what was tried and is not done.
        fold_sha256: by fold, of the weights whose predictions were measured.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = CLEAN_UP_VERSION
    measured_on: MeasuredOn = "validation cases"
    least_gain: float
    applied: tuple[Trial, ...] = ()
    rejected: tuple[Trial, ...] = ()
    fold_sha256: dict[str, str] = {}

    @classmethod
    def read(cls, folder: Path, labels: LabelSet) -> CleanUp | None:
        """The decision in a model's folder; None where there is none.

        Raises:
            UserError: it cannot be read, is of another version, or does not fit the model's labels.
        """
        path = Path(folder) / CLEAN_UP_FILE
        if files.is_missing(path):
            return None
        found = read_model(
            cls, path, what="clean-up of predictions", remedy=REMEDY, version=CLEAN_UP_VERSION, upgrade=_upgraded
        )
        for name in (name for trial in (*found.applied, *found.rejected) for name in trial.structures):
            if name not in labels.names:
                raise UserError(f"{path}: the model has no structure {name!r}; {', '.join(labels.names)}. {REMEDY}")
        if labels.regions and found.applied:
            raise UserError(f"{path}: would clean regions, which overlap; only exclusive labels can be. {REMEDY}")
        return found

    def write(self, folder: Path) -> None:
        """Write atomically."""
        files.write_json(Path(folder) / CLEAN_UP_FILE, self.model_dump(mode="json"))

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Structures that keep their largest component, one group after another."""
        return tuple(trial.structures for trial in self.applied)

    def is_of(self, fold_sha256: Mapping[str, str]) -> bool:
        """Whether no fold has other weights now than those that were measured; folds that were not do not count."""
        return all(self.fold_sha256[fold] == own for fold, own in fold_sha256.items() if fold in self.fold_sha256)


def _upgraded(content: dict[str, Any]) -> dict[str, Any]:
    """Version 1 (swinssl 0.1.0) came from validation cases alone."""
    if content.get("version") != 1:
        return content
    return {**content, "version": CLEAN_UP_VERSION, "measured_on": "validation cases"}


def clean(label_map: NDArray, groups: tuple[tuple[str, ...], ...], labels: LabelSet) -> None:
    """Keep the largest component of each group of structures, in place (`keep_largest`).

    Args:
        label_map: (Z, Y, X) raw values of exclusive labels.
        groups: names of structures.
    """
    value = {name: own[0] for name, own in zip(labels.names, labels.values, strict=True)}
    keep_largest(label_map, [[value[name] for name in group] for group in groups])


def keep_largest(label_map: NDArray, groups: Sequence[Collection[int]]) -> None:
    """Of each group's voxels, one group after another, keep the largest component, in place.

    Voxels that share a corner are connected (26 neighbours). Of equally large components all stay: which of them came
    first would depend on the order that a file stores its voxels in. Takes 5 bytes a voxel of the box round the
    largest group.

    Args:
        label_map: (Z, Y, X) non-negative integers.
        groups: label values; those of one group count as one mask.
    """
    if not groups:
        return
    boxes = value_boxes(label_map)  # what is removed only makes them larger than need be
    for values in groups:
        around = union(boxes[value] for value in values if value in boxes)
        _keep_largest(label_map[around], values)


def _keep_largest(label_map: NDArray, values: Collection[int]) -> None:
    from scipy import ndimage

    # Plane by plane, since looking values up takes 8 bytes for each at once.
    mask = np.empty(label_map.shape, dtype=bool)
    for plane, inside in zip(label_map, mask, strict=True):
        inside[:] = np.isin(plane, list(values))
    parts, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    if count < 2:
        return
    sizes = np.zeros(count + 1, dtype=np.int64)
    for own, inside in zip(parts, mask, strict=True):
        found = np.bincount(own[inside])
        sizes[: len(found)] += found
    removed = sizes < sizes.max()
    removed[0] = False  # what is not of the group
    for plane, own in zip(label_map, parts, strict=True):
        plane[removed[own]] = 0
