"""The overlap of two label maps: one pass counts every pair of labels, from which each structure's counts follow."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Voxels counted at a time: the indices of a slab fit in the cache, and memory does not grow with the volume.
SLAB_VOXELS = 1 << 19
# Up to this value the pairs are counted in a table by value; above it, the values are numbered first.
TABLE_WIDTH = 1024


@dataclass(frozen=True)
class Overlap:
    """Voxels of one structure: true positive, false positive, false negative, true negative."""

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def n_reference(self) -> int:
        """Voxels of the reference."""
        return self.tp + self.fn

    @property
    def n_prediction(self) -> int:
        """Voxels of the prediction."""
        return self.tp + self.fp

    @property
    def dice(self) -> float | None:
        """2 TP / (2 TP + FP + FN); None if neither map contains the structure."""
        either = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / either if either else None

    @property
    def iou(self) -> float | None:
        """TP / (TP + FP + FN); None if neither map contains the structure."""
        either = self.tp + self.fp + self.fn
        return self.tp / either if either else None


@dataclass(frozen=True, eq=False)
class PairCounts:
    """Voxels of each pair of values.

    Args:
        values: (V,) the values that occur, ascending, including 0.
        counts: (V, V); entry (i, j) counts the voxels with values[i] in the reference and values[j] in the prediction.
    """

    values: NDArray[np.int64]
    counts: NDArray[np.int64]

    @property
    def reference_values(self) -> list[int]:
        """Values that occur in the reference."""
        return self.values[self.counts.any(axis=1)].tolist()

    @property
    def prediction_values(self) -> list[int]:
        """Values that occur in the prediction."""
        return self.values[self.counts.any(axis=0)].tolist()

    def overlap(self, members: Collection[int], *, ignore: int | None = None) -> Overlap:
        """The overlap of the structure with these values.

        Args:
            members: one value for an exclusive label, several for a region.
            ignore: value in the reference whose voxels are left out.
        """
        inside = np.isin(self.values, list(members))
        counted = np.ones(len(self.values), bool) if ignore is None else self.values != ignore
        of_structure, of_others = self.counts[inside & counted].sum(axis=0), self.counts[~inside & counted].sum(axis=0)
        return Overlap(
            tp=int(of_structure[inside].sum()),
            fp=int(of_others[inside].sum()),
            fn=int(of_structure[~inside].sum()),
            tn=int(of_others[~inside].sum()),
        )


def count_pairs(reference: NDArray, prediction: NDArray) -> PairCounts:
    """Count the voxels of every pair of values of two label maps.

    Args:
        reference: (Z, Y, X) non-negative integers, raw values or codes.
        prediction: (Z, Y, X), the same coding.

    Raises:
        ValueError: the shapes differ, or the values are not non-negative integers.
    """
    if reference.shape != prediction.shape:
        raise ValueError(f"shapes differ: reference {reference.shape}, prediction {prediction.shape}")
    width = 1 + max(_highest(reference), _highest(prediction))
    if width <= TABLE_WIDTH:
        return _without_unused(np.arange(width), _count(reference, prediction, width))
    values = np.union1d(np.union1d(reference, prediction), [0]).astype(np.int64)
    rows, columns = np.searchsorted(values, reference), np.searchsorted(values, prediction)
    return PairCounts(values, _count(rows, columns, len(values)))


def _count(reference: NDArray, prediction: NDArray, width: int) -> NDArray[np.int64]:
    """(width, width) counts of maps with values below `width`; voxels that are background in both are skipped."""
    counts = np.zeros(width * width, dtype=np.int64)
    planes = max(1, SLAB_VOXELS * len(reference) // max(1, reference.size))
    for start in range(0, len(reference), planes):
        rows = reference[start : start + planes].ravel()
        columns = prediction[start : start + planes].ravel()
        occupied = np.flatnonzero((rows != 0) | (columns != 0))
        pairs = rows[occupied].astype(np.intp)
        pairs *= width
        pairs += columns[occupied]
        counts += np.bincount(pairs, minlength=width * width)
    counts[0] = reference.size - counts.sum()
    return counts.reshape(width, width)


def _without_unused(values: NDArray[np.int64], counts: NDArray[np.int64]) -> PairCounts:
    used = (counts.sum(axis=0) + counts.sum(axis=1)) > 0
    used[0] = True
    return PairCounts(values[used], counts[np.ix_(used, used)])


def _highest(array: NDArray) -> int:
    if array.dtype.kind not in "bui":
        raise ValueError(f"label values are {array.dtype}; expected integers")
    if array.dtype.kind == "i" and array.size and array.min() < 0:
        raise ValueError(f"label value {array.min()}; expected 0 and above")
    return int(array.max(initial=0))
