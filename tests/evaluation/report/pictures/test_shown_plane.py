"""Planes as radiologists expect them."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from swinssl.evaluation.report.pictures.shown_plane import draw_plane


@pytest.mark.parametrize(
    ("place", "axis", "expected"),
    [
        ((slice(None), slice(None), 3), 0, [1, 0, 0, 0]),  # x grows to the patient's right, which is shown on the left
        ((slice(None), 2), 2, [1, 0, 0]),  # y grows to anterior, which is on the left of a sagittal plane
    ],
)
def test_right_and_anterior_are_on_the_left(place, axis, expected):
    volume = np.zeros((2, 3, 4))
    volume[place] = 1
    axes = Figure().subplots()
    draw_plane(axes, volume, {}, axis=axis, index=0, spacing=(3.0, 2.0, 1.0), window=(0, 1), colours={})
    assert np.asarray(axes.images[0].get_array())[0].tolist() == expected
    assert axes.images[0].origin == "lower"  # superior or anterior up


def test_contours_lie_where_the_voxels_are_in_mm():
    mask = np.zeros((2, 4, 6, 8), bool)
    mask[0, 1, 2:4, 2:5] = True  # reference only
    axes = Figure().subplots()
    draw_plane(axes, None, {"a": mask}, axis=0, index=1, spacing=(3.0, 2.0, 1.0), window=None, colours={"a": "red"})
    (drawn,) = axes.collections
    box = drawn.get_paths()[0].get_extents()
    # x from the right: voxels 2 to 4 of 8 are columns 3 to 5, in mm; a contour runs half way to the next voxel.
    assert [box.x0, box.x1, box.y0, box.y1] == pytest.approx([3.0, 6.0, 4.0, 8.0])
