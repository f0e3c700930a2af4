"""The numbers of a structure in a case, under the names that files give them: nnU-Net's first, ours after."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from swinssl.metrics.case_metrics import StructureMetrics

Number = float | int | None
Column = Callable[[StructureMetrics], Number]


def columns(tolerances: Sequence[float], *, lesions: bool) -> dict[str, Column]:
    """How each number is got from a structure's metrics, by its name.

    Args:
        tolerances: of the surface Dice, in mm, in the order of the metrics.
        lesions: whether the lesions' numbers are among them.
    """
    return {**_VOXELS, **_SURFACE, **_surface_dice(tolerances), **_VOLUME, **(_LESIONS if lesions else {})}


def surface_dice_name(tolerance: float) -> str:
    """`NSD_2mm`: the surface Dice (normalised surface Dice) at this tolerance."""
    return f"NSD_{tolerance:g}mm"


_VOXELS: dict[str, Column] = {
    "Dice": lambda m: m.overlap.dice,
    "IoU": lambda m: m.overlap.iou,
    "TP": lambda m: m.overlap.tp,
    "FP": lambda m: m.overlap.fp,
    "FN": lambda m: m.overlap.fn,
    "TN": lambda m: m.overlap.tn,
    "n_pred": lambda m: m.overlap.n_prediction,
    "n_ref": lambda m: m.overlap.n_reference,
}
_SURFACE: dict[str, Column] = {
    "HD95_mm": lambda m: m.surface.hd95 if m.surface else None,
    "MSD_mm": lambda m: m.surface.mean_distance if m.surface else None,
}
_VOLUME: dict[str, Column] = {
    "reference_ml": lambda m: m.reference_ml,
    "prediction_ml": lambda m: m.prediction_ml,
    "volume_error_ml": lambda m: m.volume_error_ml,
    "volume_error_percent": lambda m: m.volume_error_percent,
    "far_false_positives": lambda m: m.far_false_positives,
}
_LESIONS: dict[str, Column] = {
    "lesions_reference": lambda m: m.lesions.reference if m.lesions else None,
    "lesions_found": lambda m: m.lesions.found if m.lesions else None,
    "lesions_predicted": lambda m: m.lesions.predicted if m.lesions else None,
    "lesions_true": lambda m: m.lesions.true if m.lesions else None,
    "lesion_sensitivity": lambda m: m.lesions.sensitivity if m.lesions else None,
    "lesion_precision": lambda m: m.lesions.precision if m.lesions else None,
    "lesion_F1": lambda m: m.lesions.f1 if m.lesions else None,
}


def _surface_dice(tolerances: Sequence[float]) -> dict[str, Column]:
    return {surface_dice_name(mm): _surface_dice_at(index) for index, mm in enumerate(tolerances)}


def _surface_dice_at(index: int) -> Column:
    return lambda m: m.surface_dice(index)
