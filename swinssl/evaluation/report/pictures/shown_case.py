"""How a case is shown, in a picture as in a page: where it is cropped, in which window, in which colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from swinssl.core.errors import UserError
from swinssl.core.geometry import Box, Spacing, bounding_box, expanded
from swinssl.evaluation.pairing import Pair
from swinssl.imageio.reader import read_channels
from swinssl.imageio.same_grid import compare_grids
from swinssl.imageio.volume import Geometry, Volume

# Okabe and Ito's colours, which people with colour blindness tell apart, without black; the brightest on grey first.
COLOURS = ("#E69F00", "#56B4E9", "#F0E442", "#CC79A7", "#009E73", "#D55E00", "#0072B2")
MARGIN_MM = 15.0
# Soft tissue, in HU.
CT_WINDOW = (-160.0, 240.0)


def image_on(grid: Geometry, path: Path) -> NDArray:
    """The first channel of an image that lies on a grid, (Z, Y, X) in the storage order of the grid.

    Raises:
        UserError: the file cannot be read, or lies elsewhere.
    """
    image = read_channels([path])
    comparison = compare_grids(image.geometry, grid)
    if not comparison.same:
        raise UserError(f"{path} {comparison.describe('the labels')}.")
    return comparison.axes.apply(image.array[0])


def canonical_map(case: str, path: Path, reference: Path) -> tuple[NDArray, Geometry]:
    """A label map of a case, (Z, Y, X) with axes to superior, anterior and right, and its grid.

    Raises:
        UserError: it cannot be read, has values that are no labels, or lies on another grid than the reference.
    """
    _, labels, geometry = Pair(case, path, reference).read()
    canonical, _ = Volume(labels[None], geometry).canonical()
    return canonical.array[0], canonical.geometry


def window_of(image: NDArray, *, ct: bool) -> tuple[float, float]:
    """The intensities shown black and white: soft tissue for CT, else all but a hundredth at either end."""
    if ct:
        return CT_WINDOW
    low, high = np.percentile(image, (1, 99))
    return float(low), float(high)


def box_around(mask: NDArray[np.bool_], spacing: Spacing) -> Box:
    """The bounding box of a non-empty (Z, Y, X) mask, with a margin."""
    return expanded(bounding_box(mask), [round(MARGIN_MM / mm) for mm in spacing], mask.shape)
