"""Of one case: its lesions, and the windows that show no tumour, or the least. Pure functions of the tumour mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from swinssl.core.geometry import Shape, bounding_box, bounds_of
from swinssl.preprocessing.store import PreprocessedCase
from swinssl.training.sampling.foreground_map import ForegroundMap
from swinssl.training.sampling.window import StartRange, kept_places, random_start, start_ranges


def lesions(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], ...]:
    """The connected components of `mask` (Z, Y, X), voxels that share a corner being connected.

    Returns:
        Per lesion, the rising flat C-order indices of its voxels.
    """
    if not mask.any():
        return ()
    box = bounding_box(mask)
    components, _ = ndimage.label(mask[box], structure=np.ones((3, 3, 3)))
    inside = np.nonzero(components)
    owner = components[inside]
    flat = np.ravel_multi_index([i + edges.start for i, edges in zip(inside, box, strict=True)], mask.shape)
    order = np.argsort(owner, kind="stable")
    return tuple(np.split(flat[order], np.cumsum(np.bincount(owner)[1:])[:-1]))


@dataclass(frozen=True, eq=False)
class WindowStarts:
    """Some of the starts in `ranges`, kept as runs of neighbouring starts: a few bytes a row instead of one a start.

    Args:
        ranges: lowest and highest start per axis.
        firsts: (R,) flat C-order index, in the grid of all starts, of the first start of each run.
        counts: (R,) starts in this run and all before it.
    """

    ranges: tuple[StartRange, ...]
    firsts: NDArray[np.int64]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, chosen: NDArray[np.bool_], ranges: Sequence[StartRange]) -> WindowStarts:
        """The starts where `chosen`, an array over the grid of all starts, is True."""
        flat = chosen.reshape(-1)
        edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        edges = np.concatenate(([0] if flat[0] else [], edges, [flat.size] if flat[-1] else [])).astype(np.int64)
        return cls(tuple(ranges), edges[0::2], np.cumsum(edges[1::2] - edges[0::2]))

    def __len__(self) -> int:
        return int(self.counts[-1]) if len(self.counts) else 0

    def __contains__(self, start: Shape) -> bool:
        """Whether `start` is one of them; it lies in the ranges."""
        place = [s - low for s, (low, _) in zip(start, self.ranges, strict=True)]
        flat = int(np.ravel_multi_index(place, [high - low + 1 for low, high in self.ranges]))
        run = int(np.searchsorted(self.firsts, flat, side="right")) - 1
        if run < 0:
            return False
        length = self.counts[run] - (self.counts[run - 1] if run else 0)
        return bool(flat < self.firsts[run] + length)

    def draw(self, generator: np.random.Generator) -> Shape:
        """One of the starts, each as likely as any other."""
        index = int(generator.integers(len(self)))
        run = int(np.searchsorted(self.counts, index, side="right"))
        within = index - (int(self.counts[run - 1]) if run else 0)
        grid = tuple(high - low + 1 for low, high in self.ranges)
        place = np.unravel_index(int(self.firsts[run]) + within, grid)
        z, y, x = (int(i) + low for i, (low, _) in zip(place, self.ranges, strict=True))
        return z, y, x


def tumour_free_starts(mask: NDArray[np.bool_], patch_size: Shape, ranges: Sequence[StartRange]) -> WindowStarts:
    """Every start in `ranges` whose window shows no voxel of `mask` (Z, Y, X); exact."""
    free = np.ones([high - low + 1 for low, high in ranges], dtype=bool)
    near, counts = _counts_near(mask, patch_size, ranges)
    free[near] = counts == 0
    return WindowStarts.of(free, ranges)


def least_tumour_starts(
    mask: NDArray[np.bool_], patch_size: Shape, ranges: Sequence[StartRange]
) -> tuple[int, WindowStarts]:
    """The least number of voxels of `mask` that a window shows, and the starts that show so few."""
    total = np.zeros([high - low + 1 for low, high in ranges], dtype=np.int32)
    near, counts = _counts_near(mask, patch_size, ranges)
    total[near] = counts
    least = int(total.min())
    return least, WindowStarts.of(total == least, ranges)


def _counts_near(
    mask: NDArray[np.bool_], patch_size: Shape, ranges: Sequence[StartRange]
) -> tuple[tuple[slice, ...], NDArray[np.int32]]:
    """Voxels of `mask` per window, for the part of the grid of starts whose windows reach the mask's bounding box.

    A box sum is three differences of running sums, one an axis, so that the cost does not grow with the patch.
    """
    if not mask.any():
        return (slice(0, 0),) * 3, np.zeros((0, 0, 0), np.int32)
    box = bounding_box(mask)
    counts = mask[box].astype(np.int32)
    near = []
    for axis, ((held, end), p, (low, high)) in enumerate(zip(bounds_of(box), patch_size, ranges, strict=True)):
        starts = np.arange(max(low, held - p + 1), min(high, end - 1) + 1)
        running = np.cumsum(counts, axis=axis, dtype=np.int32)
        running = np.concatenate((np.zeros_like(running.take([0], axis)), running), axis)
        first = np.clip(starts - held, 0, end - held)
        stop = np.clip(starts + p - held, 0, end - held)
        counts = running.take(stop, axis) - running.take(first, axis)
        near.append(slice(int(starts[0]) - low, int(starts[-1]) - low + 1))
    return tuple(near), counts


# A tumour-free window hangs over the volume as a tumour's would, up to the last of these shares of its edge, so that
# padding does not tell the two apart. Where that leaves none, it hangs over by the least of them that leaves any.
FREE_OVERHANGS = (0.0, 0.25, 0.5)
MATCHING_TRIES = 20


@dataclass(frozen=True, eq=False)
class TumourCase:
    """Of one case, what sampling needs; a few hundred kilobytes.

    Args:
        lesions: per tumour structure that the case has, the voxels of each lesion.
        free: the tumour-free starts, with the largest overhang.
        min_overhang: those with the least overhang that leaves any.
        body: where the case is not bare air.
    """

    lesions: Sequence[Sequence[NDArray[np.int64]]]
    free: WindowStarts
    min_overhang: WindowStarts
    foreground_map: ForegroundMap

    @classmethod
    def of(cls, case: PreprocessedCase, codes: Sequence[Sequence[int]], patch_size: Shape) -> TumourCase:
        """Reads the case once.

        Args:
            codes: of each tumour structure that the case has.
        """
        label = case.label()
        name = case.properties.case_id
        kept = [
            [
                kept_places(lesion, f"places of lesion {structure}.{number} in {name}")
                for number, lesion in enumerate(lesions(np.isin(label, structure_codes)))
            ]
            for structure, structure_codes in enumerate(codes)
        ]
        tumour = np.isin(label, [code for structure_codes in codes for code in structure_codes])
        free = [
            tumour_free_starts(tumour, patch_size, start_ranges(case.shape, patch_size, overhang=overhang))
            for overhang in FREE_OVERHANGS
        ]
        least = next((starts for starts in free if len(starts)), free[-1])
        return cls(kept, free[-1], least, ForegroundMap.of(case))

    def free_start(self, rng: np.random.Generator, ranges: Sequence[StartRange]) -> Shape:
        """A tumour-free start, in `ranges` if several tries find one there."""
        for _ in range(MATCHING_TRIES):
            start = random_start(rng, ranges)
            if start in self.free:
                return start
        return self.min_overhang.draw(rng)
