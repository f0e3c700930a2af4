"""Crops of volumes: which volume, where in it, and two views out of one region. Threads may share all of it."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from swinssl.core.errors import UserError
from swinssl.core.geometry import Shape
from swinssl.core.rng import KeyedRng
from swinssl.preprocessing.store import PreprocessedCase
from swinssl.ssl.method import Crops, Images
from swinssl.ssl.sources import SourceVolume
from swinssl.training.sampling.foreground_map import ForegroundMap
from swinssl.training.sampling.window import random_start, start_ranges

logger = logging.getLogger(__name__)

# A window should show so much of the body; the fullest of so many draws is taken where none does.
BODY_SHARE, TRIES = 0.3, 20
# Volumes drawn in place of damaged ones before the data set is given up.
MOST_DAMAGED = 100
# Samples that the mean intensity is over.
MEASURED = 32


class CropSampler:
    """Draws the crops of a sample.

    A draw depends on (seed, step, sample) and the volumes alone, so ranks, readers and resumed runs agree.

    Args:
        volumes: with their shares of the draws.
        images: size of a crop, channels.
        views: crops of a sample.
        context: edge of the region that both of two views come from, in edges of the crop; None is the whole volume.
    """

    def __init__(self, volumes: Sequence[SourceVolume], images: Images, *, views: int, context: float | None) -> None:
        self._volumes, self._images, self._views, self._context = volumes, images, views, context
        self._bounds = np.cumsum([volume.share for volume in volumes])
        self._foreground_maps: dict[str, ForegroundMap] = {}
        self.damaged: dict[str, str] = {}

    def crops(self, rng: KeyedRng) -> Crops:
        """(views, C, *patch_size) float32; what lies beyond a volume is 0.

        Raises:
            UserError: no volume can be read.
        """
        for attempt in range(MOST_DAMAGED):
            crop_rng = rng(f"crop, attempt {attempt}")
            place = np.searchsorted(self._bounds, crop_rng.random() * self._bounds[-1], side="right")
            volume = self._volumes[min(int(place), len(self._volumes) - 1)]
            if volume.name in self.damaged:
                continue
            try:
                return self._crops_of(volume, crop_rng)
            except UserError as error:
                if volume.name not in self.damaged:
                    logger.warning("%s cannot be read and is left out: %s", volume.name, error)
                self.damaged[volume.name] = str(error)
        raise UserError(
            f"{len(self.damaged)} of {len(self._volumes)} volumes cannot be read. Run swinssl_preprocess again."
        )

    def mean_intensity(self, *, seed: int) -> float:
        """Of some of the crops that a run of this seed could draw, over channels.

        Raises:
            UserError: no volume can be read.
        """
        return float(np.mean([self.crops(KeyedRng(seed, 0, sample)).mean() for sample in range(MEASURED)]))

    def _crops_of(self, volume: SourceVolume, rng: np.random.Generator) -> Crops:
        size, case = self._images.patch_size, volume.case
        foreground_map = self._foreground_map_of(volume)
        if self._views == 1 or self._context is None:
            starts = [_start_on_foreground(rng, foreground_map, case.shape, size) for _ in range(self._views)]
            return np.stack([self._read(case, start, size) for start in starts])
        region = _region_size(case.shape, size, self._context)
        whole = self._read(case, _start_on_foreground(rng, foreground_map, case.shape, region), region)
        inside = start_ranges(region, size, overhang=0)
        return np.stack([_part(whole, random_start(rng, inside), size) for _ in range(self._views)])

    def _read(self, case: PreprocessedCase, start: Shape, size: Shape) -> NDArray[np.float32]:
        return case.image_window(start, size)

    def _foreground_map_of(self, volume: SourceVolume) -> ForegroundMap:
        if volume.name not in self._foreground_maps:  # two readers may both find out; they find the same
            self._foreground_maps[volume.name] = ForegroundMap.of(volume.case)
        return self._foreground_maps[volume.name]


def _start_on_foreground(rng: np.random.Generator, foreground_map: ForegroundMap, shape: Shape, size: Shape) -> Shape:
    """A start of a window that shows enough of the body, or the most of those that were drawn."""
    ranges = start_ranges(shape, size, overhang=0)
    best, most = (0, 0, 0), -1.0
    for _ in range(TRIES):
        start = random_start(rng, ranges)
        share = foreground_map.share(start, size)
        if share > most:
            best, most = start, share
        if share >= BODY_SHARE:
            break
    return best


def _region_size(shape: Shape, size: Shape, context: float) -> Shape:
    """The region of two views: `context` crops wide, but not beyond a volume that holds a crop."""
    z, y, x = (min(math.ceil(context * edge), max(n, edge)) for n, edge in zip(shape, size, strict=True))
    return z, y, x


def _part(image: NDArray[np.float32], start: Shape, size: Shape) -> NDArray[np.float32]:
    z, y, x = (slice(first, first + edge) for first, edge in zip(start, size, strict=True))
    return image[:, z, y, x]
