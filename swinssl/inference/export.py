"""From logits on the plan's grid to a label map on the grid of the file, slab by slab.

Logits are interpolated linearly along all three axes before the structures are chosen, so a file with thinner slices
than the plan gets no repeated slices. The logits of the whole volume are never in memory at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swinssl.dataset.labels import LabelSet
from swinssl.inference.argmax import decide, winners
from swinssl.inference.argmax import probabilities as probabilities_of
from swinssl.inference.sliding_window import Slab
from swinssl.inference.source_grid import SourceGrid
from swinssl.inference.trilinear import Axes, AxisNeighbours, decide_at, interpolate

# New voxels processed at once; times the number of structures if probabilities are requested.
VOXELS_AT_ONCE = 1 << 20


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The result for one case, on the grid of its file.

    Args:
        label_map: (Z, Y, X) raw label values.
        probabilities: (K, Z, Y, X) float32, background first for exclusive labels, one channel per region otherwise; or
            None.
    """

    label_map: NDArray
    probabilities: NDArray[np.float32] | None


def export(
    slabs: Iterable[Slab], source_grid: SourceGrid, labels: LabelSet, *, probabilities: bool = False
) -> Segmentation:
    """The label map of the logits of a case on the plan's grid; outside the crop it is background.

    Args:
        slabs: along one axis, in order, without gaps, strip after strip (`SlidingWindow.slabs`).
        probabilities: also return those of the interpolated logits: softmax over exclusive labels, sigmoid of regions.
    """
    target = _Target(source_grid, labels, probabilities=probabilities)
    neighbours = [
        AxisNeighbours.between(n, m) for n, m in zip(source_grid.shape, source_grid.cropped_shape, strict=True)
    ]
    done = 0
    for slab in _overlapping(slabs):
        if slab.start == 0:  # a new strip
            done = 0
        along = neighbours[slab.axis]
        rows, columns = (of_axis for axis, of_axis in enumerate(neighbours) if axis != slab.axis)
        _, end = along.among(slab.start, slab.start + slab.logits.shape[1])
        if end > done:
            target.fill(slab, done, end, (along, rows, columns))
            done = end
    return target.segmentation


class _Target:
    """The output arrays on the grid of the file, and views of the crop that the network saw."""

    def __init__(self, source_grid: SourceGrid, labels: LabelSet, *, probabilities: bool) -> None:
        self.labels = labels
        nowhere = winners(torch.zeros((1, 1, 1), dtype=torch.uint8), labels)
        label_map = np.zeros(source_grid.source.shape, labels.output_to_raw(nowhere).dtype)
        scores = None
        if probabilities:
            scores = np.zeros((labels.num_outputs, *label_map.shape), np.float32)
            if not labels.regions:
                scores[0] = 1  # outside the crop, background has probability 1
        self.segmentation = Segmentation(label_map, scores)
        self._raw = source_grid.crop_of(label_map)
        self._scores = None if scores is None else source_grid.crop_of(scores)

    def fill(self, slab: Slab, first: int, last: int, axes: Axes) -> None:
        """Fill the new planes [first, last) of an axis from a slab that contains all their neighbours.

        Args:
            axes: the slab's axis, then the other two.
        """
        logits, device = slab.logits, slab.logits.device
        decided = decide(logits, self.labels)
        along, *across = axes
        places = [
            axis.among(start, start + size)
            for axis, start, size in zip(across, slab.offset, logits.shape[2:], strict=True)
        ]
        rows, columns = (
            axis.part(*place, origin=start, device=device)
            for axis, place, start in zip(across, places, slab.offset, strict=True)
        )
        strip = tuple(slice(*place) for place in places)
        plane = len(rows.lower) * len(columns.lower)
        at_once = max(1, VOXELS_AT_ONCE // (plane * (1 if self._scores is None else len(logits))))
        for start in range(first, last, at_once):
            stop = min(start + at_once, last)
            part = (along.part(start, stop, origin=slab.start, device=device), rows, columns)
            codes = decide_at(logits, decided, part, decide=lambda values: decide(values, self.labels))
            raw = self.labels.output_to_raw(winners(codes, self.labels))
            np.moveaxis(self._raw, slab.axis, 0)[slice(start, stop), *strip] = raw
            if self._scores is not None:
                scores = probabilities_of(interpolate(logits, part), self.labels).cpu().numpy()
                np.moveaxis(self._scores, 1 + slab.axis, 1)[:, slice(start, stop), *strip] = scores


def _overlapping(slabs: Iterable[Slab]) -> Iterator[Slab]:
    """The slabs and, between each two, a slab of their adjoining planes.

    Any two neighbouring planes are then in one slab, so interpolation crosses a border without copying a whole slab.
    """
    last: Tensor | None = None
    for slab in slabs:
        if last is not None and slab.start > 0:
            both = torch.cat([last.to(slab.logits.device), slab.logits[:, :1]], 1)
            yield slab._replace(start=slab.start - 1, logits=both)
        last = slab.logits[:, -1:].clone()
        yield slab
