"""Overlap and surface distances beside nnU-Net's evaluation and DeepMind's surface-distance: same numbers, less time.

    python benchmarks/speed/metrics.py --out metrics.json

In an environment with the peers of benchmarks/requirements.txt. All label maps lie in memory as uint8; nothing is read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import side_by_side as sbs
import surface_distance
from inputs import Shape, blobs, organs, shares, size
from nnunetv2.evaluation.evaluate_predictions import compute_metrics
from numpy.typing import NDArray
from scipy import ndimage

from swinssl.core.geometry import Spacing
from swinssl.imageio.volume import Geometry
from swinssl.metrics.case_metrics import StructureMetrics, case_metrics, case_overlaps
from swinssl.metrics.structures import Structure

NNUNET, DEEPMIND = "nnU-Net", "surface-distance"
Labels = NDArray[np.uint8]
SPACING: Spacing = (1.5, 0.8, 0.8)
TOLERANCE_MM = 2.0
# By so much a prediction's borders wander, and over so many voxels they do.
WANDERING_VOXELS, WAVE_VOXELS = 1.5, 12
SHIFT = (1, 2, 3)
DICE_GOAL, SURFACE_GOAL = 15.0, 1.8
SURFACE_TOLERANCE = 1e-6


def comparisons(quick: bool) -> Iterator[sbs.Comparison]:
    """Dice of sparse and dense labels, then surfaces that nearly agree, are shifted, or lie far apart.

    The last is the reference upside down and back to front, as of a model that was given a wrong orientation.
    """
    shape: Shape = (80, 256, 256) if quick else (200, 512, 512)
    for name, labels in (("sparse", blobs(shape)), ("dense", organs(shape))):
        yield _dice(f"Dice, {name}", labels, _shifted(labels, SHIFT))
    shape = (60, 128, 128) if quick else (120, 256, 256)
    labels = organs(shape, classes=14)
    yield _surfaces("surfaces, good prediction", labels, _wandering(labels), absent=True)
    yield _surfaces("surfaces, shifted prediction", labels, _shifted(labels, SHIFT))
    yield _surfaces("surfaces, prediction far away", labels, np.ascontiguousarray(labels[::-1, ::-1]))


def _dice(name: str, reference: Labels, prediction: Labels) -> sbs.Comparison:
    structures = [Structure.of_value(value) for value in range(1, int(reference.max()) + 1)]
    ours = partial(case_overlaps, reference, prediction, structures=structures)
    maps = {"reference": reference, "prediction": prediction}

    class InMemory:
        """Instead of nnU-Net's reader, which would make float32 of them."""

        @staticmethod
        def read_seg(name: str) -> tuple[Labels, dict[str, Any]]:
            return maps[name], {}

    theirs = partial(compute_metrics, "reference", "prediction", InMemory(), [one.values[0] for one in structures])

    def check() -> dict[str, Any]:
        found, metrics = ours(), theirs()["metrics"]
        for structure in structures:
            own, their = found[structure.name], metrics[structure.values[0]]
            numbers = (own.dice, own.iou, own.tp, own.fp, own.fn, own.tn)
            expected = tuple(their[key] for key in ("Dice", "IoU", "TP", "FP", "FN", "TN"))
            assert numbers == expected, f"label {structure.name}: {numbers}, nnU-Net {expected}"
        return {
            "Dice, IoU, TP, FP, FN, TN": f"equal to the bit for {len(structures)} labels",
            "mean Dice": f"{np.mean([own.dice for own in found.values()]):.3f}",
            "labels": shares(reference),
        }

    return sbs.Comparison(
        name,
        f"{len(structures)} labels on {size(reference.shape)}, uint8 in memory: case_overlaps, compute_metrics",
        [sbs.Way(sbs.OURS, ours), sbs.Way(NNUNET, theirs)],
        check,
        [sbs.Goal(NNUNET, DICE_GOAL)],
    )


def _surfaces(name: str, reference: Labels, prediction: Labels, *, absent: bool = False) -> sbs.Comparison:
    values = range(1, int(reference.max()) + 1)
    ours = partial(_ours, reference, prediction, values)
    theirs = partial(_deepmind, reference, prediction, values)

    def check() -> dict[str, Any]:
        found, expected = ours(), theirs()
        apart = 0.0
        for value, (hd95, dice) in zip(values, expected, strict=True):
            surface = found[str(value)].surface
            assert surface is not None, f"label {value}: no surface"
            apart = max(apart, abs(surface.hd95 - hd95), abs(surface.dice[0] - dice))
        assert apart <= SURFACE_TOLERANCE, f"{apart:.1e} apart"
        hd95s, dices = zip(*expected, strict=True)
        return {
            "largest difference of HD95 (mm) and surface Dice": f"{apart:.1e}",
            "median HD95, surface Dice": f"{np.median(hd95s):.2f} mm, {np.median(dices):.3f}",
            "labels": shares(reference),
            **(_absent(reference, prediction) if absent else {}),
        }

    return sbs.Comparison(
        name,
        f"HD95 and surface Dice at {TOLERANCE_MM:g} mm of {len(values)} structures on {size(reference.shape)}; "
        "ours measures overlap and volume too",
        [sbs.Way(sbs.OURS, ours), sbs.Way(DEEPMIND, theirs)],
        check,
        [sbs.Goal(DEEPMIND, SURFACE_GOAL)],
    )


def _ours(reference: Labels, prediction: Labels, values: Sequence[int]) -> dict[str, StructureMetrics]:
    return case_metrics(
        reference,
        prediction,
        structures=[Structure.of_value(value) for value in values],
        geometry=Geometry.from_parts(reference.shape, spacing=SPACING),
        tolerances=(TOLERANCE_MM,),
    )


def _deepmind(reference: Labels, prediction: Labels, values: Sequence[int]) -> list[tuple[float, float]]:
    """HD95 and surface Dice of each value."""
    out = []
    for value in values:
        distances = surface_distance.compute_surface_distances(reference == value, prediction == value, SPACING)
        out.append(
            (
                float(surface_distance.compute_robust_hausdorff(distances, 95)),
                float(surface_distance.compute_surface_dice_at_tolerance(distances, TOLERANCE_MM)),
            )
        )
    return out


def _absent(reference: Labels, prediction: Labels) -> dict[str, str]:
    """What both make of structures that are missed, invented, and in neither map."""
    missed, invented, neither = 1, 2, int(reference.max()) + 1
    values = [missed, invented, neither]
    without = [np.where(array == value, 0, array) for array, value in ((reference, invented), (prediction, missed))]
    found = _ours(without[0], without[1], values)
    assert found["1"].false_negative and found["2"].false_positive and found[str(neither)].both_empty, asdict(
        found["1"]
    )
    assert all(one.surface is None for one in found.values()), "a distance to nothing"
    dices = [found[str(value)].surface_dice(0) for value in values]
    assert dices == [0.0, 0.0, None], dices
    try:
        their = str(_deepmind(without[0], without[1], [missed])[0])
    except AttributeError as error:  # np.Inf is no more
        their = f"{type(error).__name__}: {str(error).splitlines()[0].split('. ')[0]}"
    return {"missed, invented, in neither": f"no distance, surface Dice {dices}; {DEEPMIND}: {their}"}


def _shifted(labels: Labels, shift: tuple[int, int, int]) -> Labels:
    """The labels so many voxels on; what comes in is background."""
    out = np.zeros_like(labels)
    z, y, x = shift
    out[z:, y:, x:] = labels[: len(labels) - z, : labels.shape[1] - y, : labels.shape[2] - x]
    return out


def _wandering(labels: Labels) -> Labels:
    """The labels as a network might draw them: each border a little beside where it was, in waves."""
    draws = np.random.default_rng(0)
    coarse = [max(2, math.ceil(n / WAVE_VOXELS)) for n in labels.shape]
    zoom = [n / c for n, c in zip(labels.shape, coarse, strict=True)]
    places = np.indices(labels.shape, dtype=np.float32)
    for along in places:
        wave = ndimage.zoom(
            draws.standard_normal(coarse, dtype=np.float32), zoom, order=3, grid_mode=True, mode="nearest"
        )
        along += wave * (WANDERING_VOXELS / wave.std())
    return ndimage.map_coordinates(labels, places, order=0, mode="nearest")


if __name__ == "__main__":
    sbs.main(__doc__, comparisons)
