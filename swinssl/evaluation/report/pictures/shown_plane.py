"""One plane of a case in a picture: its image in grey, reference and prediction as contours on it.

Planes lie along the patient's axes and look as radiologists expect: the patient's right on the left, anterior and
superior up, anterior left in sagittal planes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from swinssl.core.geometry import Spacing
from swinssl.core.pictures import legend_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Per plane: its name, and the letters at left, right, bottom and top.
PLANES = (("axial", "RLPA"), ("coronal", "RLIS"), ("sagittal", "APIS"))
STYLES: dict[str, Any] = {"reference": "solid", "prediction": "dashed"}


def draw_plane(
    axes: Axes,
    image: NDArray | None,
    masks: Mapping[str, NDArray[np.bool_]],
    *,
    axis: int,
    index: int,
    spacing: Spacing,
    window: tuple[float, float] | None,
    colours: Mapping[str, str],
) -> None:
    """Draw the plane `index` along an axis.

    Args:
        image: canonical (Z, Y, X); black where there is none.
        masks: by structure, reference and prediction (2, Z, Y, X).
        window: intensities shown black and white.
    """
    up, across = (mm for i, mm in enumerate(spacing) if i != axis)
    shape = image.shape if image is not None else next(iter(masks.values())).shape[1:]
    rows, columns = (n for i, n in enumerate(shape) if i != axis)
    extent = (0.0, columns * across, 0.0, rows * up)
    # Contours run between voxel centres.
    x, y = (np.arange(columns) + 0.5) * across, (np.arange(rows) + 0.5) * up
    if image is not None and window is not None:
        low, high = window
        picture = _plane(image, axis, index)
        axes.imshow(picture, cmap="gray", vmin=low, vmax=high, origin="lower", extent=extent, interpolation="nearest")
    axes.set(facecolor="black", xlim=extent[:2], ylim=extent[2:], xticks=[], yticks=[], aspect="equal")
    for name, both in masks.items():
        for mask, style in zip(both, STYLES.values(), strict=True):
            plane = _plane(mask, axis, index)
            if plane.any():
                axes.contour(x, y, plane, levels=[0.5], colors=colours[name], linestyles=style, linewidths=1.3)
    for letter, (right, top) in zip(PLANES[axis][1], ((0.03, 0.5), (0.97, 0.5), (0.5, 0.03), (0.5, 0.97)), strict=True):
        place: dict[str, Any] = {"ha": "center", "va": "center", "transform": axes.transAxes}
        ground = {"facecolor": "black", "edgecolor": "none", "alpha": 0.6, "pad": 1.5}
        axes.text(right, top, letter, color="white", fontsize=9, bbox=ground, **place)


def draw_legend(figure: Figure, colours: Mapping[str, str], *, title: str | None = None) -> None:
    """What colours and lines mean, below a picture."""
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color=colour, label=legend_name(name), linewidth=2) for name, colour in colours.items()]
    lines += [Line2D([], [], color="black", linestyle=style, label=name) for name, style in STYLES.items()]
    figure.legend(handles=lines, loc="outside lower center", ncols=5, fontsize=9, frameon=False, title=title)


def _plane(array: NDArray, axis: int, index: int) -> NDArray:
    """Rows upwards, columns to the right: x and, in sagittal planes, y run against their axis."""
    return np.take(array, index, axis=axis)[:, ::-1]
