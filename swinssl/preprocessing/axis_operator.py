"""Resampling along one axis as a linear operator, applied as a few small matrix products."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

# A weight of the cubic spline falls by 0.268 a voxel. Below this it is beyond float32, and rows keep about 30 weights.
NEGLIGIBLE = 1e-8
# Rows that are applied together: enough for a fast product, few enough that their common support stays narrow.
ROWS = 64


class Band(NamedTuple):
    """Rows [start, stop) of an operator; their weights over source places [first, last) and nothing elsewhere."""

    start: int
    stop: int
    first: int
    last: int
    weights: NDArray[np.float32]


def apply_along(
    array: NDArray[np.float32], axis: int, size: int, *, order: int, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Resample one axis of a float32 array to `size` places; voxel centres align, the edge is continued.

    Args:
        order: of the spline, 0 (nearest), 1 (linear) or 3 (cubic).
        out: takes the result where the axis changes; contiguous.

    Returns:
        The values of `scipy.ndimage.zoom(mode="nearest", grid_mode=True)` to float32 rounding.
    """
    length = array.shape[axis]
    if length == size:
        return array
    if order == 0:
        return np.take(array, nearest_places(length, size), axis=axis, out=out)
    shape = (*array.shape[:axis], size, *array.shape[axis + 1 :])
    if axis == array.ndim - 1:
        rows = np.ascontiguousarray(array).reshape(-1, length)
        wide = np.empty((len(rows), size), np.float32) if out is None else out.reshape(len(rows), size)
        for band in _bands(length, size, order):
            np.matmul(rows[:, band.first : band.last], band.weights.T, out=wide[:, band.start : band.stop])
        return wide.reshape(shape)
    lead, trail = int(np.prod(array.shape[:axis])), int(np.prod(array.shape[axis + 1 :]))
    stacked = np.ascontiguousarray(array).reshape(lead, length, trail)
    result = np.empty((lead, size, trail), np.float32) if out is None else out.reshape(lead, size, trail)
    for band in _bands(length, size, order):
        np.matmul(band.weights, stacked[:, band.first : band.last], out=result[:, band.start : band.stop])
    return result.reshape(shape)


def apply_to_planes(parts: Iterable[NDArray[np.float32]], length: int, *, order: int, out: NDArray[np.float32]) -> None:
    """`apply_along` of the first axis, of planes that come a few at a time and are kept no longer than needed.

    Args:
        parts: (n, Y, X) each, `length` planes in all; they are asked for to the end.
        out: (size, Y, X), contiguous; takes the result.
    """
    size, come = len(out), 0
    if order == 0 or length == size:
        chosen = np.arange(size) if length == size else nearest_places(length, size)
        for part in parts:
            first, last = np.searchsorted(chosen, (come, come + len(part)))
            out[first:last] = part[chosen[first:last] - come]
            come += len(part)
        return
    bands, waiting = _bands(length, size, order), iter(parts)
    window = _Window(waiting, np.empty((max(band.last - band.first for band in bands), *out.shape[1:]), np.float32))
    for band in bands:
        # As `apply_along` has it, so that sums are formed in the same order.
        rows = window.moved_to(band.first, band.last).reshape(1, band.last - band.first, -1)
        np.matmul(band.weights, rows, out=out[band.start : band.stop].reshape(1, band.stop - band.start, -1))
    for _ in waiting:  # planes that no new one looks at
        pass


class _Window:
    """Consecutive ones of planes that come a few at a time; moves forward only."""

    def __init__(self, parts: Iterator[NDArray[np.float32]], planes: NDArray[np.float32]) -> None:
        self._parts, self._planes = parts, planes
        self._first = self._last = self._part_at = 0
        self._part = planes[:0]

    def moved_to(self, first: int, last: int) -> NDArray[np.float32]:
        """Planes [first, last), until it is moved again."""
        kept = max(self._last - first, 0)
        self._planes[:kept] = self._planes[self._last - self._first - kept : self._last - self._first]
        at = first + kept
        while at < last:
            if at >= self._part_at + len(self._part):
                self._part_at, self._part = self._part_at + len(self._part), self._planes[:0]  # it goes before
                self._part = next(self._parts)
                continue
            new = self._part[at - self._part_at : last - self._part_at]
            self._planes[at - first : at - first + len(new)] = new
            at += len(new)
        self._first, self._last = first, last
        return self._planes[: last - first]


def places(length: int, size: int) -> NDArray[np.float64]:
    """(size,) source coordinates of the new voxel centres; the outermost may lie half a voxel beyond the old ones."""
    return (np.arange(size, dtype=np.float64) + 0.5) * (length / size) - 0.5


def nearest_places(length: int, size: int) -> NDArray[np.int64]:
    """(size,) nearest source voxel of each new one; the upper one where two are equally near."""
    return np.clip(np.floor(places(length, size) + 0.5).astype(np.int64), 0, length - 1)


@lru_cache(maxsize=64)
def _bands(length: int, size: int, order: int) -> tuple[Band, ...]:
    # The operator's columns are what scipy makes of unit vectors, edges included: its definition rather than ours.
    zoom = np.array([size / length, 1.0])
    matrix = ndimage.zoom(np.eye(length), zoom, order=order, mode="nearest", grid_mode=True)  # type: ignore[call-overload]
    bands = []
    for start in range(0, size, ROWS):
        rows = matrix[start : start + ROWS]
        used = np.flatnonzero((np.abs(rows) > NEGLIGIBLE).any(axis=0))
        first, last = int(used[0]), int(used[-1]) + 1
        weights = np.ascontiguousarray(rows[:, first:last], dtype=np.float32)
        bands.append(Band(start, start + len(rows), first, last, weights))
    return tuple(bands)
