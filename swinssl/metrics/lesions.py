"""Lesion detection: the connected components of a tumour mask, counted one by one.

A reference lesion is detected if the prediction covers at least 10 % of its voxels; a predicted lesion is a true
positive if at least 10 % of its voxels lie in the reference. A prediction that covers everything therefore detects all
lesions but is itself a false positive, and a lesion predicted in two pieces is detected once, by two true positives.
Voxels that share a corner are connected (26 neighbours).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

COVERED_SHARE = 0.1


@dataclass(frozen=True)
class LesionCounts:
    """Lesions of one structure in one case.

    Args:
        reference: lesions in the reference.
        found: reference lesions that the prediction detects.
        predicted: lesions in the prediction.
        true: predicted lesions that lie in the reference.
    """

    reference: int
    found: int
    predicted: int
    true: int

    @property
    def sensitivity(self) -> float | None:
        """Fraction of the reference lesions that are detected; None if there are none."""
        return self.found / self.reference if self.reference else None

    @property
    def precision(self) -> float | None:
        """Fraction of the predicted lesions that are true positives; None if there are none."""
        return self.true / self.predicted if self.predicted else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of sensitivity and precision; 0 if only one map has lesions, None if neither has."""
        if not (self.reference or self.predicted):
            return None
        sensitivity, precision = self.sensitivity or 0.0, self.precision or 0.0
        return 2 * sensitivity * precision / (sensitivity + precision) if sensitivity and precision else 0.0


def count_lesions(reference: NDArray[np.bool_], prediction: NDArray[np.bool_]) -> LesionCounts:
    """Count the lesions of two (Z, Y, X) masks and how many of them match."""
    found = _covered(reference, prediction)
    true = _covered(prediction, reference)
    return LesionCounts(len(found), int(found.sum()), len(true), int(true.sum()))


def _covered(mask: NDArray[np.bool_], by: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(N,) for each connected component of `mask`, whether enough of it lies in `by`."""
    from scipy import ndimage

    parts, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    size = np.bincount(parts[mask], minlength=count + 1)[1:]
    covered = np.bincount(parts[mask & by], minlength=count + 1)[1:]
    return (covered >= COVERED_SHARE * size) & (covered > 0)
