"""Logits on the plan's grid to a label map on the file's, beside nnU-Net.

    python benchmarks/speed/export.py --out export.json

In an environment with the peers of benchmarks/requirements.txt.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import side_by_side as sbs
import torch
import torch.nn.functional as F
from inputs import Shape, organs
from made_plans import labels_of
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from numpy.typing import NDArray
from scipy import ndimage
from sliding_window import CONFIGURATION, NNUNET, nnunet_labels, nnunet_plans
from torch import Tensor

from swinssl.core.geometry import Spacing
from swinssl.dataset.labels import LabelSet
from swinssl.imageio.volume import Geometry
from swinssl.inference.export import export
from swinssl.inference.sliding_window import Slab
from swinssl.inference.source_grid import SourceGrid

# Planes of a slab: what a row of windows of 96 planes finishes at half overlap.
PLANES = 48
# From so many classes on, memory is asked for too.
MANY = 40
# A network is this sure of itself, to within so much.
HEIGHT, NOISE = 10.0, 0.2


def comparisons(quick: bool) -> Iterator[sbs.Comparison]:
    """Many and few structures, which fill much of the volume, onto a finer grid with thinner slices."""
    shape, source = ((32, 64, 64), (40, 106, 106)) if quick else ((64, 128, 128), (80, 213, 213))
    yield _export("export, 40 classes", shape, source, classes=40)
    yield _export("export, 15 classes", shape, source, classes=15)


def source_grid(shape: Shape, source: Shape, spacing: Spacing) -> SourceGrid:
    """From a grid of `shape` and `spacing` to one of the shape `source` over the same extent; nothing is cut off."""
    finer = tuple(step * old / new for step, old, new in zip(spacing, shape, source, strict=True))
    z, y, x = source
    return SourceGrid(Geometry.from_parts(source, spacing=finer), ((0, z), (0, y), (0, x)), shape)  # type: ignore[arg-type]


def nnunets_properties(back: SourceGrid) -> dict[str, Any]:
    """The way back as nnU-Net keeps it."""
    return {
        "spacing": list(back.source.spacing),
        "shape_before_cropping": back.source.shape,
        "shape_after_cropping_and_before_resampling": back.cropped_shape,
        "bbox_used_for_cropping": [list(side) for side in back.crop],
    }


def nnunets_export(logits: Tensor, plans: PlansManager, properties: dict[str, Any], classes: int) -> NDArray:
    """nnU-Net's label map, in one thread."""
    labels = plans.get_label_manager(nnunet_labels(classes))
    return convert_predicted_logits_to_segmentation_with_correct_shape(
        logits, plans, plans.get_configuration(CONFIGURATION), labels, properties, num_threads_torch=sbs.THREADS
    )


def mixed_cells(labels: NDArray) -> float:
    """Share of the cells of 2 x 2 x 2 voxels in which not all are equal."""
    low = high = labels
    for axis in range(3):
        before, after = [slice(None)] * 3, [slice(None)] * 3
        before[axis], after[axis] = slice(None, -1), slice(1, None)
        low = np.minimum(low[tuple(before)], low[tuple(after)])
        high = np.maximum(high[tuple(before)], high[tuple(after)])
    return float((low != high).mean())


def _export(name: str, shape: Shape, source: Shape, *, classes: int) -> sbs.Comparison:
    spacing = (2.5, 1.5, 1.5)
    back, plans, labels = source_grid(shape, source, spacing), nnunet_plans(spacing), labels_of(classes - 1)
    halves = _logits(shape, classes)  # in which nnU-Net adds up
    logits = halves.float()
    ours = partial(_ours, logits, back, labels)
    theirs = partial(nnunets_export, halves, plans, nnunets_properties(back), classes)

    def check() -> dict[str, Any]:
        own, nnunets = ours(), theirs()
        exact, single = _float64(logits, source), _float32(logits, source)
        wrong, apart = int((own != exact).sum()), int((own != single).sum())
        assert wrong == 0, f"{wrong} of {own.size:,} voxels differ from float64"
        return {
            "cells with different structures": f"{mixed_cells(logits.argmax(0).numpy()):.1%}",
            "voxels that differ from trilinear interpolation of all classes in float64": f"{wrong} of {own.size:,}",
            "from torch's F.interpolate in float32": str(apart),
            "from nnU-Net, which rounds what it interpolated to float16": str(int((own != nnunets).sum())),
        }

    return sbs.Comparison(
        name,
        f"{' x '.join(map(str, shape))} -> {' x '.join(map(str, source))}",
        [sbs.Way(sbs.OURS, ours), sbs.Way(NNUNET, theirs)],
        check,
        [sbs.Goal(NNUNET, 12, 0.1 if len(logits) >= MANY else None)],
    )


def _logits(shape: Shape, classes: int) -> Tensor:
    """(K, Z, Y, X) float16 logits like those of a network: smooth across borders, with a little noise."""
    labels, draws = organs(shape, classes=classes - 1), np.random.default_rng(0)
    out = np.empty((classes, *shape), np.float16)
    for value, own in enumerate(out):
        soft = ndimage.gaussian_filter((labels == value).astype(np.float32), 1)
        own[:] = HEIGHT * soft + NOISE * draws.standard_normal(shape, np.float32)
    return torch.from_numpy(out)


def _ours(logits: Tensor, back: SourceGrid, labels: LabelSet) -> NDArray:
    slabs = (Slab(0, start, logits[:, start : start + PLANES]) for start in range(0, logits.shape[1], PLANES))
    return export(slabs, back, labels).label_map


def _float64(logits: Tensor, source: Shape) -> NDArray:
    """The class whose interpolated logit is the largest; all of them interpolated."""
    zoom = [new / old for new, old in zip(source, logits.shape[1:], strict=True)]
    best, winner = np.full(source, -np.inf), np.zeros(source, np.uint8)
    for value, own in enumerate(logits):
        score = ndimage.zoom(own.numpy().astype(np.float64), zoom, order=1, mode="nearest", grid_mode=True)
        winner[score > best] = value
        np.maximum(best, score, out=best)
    return winner


def _float32(logits: Tensor, source: Shape) -> NDArray:
    best, winner = torch.full(source, -torch.inf), torch.zeros(source, dtype=torch.uint8)
    for value, own in enumerate(logits):
        score = F.interpolate(own[None, None], source, mode="trilinear")[0, 0]
        winner[score > best] = value
        torch.maximum(best, score, out=best)
    return winner.numpy()


if __name__ == "__main__":
    sbs.main(__doc__, comparisons)
