"""Lesions found and missed: the connected parts of a tumour mask, counted one by one.

A reference lesion is found when the prediction covers at least a tenth of its voxels; a predicted lesion is true when
at least a tenth of its voxels lie in the reference. So a prediction that covers everything finds all lesions and is
itself false, and a lesion that is predicted in two pieces is found once, by two true ones. Voxels that share a corner
are connected.
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
        found: those of them that the prediction covers.
        predicted: lesions in the prediction.
        true: those of them that lie in the reference.
    """

    reference: int
    found: int
    predicted: int
    true: int

    @property
    def sensitivity(self) -> float | None:
        """Share of the reference lesions that was found; None without any."""
        return self.found / self.reference if self.reference else None

    @property
    def precision(self) -> float | None:
        """Share of the predicted lesions that is true; None without any."""
        return self.true / self.predicted if self.predicted else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of sensitivity and precision; 0 where only one map has lesions; None where neither."""
        if not (self.reference or self.predicted):
            return None
        sensitivity, precision = self.sensitivity or 0.0, self.precision or 0.0
        return 2 * sensitivity * precision / (sensitivity + precision) if sensitivity and precision else 0.0


def count_lesions(reference: NDArray[np.bool_], prediction: NDArray[np.bool_]) -> LesionCounts:
    """Count the lesions of two masks (Z, Y, X), and which of them meet."""
    found = _covered(reference, prediction)
    true = _covered(prediction, reference)
    return LesionCounts(len(found), int(found.sum()), len(true), int(true.sum()))


def _covered(mask: NDArray[np.bool_], by: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Per connected part of `mask`, whether enough of it lies in `by`."""
    from scipy import ndimage

    parts, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    size = np.bincount(parts[mask], minlength=count + 1)[1:]
    covered = np.bincount(parts[mask & by], minlength=count + 1)[1:]
    return (covered >= COVERED_SHARE * size) & (covered > 0)
