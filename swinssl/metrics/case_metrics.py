"""All numbers of one case: what a prediction has of each structure, against the reference."""

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
    """How the surfaces agree.

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
    """The numbers of one structure in one case.

    Args:
        overlap: voxels.
        voxel_ml: volume of a voxel in ml.
        surface: None where one of the two maps lacks the structure, so that there is no distance.
        lesions: None for structures that are no lesions.
        far_voxels: predicted further than 15 mm from the reference; None where the reference lacks the structure.
        of_masks: the metrics that are computed from the masks, by name.
    """

    overlap: Overlap
    voxel_ml: float
    surface: SurfaceScores | None = None
    lesions: LesionCounts | None = None
    far_voxels: int | None = None
    of_masks: dict[str, Number] = field(default_factory=dict)

    @property
    def both_empty(self) -> bool:
        """Neither map has the structure: nothing is measured."""
        return not (self.overlap.n_reference or self.overlap.n_prediction)

    @property
    def missed(self) -> bool:
        """The reference has the structure, the prediction has not a voxel of it."""
        return self.overlap.n_reference > 0 and self.overlap.n_prediction == 0

    @property
    def invented(self) -> bool:
        """The prediction has the structure, the reference has not."""
        return self.overlap.n_prediction > 0 and self.overlap.n_reference == 0

    @property
    def reference_ml(self) -> float:
        """Volume in the reference."""
        return self.overlap.n_reference * self.voxel_ml

    @property
    def prediction_ml(self) -> float:
        """Volume in the prediction."""
        return self.overlap.n_prediction * self.voxel_ml

    @property
    def volume_error_ml(self) -> float | None:
        """Predicted less reference volume; None where both are empty."""
        return None if self.both_empty else self.prediction_ml - self.reference_ml

    @property
    def volume_error_percent(self) -> float | None:
        """The same in per cent of the reference volume; None where that is 0."""
        n = self.overlap.n_reference
        return 100 * (self.overlap.n_prediction - n) / n if n else None

    @property
    def far_false_positives(self) -> float | None:
        """Predicted volume over 15 mm from the reference, relative to the reference's; None where that is 0."""
        return None if self.far_voxels is None else self.far_voxels / self.overlap.n_reference

    def surface_dice(self, index: int) -> float | None:
        """Surface Dice at the index-th tolerance: 0 where one map lacks the structure, None where both do."""
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
    """Measure one case.

    Args:
        reference: (Z, Y, X) non-negative integers.
        prediction: (Z, Y, X), the same values.
        structures: what to measure: those that were annotated in this case.
        geometry: of both; distances are measured along its axes, as if they were orthogonal.
        tolerances: of the surface Dice, in mm.
        ignore: value of unannotated voxels of the reference: they count as background in both maps for distances and
            lesions, and not at all for overlap and volume.
        pairs: `count_pairs` of the two, where the caller has them.

    Returns:
        The numbers of each structure, by its name.
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
    """Only the overlap of each structure, for where its Dice is enough; arguments as of `case_metrics`."""
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
