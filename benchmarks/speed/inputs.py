"""What the stages work on: a real CT enlarged to the size that is asked for, and label maps, sparse and dense."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from swinssl.core.errors import UserError
from swinssl.imageio.reader import read_label
from swinssl.imageio.volume import Volume

Shape = tuple[int, int, int]

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
# A 3 mm CT has less noise than a thin one.
NOISE_HU = 12.0
AIR_HU = -1024


def real_data() -> Path:
    """Folder with real volumes and data sets.

    Raises:
        UserError: there is none on this machine.
    """
    folder = Path(os.environ.get("SWINSSL_TEST_DATA") or SHARED)
    if not (folder / "volumes").is_dir():
        raise UserError(f"{folder}: no real data. Set SWINSSL_TEST_DATA to the folder with raw/ and volumes/.")
    return folder


def ct(shape: Shape, *, seed: int = 0) -> NDArray[np.int16]:
    """TotalSegmentator's example CT at another size, in HU, with the noise of a thin CT."""
    image = _enlarged(_volume("wholebody_ct.nii.gz").astype(np.float32), shape, order=1)
    noise = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32) * NOISE_HU
    return np.clip(np.rint(image + noise), AIR_HU, None).astype(np.int16)


def mr(shape: Shape, *, seed: int = 0) -> NDArray[np.float32]:
    """An MR at another size, zero outside the body as after skull stripping."""
    image = _enlarged(_volume("wholebody_mr.nii.gz").astype(np.float32), shape, order=1)
    noise = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32) * (0.02 * image.std())
    return np.where(image > np.percentile(image, 30), image + noise, 0).astype(np.float32)


def organs(shape: Shape, *, classes: int = 15) -> NDArray[np.uint8]:
    """The example CT's label map with its `classes` largest structures, background 0."""
    labels = _volume("wholebody_ct_61classes.nii.gz").astype(np.int64)
    counts = np.bincount(labels.reshape(-1))
    counts[0] = 0
    codes = np.zeros(len(counts), np.uint8)
    for code, value in enumerate(np.argsort(counts)[::-1][:classes], start=1):
        codes[value] = code
    return _enlarged(codes[labels], shape, order=0)


def blobs(shape: Shape, *, classes: int = 15, share: float = 0.023, seed: int = 0) -> NDArray[np.uint8]:
    """Ellipsoids, so many per cent of the volume in all: the sparse case."""
    draws = np.random.default_rng(seed)
    out = np.zeros(shape, np.uint8)
    radius = (share / classes * 3 / (4 * np.pi)) ** (1 / 3) * np.array(shape)
    for code in range(1, classes + 1):
        own = radius * draws.uniform(0.7, 1.3, 3)
        centre = draws.uniform(own, np.array(shape) - own)
        low = np.maximum(np.floor(centre - own), 0).astype(int)
        high = np.minimum(np.ceil(centre + own) + 1, shape).astype(int)
        z, y, x = (((np.arange(a, b) - c) / r) ** 2 for a, b, c, r in zip(low, high, centre, own, strict=True))
        part = out[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        part[z[:, None, None] + y[:, None] + x <= 1] = code
    return out


def size(shape: tuple[int, ...]) -> str:
    """A shape in words."""
    return " x ".join(map(str, shape))


def shares(array: NDArray) -> str:
    """How much of a label map is foreground, in words."""
    return f"{np.unique(array).size - 1} labels, {np.mean(array > 0):.1%} foreground"


def _volume(name: str) -> NDArray:
    volume: Volume = read_label(real_data() / "volumes" / name)
    return volume.canonical()[0].array[0]


def _enlarged(array: NDArray, shape: Shape, *, order: int) -> NDArray:
    zoom = [new / old for old, new in zip(array.shape, shape, strict=True)]
    return ndimage.zoom(array, zoom, order=order, mode="nearest", grid_mode=True)
