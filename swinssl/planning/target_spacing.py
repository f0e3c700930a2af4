"""Which grid the images are resampled to."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from swinssl.core.geometry import Spacing
from swinssl.core.text import dimensions
from swinssl.preprocessing.fingerprint import Fingerprint

# nnU-Net's: an axis this much coarser, and with this much fewer voxels, than the others is anisotropic.
ANISOTROPY = 3
FINER_PERCENTILE = 10
# nnU-Net's step from full to low resolution.
COARSENING_STEP = 1.03
# A structure keeps at least so many voxels along its diameter.
VOXELS_ACROSS = 5


def median_spacing(fingerprint: Fingerprint) -> tuple[Spacing, str]:
    """nnU-Net's target spacing, and why.

    The median of each axis. If one axis is over 3 times coarser than the others and has over 3 times fewer voxels, the
    10th percentile of its spacings, but not below the other axes': the thin slices that some cases have are not thrown
    away, and thick ones are interpolated.
    """
    spacings = np.asarray(fingerprint.spacings, float)
    spacing = np.percentile(spacings, 50, axis=0)
    size = np.percentile(np.asarray(fingerprint.shapes_after_crop, float), 50, axis=0)
    coarse = int(np.argmax(spacing))
    others = [axis for axis in range(3) if axis != coarse]
    finest_allowed = float(spacing[others].max())
    median = as_triple(spacing)
    why = f"median over {len(spacings)} cases"
    if spacing[coarse] > ANISOTROPY * finest_allowed and size[coarse] * ANISOTROPY < size[others].min():
        chosen = float(np.percentile(spacings[:, coarse], FINER_PERCENTILE))
        if chosen < finest_allowed:
            chosen = finest_allowed + 1e-5
        spacing[coarse] = chosen
        why = (
            f"median {show(median)} over {len(spacings)} cases; axis {'zyx'[coarse]} is over {ANISOTROPY} times "
            f"coarser than the others, so it takes the {FINER_PERCENTILE}th percentile of its spacings, {chosen:.3g} mm"
        )
    return as_triple(spacing), why


def coarsened(spacing: Spacing, *, enough: Callable[[Spacing], bool], limit_mm: float) -> Spacing:
    """The spacing made coarser in nnU-Net's steps until `enough`, the finer axes first, none beyond `limit_mm`.

    Axes that are coarser than the limit already stay as they are.
    """
    current = np.asarray(spacing, float)
    while not enough(as_triple(current)):
        may = current * COARSENING_STEP <= limit_mm
        # As long as an axis is over twice finer than the coarsest, only such axes give way.
        finer = current * 2 < current.max()
        chosen = may & finer if (may & finer).any() else may
        if not chosen.any():
            break
        current[chosen] *= COARSENING_STEP
    return as_triple(current)


def coarsest_for_structures(fingerprint: Fingerprint) -> float:
    """Spacing in mm at which the smallest structure is still 5 voxels across; infinite without labels.

    The size of a structure is that of a ball of its largest piece's volume, median over the cases that have it.
    """
    across = []
    for name in fingerprint.swinssl.labels.names:
        volumes = [
            c.structures[name].largest_mm3 for c in fingerprint.swinssl.cases if c.structures and name in c.structures
        ]
        if volumes:
            across.append((6 * float(np.median(volumes)) / np.pi) ** (1 / 3))
    return min(across) / VOXELS_ACROSS if across else float("inf")


def show(triple: Spacing) -> str:
    """As 2 x 1.5 x 1.5."""
    return dimensions(triple, ".3g")


def as_triple(values: np.ndarray) -> Spacing:
    z, y, x = (float(value) for value in values)
    return z, y, x
