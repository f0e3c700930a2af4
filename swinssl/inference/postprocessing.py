"""`postprocessing.json`: the structures whose predictions keep only the largest component, and the measured gain.

swinssl_train writes it (`experiments/postprocessing_choice.py`); every predictor of the model applies it
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

POSTPROCESSING_FILE = "postprocessing.json"
POSTPROCESSING_FILE_0_1_0 = "clean_up.json"
POSTPROCESSING_VERSION = 2
REMEDY = "Delete it and rerun swinssl_train with the same options to create it again."
MeasuredOn = Literal["validation cases", "training cases", "validation and training cases"]


class Trial(BaseModel):
    """The effect of keeping only the largest component of some structures, over the measured cases.

    Args:
        structures: whose voxels count as one mask.
        before, after: mean Dice, averaged over the structures; None if no case has one.
        better, worse: numbers of cases whose Dice rose and fell.
        cases: number of cases with a Dice before.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    structures: tuple[str, ...] = Field(min_length=1)
    before: float | None = Field(ge=0, le=1)
    after: float | None = Field(ge=0, le=1)
    better: int = Field(ge=0)
    worse: int = Field(ge=0)
    cases: int = Field(ge=0)


class Postprocessing(BaseModel):
    """The chosen post-processing and the weights that it was measured with.

    Args:
        measured_on: cases that the networks were not trained on, or also training cases.
        least_gain: minimum rise of the mean Dice.
        applied: trials that are applied, in this order; empty if none helped.
        rejected: trials that are not applied.
        fold_sha256: by fold, hash of the weights whose predictions were measured.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = POSTPROCESSING_VERSION
    measured_on: MeasuredOn = "validation cases"
    least_gain: float
    applied: tuple[Trial, ...] = ()
    rejected: tuple[Trial, ...] = ()
    fold_sha256: dict[str, str] = {}

    @classmethod
    def read(cls, folder: Path, labels: LabelSet) -> Postprocessing | None:
        """The post-processing of a model folder; None if it has none.

        Raises:
            UserError: the file cannot be read, has another version, or does not fit the model's labels.
        """
        path = _existing_file(Path(folder))
        if path is None:
            return None
        chosen = read_model(
            cls, path, what="post-processing", remedy=REMEDY, version=POSTPROCESSING_VERSION, upgrade=_upgraded
        )
        for name in (name for trial in (*chosen.applied, *chosen.rejected) for name in trial.structures):
            if name not in labels.names:
                raise UserError(
                    f"{path}: the model has no structure {name!r}; it has {', '.join(labels.names)}. {REMEDY}"
                )
        if labels.regions and chosen.applied:
            raise UserError(
                f"{path}: post-processes regions, which overlap; it is possible only for exclusive labels. {REMEDY}"
            )
        return chosen

    def write(self, folder: Path) -> None:
        """Write the file of a model folder atomically; it replaces one under the name of swinssl 0.1.0."""
        files.write_json(Path(folder) / POSTPROCESSING_FILE, self.model_dump(mode="json"))
        (Path(folder) / POSTPROCESSING_FILE_0_1_0).unlink(missing_ok=True)

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Groups of structures that keep their largest component, in order."""
        return tuple(trial.structures for trial in self.applied)

    def is_of(self, fold_sha256: Mapping[str, str]) -> bool:
        """Whether the weights of all measured folds are still the measured ones; other folds do not count."""
        return all(self.fold_sha256[fold] == now for fold, now in fold_sha256.items() if fold in self.fold_sha256)


def _existing_file(folder: Path) -> Path | None:
    paths = (folder / name for name in (POSTPROCESSING_FILE, POSTPROCESSING_FILE_0_1_0))
    return next((path for path in paths if not files.is_missing(path)), None)


def _upgraded(content: dict[str, Any]) -> dict[str, Any]:
    """Version 1 (swinssl 0.1.0) was measured on validation cases only."""
    if content.get("version") != 1:
        return content
    return {**content, "version": POSTPROCESSING_VERSION, "measured_on": "validation cases"}


def postprocess(label_map: NDArray, groups: tuple[tuple[str, ...], ...], labels: LabelSet) -> None:
    """Keep the largest component of each group of structures, in place (`keep_largest`).

    Args:
        label_map: (Z, Y, X) raw values of exclusive labels.
        groups: names of structures.
    """
    value = {name: values[0] for name, values in zip(labels.names, labels.values, strict=True)}
    keep_largest(label_map, [[value[name] for name in group] for group in groups])


def keep_largest(label_map: NDArray, groups: Sequence[Collection[int]]) -> None:
    """Keep only the largest component of each group's voxels, group after group, in place.

    Voxels that share a corner are connected (26 neighbours). Components of equal size are all kept: which one comes
    first would depend on the order in which a file stores its voxels. Needs 5 bytes per voxel of the largest group's
    bounding box.

    Args:
        label_map: (Z, Y, X) non-negative integers.
        groups: label values; those of one group count as one mask.
    """
    if not groups:
        return
    boxes = value_boxes(label_map)  # removing voxels only makes them larger than necessary
    for values in groups:
        box = union(boxes[value] for value in values if value in boxes)
        _keep_largest(label_map[box], values)


def _keep_largest(label_map: NDArray, values: Collection[int]) -> None:
    from scipy import ndimage

    # Plane by plane: looking up values takes 8 bytes per voxel.
    mask = np.empty(label_map.shape, dtype=bool)
    for plane, plane_mask in zip(label_map, mask, strict=True):
        plane_mask[:] = np.isin(plane, list(values))
    components, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    if count < 2:
        return
    sizes = np.zeros(count + 1, dtype=np.int64)
    for plane_components, plane_mask in zip(components, mask, strict=True):
        counts = np.bincount(plane_components[plane_mask])
        sizes[: len(counts)] += counts
    removed = sizes < sizes.max()
    removed[0] = False  # voxels outside the group
    for plane, plane_components in zip(label_map, components, strict=True):
        plane[removed[plane_components]] = 0
