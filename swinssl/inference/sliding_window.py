"""A network over a volume larger than its patch: overlapping windows, weighted towards their centres.

The logits of a whole volume, all structures in float32, may not fit in memory. Windows are therefore processed row by
row along one axis: their weighted sums are kept for one patch length, and planes that no later window reaches are
yielded and dropped. If even that is too much, the volume is processed in strips; windows that span two strips are
computed for both.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from numpy.typing import NDArray
from torch import Tensor, nn

from swinssl.core.devices import autocast
from swinssl.core.errors import UserError
from swinssl.core.geometry import Shape
from swinssl.core.text import dimensions

logger = logging.getLogger(__name__)

Place = tuple[int, int, int]


class Slab(NamedTuple):
    """Finished logits of consecutive planes.

    Args:
        axis: 0 z, 1 y or 2 x; the planes are normal to it.
        start: index of the first plane.
        logits: (K, planes, rows, columns) float32; rows and columns are the other two axes in order. Valid until the
            next slab is requested.
        offset: index of its first row and of its first column.
    """

    axis: int
    start: int
    logits: Tensor
    offset: tuple[int, int] = (0, 0)

    def place_in(self, volume: Tensor) -> Tensor:
        """The part of a (K, Z, Y, X) or (Z, Y, X) volume that this slab covers, as a view with the slab's axes."""
        lead = volume.ndim - 3
        part = volume.movedim(lead + self.axis, lead)
        for dimension, start, size in zip((0, 1, 2), (self.start, *self.offset), self.logits.shape[1:], strict=True):
            part = part.narrow(lead + dimension, start, size)
        return part


@dataclass(frozen=True, eq=False)
class SlidingWindow:
    """Logits of a volume: the mean over overlapping windows, mirror images and networks.

    Args:
        networks: in evaluation mode and on `device`; each maps (B, C, *patch_size) to logits (B, K, *patch_size).
        patch_size: (z, y, x) voxels of a window.
        overlap: minimum fraction of a window that its neighbour shares, in [0, 0.9].
        mirror_axes: array axes (0 z, 1 y, 2 x) that windows are mirrored along, in all combinations.
        batch_size: windows per forward pass. Halved if a GPU runs out of memory; as a last resort the sums are kept on
            the CPU.
        bf16: compute matrix products and convolutions in bfloat16; sums are always in float32.
    """

    networks: Sequence[nn.Module]
    patch_size: Shape
    device: torch.device
    overlap: float = 0.5
    mirror_axes: tuple[int, ...] = ()
    batch_size: int = 1
    bf16: bool = False

    def count(self, shape: Shape, *, strips: int = 1) -> int:
        """Number of windows for a volume of `shape` voxels."""
        return sum(windows.count for windows in self._strips(shape, strips))

    def sum_bytes(self, shape: Shape, outputs: int) -> int:
        """Memory of the sums for a volume that is processed without strips.

        Args:
            outputs: channels of the networks' logits.
        """
        windows = _Windows.over(shape, self.patch_size, self.overlap)
        return 4 * outputs * self.patch_size[windows.axis] * math.prod(stop - start for start, stop in windows.kept)

    def logits(self, image: NDArray) -> Tensor:
        """The logits of a whole volume, (K, Z, Y, X) float32 on the CPU, all in memory.

        Args:
            image: (C, Z, Y, X) float32, as `prepare` makes it.
        """
        volume: Tensor | None = None
        for slab in self.slabs(image):
            if volume is None:
                volume = torch.empty((len(slab.logits), *image.shape[1:]))
            slab.place_in(volume).copy_(slab.logits)
        assert volume is not None
        return volume

    def slabs(
        self, image: NDArray, *, strips: int = 1, on_windows: Callable[[int], None] | None = None
    ) -> Iterator[Slab]:
        """Yield the logits of a volume slab by slab, without holding all of them.

        Args:
            image: (C, Z, Y, X) float32, as `prepare` makes it.
            strips: maximum number of strips; each is a run of slabs from the first plane to the last and shares a row
                or a column with the previous one. The logits are bit-identical.
            on_windows: called with the number of windows just computed.

        Raises:
            UserError: the GPU has too little memory for a single window.
        """
        batch_size = self.batch_size
        parts = self._strips(image.shape[1:], strips)
        padded = parts[0].padded(torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))).to(self.device)
        for windows in parts:
            sums = _Sums(windows, self.device, terms=len(self.networks) * 2 ** len(self.mirror_axes))
            for start, stop in windows.rows:
                sums.forget(start)
                todo = windows.in_row(start)
                while todo:
                    places = todo[:batch_size]
                    try:
                        sums.add(self._summed_logits(padded, places), places)
                    except torch.OutOfMemoryError:
                        batch_size = self._make_room(sums, batch_size)
                        continue
                    todo = todo[batch_size:]
                    if on_windows is not None:
                        on_windows(len(places))
                yield sums.finished(stop)
            del sums  # before those of the next strip are allocated

    def _strips(self, shape: Shape, strips: int) -> list[_Windows]:
        """The windows of a volume, strip by strip."""
        return _Windows.over(shape, self.patch_size, self.overlap).in_strips(strips)

    @torch.no_grad()
    def _summed_logits(self, padded: Tensor, places: Sequence[Place]) -> Tensor:
        """(B, K, *patch_size) float32 logits of the windows at `places`, summed over networks and mirror images."""
        z, y, x = self.patch_size
        batch = torch.stack([padded[:, a : a + z, b : b + y, c : c + x] for a, b, c in places])
        batch = batch.contiguous(memory_format=torch.channels_last_3d)
        total: Tensor | None = None
        for flips in _combinations(self.mirror_axes):
            mirrored = batch.flip(flips) if flips else batch
            for network in self.networks:
                with autocast(self.device, bf16=self.bf16):
                    logits = network(mirrored)
                logits = logits.float().flip(flips) if flips else logits.float()
                total = logits if total is None else total + logits
        assert total is not None
        return total

    def _make_room(self, sums: _Sums, batch_size: int) -> int:
        """The batch size to continue with after the GPU ran out of memory."""
        if batch_size > 1:
            batch_size //= 2
            logger.warning("The GPU is out of memory: continuing with %d windows per batch.", batch_size)
        elif sums.device.type != "cpu":
            logger.warning("The GPU is out of memory: keeping the sums on the CPU, which is slower.")
            sums.move_to(torch.device("cpu"))
        else:
            size = dimensions(self.patch_size)
            raise UserError(
                f"the GPU has too little free memory for a single window of {size} voxels. Close other programs that "
                "use it, or predict with --device cpu."
            ) from None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return batch_size


@dataclass(frozen=True)
class _Windows:
    """The positions of a volume's windows, in voxels of the padded volume.

    Args:
        shape: voxels of the volume.
        patch: voxels of a window.
        padding: voxels added before and after each axis if the volume is smaller than the patch.
        starts: first voxels of the windows along each axis; there is a window at every combination.
        axis: the axis along which rows of windows are processed.
        kept: along each axis of `across`, the voxels [first, last) whose logits are needed.
    """

    shape: Shape
    patch: Shape
    padding: tuple[tuple[int, int], ...]
    starts: tuple[list[int], ...]
    axis: int
    kept: tuple[tuple[int, int], tuple[int, int]]

    @classmethod
    def over(cls, shape: Shape, patch: Shape, overlap: float) -> _Windows:
        missing = [max(0, edge - size) for size, edge in zip(shape, patch, strict=True)]
        padding = tuple((n // 2, n - n // 2) for n in missing)
        starts = tuple(window_starts(size, edge, overlap) for size, edge in zip(shape, patch, strict=True))
        # Sums are kept for one patch length of this axis: the axis of which that is the smallest fraction.
        axis = min(range(3), key=lambda i: patch[i] / max(shape[i], patch[i]))
        rows, columns = ((padding[i][0], padding[i][0] + shape[i]) for i in range(3) if i != axis)
        return cls(shape, patch, padding, starts, axis, (rows, columns))

    def in_strips(self, strips: int) -> list[_Windows]:
        """These windows in at most `strips` non-empty parts along the longer axis of `across`."""
        sizes = [last - first for first, last in self.kept]
        along = int(sizes[1] > sizes[0])
        parts, cut = [], self.across[along]
        offset, size, edge = self.kept[along][0], sizes[along], self.patch[cut]
        strips = max(1, min(strips, size))
        for number in range(strips):
            # One more row at the lower end, so that any two neighbouring rows are together in one strip.
            first = offset + max(0, size * number // strips - 1)
            last = offset + size * (number + 1) // strips
            kept = (first, last)
            reaching = [start for start in self.starts[cut] if start < last and start + edge > first]
            starts = tuple(reaching if axis == cut else of_axis for axis, of_axis in enumerate(self.starts))
            parts.append(replace(self, starts=starts, kept=(self.kept[0], kept) if along else (kept, self.kept[1])))
        return parts

    @property
    def count(self) -> int:
        return math.prod(map(len, self.starts))

    @property
    def across(self) -> tuple[int, int]:
        """The two axes other than `axis`, in order."""
        first, second = (i for i in range(3) if i != self.axis)
        return first, second

    @property
    def rows(self) -> list[tuple[int, int]]:
        """For each row of windows, its start along `axis` and the end of the planes that no later row reaches."""
        starts = self.starts[self.axis]
        return list(itertools.pairwise([*starts, max(self.shape[self.axis], self.patch[self.axis])]))

    def padded(self, image: Tensor) -> Tensor:
        """The (C, *shape) image, padded with zeros to at least the patch; `padding` gives the voxels on each side."""
        return pad_nd_image(image, self.patch)

    def in_row(self, start: int) -> list[Place]:
        """Windows that begin at `start` along `axis`."""
        z, y, x = ([start] if axis == self.axis else starts for axis, starts in enumerate(self.starts))
        return list(itertools.product(z, y, x))

    def weights(self, axis: int) -> Tensor:
        """(padded size,) sum of the windows' importances along one axis; the sum in 3D is the product of the three.

        Correct for the kept voxels, because all windows that reach them are included.
        """
        edge = self.patch[axis]
        sums = torch.zeros(max(self.shape[axis], edge), dtype=torch.float64)
        for start in self.starts[axis]:
            sums[start : start + edge] += _profile(edge)
        return sums.float()


class _Sums:
    """Weighted sums of logits for one patch length of the rows' axis, which is the first in memory.

    Args:
        terms: number of summands in each voxel of a window (networks times mirror images).
    """

    def __init__(self, windows: _Windows, device: torch.device, *, terms: int) -> None:
        self.windows, self.device = windows, device
        self._first = 0  # first plane of the buffer
        self._buffer: Tensor | None = None
        axis, (rows, columns) = windows.axis, windows.across
        self._importance = _importance(windows.patch).movedim(axis, 0).contiguous().to(device)
        self._normal = 1 / (terms * windows.weights(axis))
        weights = (
            windows.weights(axis)[slice(*kept)] for axis, kept in zip((rows, columns), windows.kept, strict=True)
        )
        row_weights, column_weights = weights
        self._plane_normal = (1 / row_weights[:, None] / column_weights).to(device)

    def add(self, logits: Tensor, places: Sequence[Place]) -> None:
        """Add the (B, K, *patch) logits of windows; if memory runs out, none has been added."""
        axis, (rows, columns) = self.windows.axis, self.windows.across
        patch = self.windows.patch
        if self._buffer is None:
            sizes = [len(weights) for weights in (self._plane_normal, self._plane_normal[0])]
            self._buffer = torch.zeros((logits.shape[1], patch[axis], *sizes), device=self.device)
        for window, place in zip(logits.to(self.device), places, strict=True):
            target, part, importance = self._buffer, window.movedim(1 + axis, 1), self._importance
            for dimension, across, (first, last) in zip((2, 3), (rows, columns), self.windows.kept, strict=True):
                start, stop = max(place[across], first), min(place[across] + patch[across], last)
                target = target.narrow(dimension, start - first, stop - start)
                part = part.narrow(dimension, start - place[across], stop - start)
                importance = importance.narrow(dimension - 1, start - place[across], stop - start)
            target.addcmul_(part, importance)

    def finished(self, stop: int) -> Slab:
        """The mean logits of the planes before `stop`, which no later window reaches, without padding."""
        windows, first = self.windows, self._first
        assert self._buffer is not None
        for plane in range(first, stop):
            self._buffer[:, plane - first] *= self._plane_normal * self._normal[plane]
        mean = self._buffer.narrow(1, 0, stop - first)
        before, size = windows.padding[windows.axis][0], windows.shape[windows.axis]
        skipped = max(0, before - first)
        planes = min(stop, before + size) - first - skipped
        row, column = (
            kept[0] - windows.padding[axis][0] for axis, kept in zip(windows.across, windows.kept, strict=True)
        )
        return Slab(windows.axis, first + skipped - before, mean.narrow(1, skipped, planes), (row, column))

    def forget(self, start: int) -> None:
        """Drop the planes before `start` to make room for later ones."""
        dropped = start - self._first
        if self._buffer is None or dropped == 0:
            return
        kept = self._buffer.shape[1] - dropped
        for sums in self._buffer:  # one structure at a time, so that the copy is small
            sums[:kept] = sums[dropped:].clone()
            sums[kept:] = 0
        self._first = start

    def move_to(self, device: torch.device) -> None:
        """Move the sums to another device."""
        self.device = device
        self._plane_normal, self._importance = self._plane_normal.to(device), self._importance.to(device)
        self._buffer = None if self._buffer is None else self._buffer.to(device)


def window_starts(size: int, patch: int, overlap: float) -> list[int]:
    """First voxels of windows that cover an axis evenly; neighbours share at least `overlap` of the patch.

    One window, at 0, if the patch covers the axis.

    Source: nnU-Net v2, compute_steps_for_sliding_window, with overlap = 1 - step size.
    """
    if size <= patch:
        return [0]
    steps = math.ceil((size - patch) / (patch * (1 - overlap)))
    return [round(i * (size - patch) / steps) for i in range(steps + 1)]


def _profile(edge: int) -> Tensor:
    """(edge,) Gaussian of standard deviation edge / 8 about the middle; 3e-4 of its peak at the ends, never zero."""
    distance = torch.arange(edge, dtype=torch.float64) - (edge - 1) / 2
    return torch.exp(-0.5 * (distance / (edge / 8)) ** 2)


def _importance(patch: Shape) -> Tensor:
    """(Z, Y, X) weight of each voxel of a window."""
    z, y, x = map(_profile, patch)
    return (z[:, None, None] * y[:, None] * x).float()


def _combinations(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """All subsets of the array axes, as dimensions of a (B, C, Z, Y, X) tensor."""
    return [tuple(2 + a for a in some) for n in range(len(axes) + 1) for some in itertools.combinations(axes, n)]
