"""Which part of a case shows anything at all, so that patches of bare air are not drawn."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swinssl.core.geometry import Shape
from swinssl.preprocessing.store import PreprocessedCase

# One voxel in 4^3 stands for its neighbours: a 512 x 512 x 300 CT becomes 1.2 MB.
STRIDE = 4
SLAB = 32
# Above the lowest intensity by this share of the case's range; interpolation leaves faint ripples round the body.
FAINT = 0.01
# A window shows the body if this share of it does.
LEAST_SHARE = 0.01
# Number of draws before a window of bare air is accepted.
TRIES = 50


@dataclass(frozen=True, eq=False)
class ForegroundMap:
    """A coarse map of where a case is brighter than its lowest intensity.

    Args:
        coarse: (ceil(Z / 4), ceil(Y / 4), ceil(X / 4)) booleans, one for each fourth voxel along every axis.
    """

    coarse: NDArray[np.bool_]

    @classmethod
    def of(cls, case: PreprocessedCase) -> ForegroundMap:
        """The map of a stored case, read in slabs so that a large one never lies in memory whole."""
        depth, height, width = case.shape
        fourth = slice(None, None, STRIDE)
        slabs = []
        for z in range(0, depth, SLAB):
            slab = case.image((slice(z, min(z + SLAB, depth)), slice(0, height), slice(0, width)))
            slabs.append(slab[:, fourth, fourth, fourth].copy())
        image = np.concatenate(slabs, axis=1)
        low, high = (extreme(image, axis=(1, 2, 3), keepdims=True) for extreme in (np.min, np.max))
        return cls((image > low + FAINT * (high - low)).any(axis=0))

    def showing(self, draw: Callable[[], Shape], patch_size: Shape) -> Shape:
        """The first of several drawn window starts that shows some of the body; the last one where none does."""
        start = draw()
        for _ in range(TRIES - 1):
            if self.shown_by(start, patch_size):
                break
            start = draw()
        return start

    def shown_by(self, start: Shape, patch_size: Shape) -> bool:
        """Whether the window at `start` shows more than a trace of it."""
        return self._shown(start, patch_size) >= max(LEAST_SHARE * math.prod(patch_size), 1)

    def share(self, start: Shape, patch_size: Shape) -> float:
        """How much of the window at `start` shows it, 0 to about 1."""
        return self._shown(start, patch_size) / math.prod(patch_size)

    def _shown(self, start: Shape, patch_size: Shape) -> int:
        """Voxels of the window that show it, from one in 4^3."""
        inside = tuple(
            slice(-(-max(s, 0) // STRIDE), -(-max(s + p, 0) // STRIDE)) for s, p in zip(start, patch_size, strict=True)
        )
        return int(np.count_nonzero(self.coarse[inside])) * STRIDE**3
