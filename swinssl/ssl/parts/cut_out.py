"""Boxes of noise in an image, for a network to reconstruct (SwinUNETR's pretraining, arXiv 2111.14791)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

# Edges of a box as shares of the image's, and boxes drawn before less than the wanted share is accepted.
SHORTEST, LONGEST = 0.05, 0.25
MOST_BOXES = 500


def cut_out(
    rng: np.random.Generator, image: NDArray[np.float32], *, ratio: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """An image with boxes replaced by noise.

    Boxes are added until they cover at least `ratio` of the voxels. Each is filled with normal noise scaled to [0, 1].

    Args:
        image: (C, Z, Y, X); not modified.
        ratio: fraction of the voxels, in [0, 1).

    Returns:
        (C, Z, Y, X) image, and (Z, Y, X) True inside the boxes.
    """
    shape = image.shape[1:]
    noisy, covered = image.copy(), np.zeros(shape, dtype=bool)
    wanted, boxes = ratio * math.prod(shape), 0
    while np.count_nonzero(covered) < wanted and boxes < MOST_BOXES:
        edges = [int(rng.integers(max(1, int(SHORTEST * n)), max(1, int(LONGEST * n)) + 1)) for n in shape]
        first = [int(rng.integers(0, n - edge + 1)) for n, edge in zip(shape, edges, strict=True)]
        z, y, x = (slice(f, f + edge) for f, edge in zip(first, edges, strict=True))
        noise = rng.standard_normal((len(image), *edges), dtype=np.float32)
        low, high = noise.min(), noise.max()
        noisy[:, z, y, x] = (noise - low) / max(high - low, 1e-6)
        covered[z, y, x] = True
        boxes += 1
    return noisy, covered
