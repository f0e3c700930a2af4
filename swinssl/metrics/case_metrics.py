"""The metrics of one case: each structure of the prediction against the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from swinssl.core.geometry import union, value_boxes
from swinssl.imageio.volume import Geometry
from swinssl.metrics.lesions import LesionCounts, count_lesions
from swinssl.metrics.overlap import Overlap, PairCounts, count_pairs
from swinssl.metrics.registry import METRICS, Number
from swinssl.metrics.structures import Structure
from swinssl.metrics.surface_distance import far_false_positives, surface_distances

DEFAULT_TOLERANCES = (2.0,)


@dataclass(frozen=True)
class SurfaceScores:
    """Surface distances of one structure.

    Args:
        hd95: mm.
        mean_distance: mm, over both surfaces together.
        dice: surface Dice at each tolerance.
    """

    hd95: float
    mean_distance: float
    dice: tuple[float, ...]


@dataclass(frozen=True)
class StructureMetrics:
    """The metrics of one structure in one case.

    Args:
        overlap: in voxels.
        voxel_ml: volume of a voxel in ml.
        surface: None if either map lacks the structure, since the distance is then undefined.
        lesions: None for structures that are not lesions.
        far_voxels: predicted voxels more than 15 mm from the reference; None if the reference lacks the structure.
        of_masks: by name, the metrics that are computed from the masks.
    """

    overlap: Overlap
    voxel_ml: float
    surface: SurfaceScores | None = None
    lesions: LesionCounts | None = None
    far_voxels: int | None = None
    of_masks: dict[str, Number] = field(default_factory=dict)

    @property
    def both_empty(self) -> bool:
        """Neither map contains the structure, so nothing is measured."""
        return not (self.overlap.n_reference or self.overlap.n_prediction)

    @property
    def false_negative(self) -> bool:
        """The reference contains the structure, the prediction has no voxel of it."""
        return self.overlap.n_reference > 0 and self.overlap.n_prediction == 0

    @property
    def false_positive(self) -> bool:
        """The prediction contains the structure, the reference does not."""
        return self.overlap.n_prediction > 0 and self.overlap.n_reference == 0

    @property
    def reference_ml(self) -> float:
        """Volume in the reference, in ml."""
        return self.overlap.n_reference * self.voxel_ml

    @property
    def prediction_ml(self) -> float:
        """Volume in the prediction, in ml."""
        return self.overlap.n_prediction * self.voxel_ml

    @property
    def volume_error_ml(self) -> float | None:
        """Predicted minus reference volume, in ml; None if both are empty."""
        return None if self.both_empty else self.prediction_ml - self.reference_ml

    @property
    def volume_error_percent(self) -> float | None:
        """Predicted minus reference volume, in % of the reference volume; None if that is 0."""
        n = self.overlap.n_reference
        return 100 * (self.overlap.n_prediction - n) / n if n else None

    @property
    def far_false_positives(self) -> float | None:
        """Predicted volume more than 15 mm from the reference, relative to the reference volume; None if that is 0."""
        return None if self.far_voxels is None else self.far_voxels / self.overlap.n_reference

    def surface_dice(self, index: int) -> float | None:
        """Surface Dice at the index-th tolerance: 0 if one map lacks the structure, None if both do."""
        if self.surface is not None:
            return self.surface.dice[index]
        return None if self.both_empty else 0.0


def case_metrics(
    reference: NDArray,
    prediction: NDArray,
    *,
    structures: Sequence[Structure],
    geometry: Geometry,
    tolerances: Sequence[float] = DEFAULT_TOLERANCES,
    ignore: int | None = None,
    pairs: PairCounts | None = None,
) -> dict[str, StructureMetrics]:
    """Compute the metrics of one case.

    Args:
        reference: (Z, Y, X) non-negative integers.
        prediction: (Z, Y, X), the same values.
        structures: those annotated in this case.
        geometry: of both; distances are measured along its axes, as if they were orthogonal.
        tolerances: of the surface Dice, in mm.
        ignore: value of unannotated voxels in the reference. They count as background in both maps for distances and
            lesions, and are left out of overlap and volume.
        pairs: `count_pairs` of the two, if already computed.

    Returns:
        By name, the metrics of each structure.
    """
    pairs = pairs or count_pairs(reference, prediction)
    if ignore is not None and ignore in pairs.values:
        annotated = reference != ignore
        reference, prediction = reference * annotated, prediction * annotated
    boxes = value_boxes(reference, prediction)
    metrics = {}
    for structure in structures:
        overlap = pairs.overlap(structure.values, ignore=ignore)
        box = union(boxes[value] for value in structure.values if value in boxes)
        of_reference, of_prediction = (_mask(array[box], structure.values) for array in (reference, prediction))
        metrics[structure.name] = StructureMetrics(
            overlap,
            geometry.voxel_volume / 1000,
            _surface_scores(of_reference, of_prediction, geometry, tolerances),
            count_lesions(of_reference, of_prediction) if structure.lesions else None,
            far_false_positives(of_reference, of_prediction, geometry.spacing) if of_reference.any() else None,
            {
                metric.name: metric.of_masks(of_reference, of_prediction, geometry.spacing)
                for metric in METRICS
                if metric.of_masks and (of_reference.any() or of_prediction.any())
            },
        )
    return metrics


def case_overlaps(
    reference: NDArray, prediction: NDArray, *, structures: Sequence[Structure], ignore: int | None = None
) -> dict[str, Overlap]:
    """Only the overlap of each structure, for callers that need no more than Dice; arguments as for `case_metrics`."""
    pairs = count_pairs(reference, prediction)
    return {structure.name: pairs.overlap(structure.values, ignore=ignore) for structure in structures}


def _mask(array: NDArray, values: Sequence[int]) -> NDArray[np.bool_]:
    return array == values[0] if len(values) == 1 else np.isin(array, values)


def _surface_scores(
    reference: NDArray[np.bool_], prediction: NDArray[np.bool_], geometry: Geometry, tolerances: Sequence[float]
) -> SurfaceScores | None:
    if not (reference.any() and prediction.any()):
        return None
    distances = surface_distances(reference, prediction, geometry.spacing)
    return SurfaceScores(distances.hausdorff(), distances.mean(), tuple(distances.dice(mm) for mm in tolerances))
