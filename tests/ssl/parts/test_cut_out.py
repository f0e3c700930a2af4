"""Boxes of noise, and quarter turns."""

from __future__ import annotations

import numpy as np
import pytest

from swinssl.core.errors import UserError
from swinssl.core.rng import generator
from swinssl.ssl.parts.cut_out import cut_out
from swinssl.ssl.parts.rot90 import require_square, rot90


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.6])
def test_boxes_cover_what_was_asked_and_at_most_a_box_more(ratio):
    image = np.full((2, 40, 40, 40), 0.5, dtype=np.float32)
    noisy, covered = cut_out(generator(0, "boxes"), image, ratio=ratio)
    assert ratio <= covered.mean() <= ratio + 0.25**3
    assert (image == 0.5).all()
    assert (noisy[:, ~covered] == 0.5).all()
    assert noisy.min() >= 0 and noisy.max() <= 1 and noisy[:, covered].std() > 0.05


def test_the_same_draws_give_the_same_boxes():
    image = np.zeros((1, 20, 20, 20), dtype=np.float32)
    first, again, other = (cut_out(generator(seed, "boxes"), image, ratio=0.3)[0] for seed in (0, 0, 1))
    assert (first == again).all() and not (first == other).all()


@pytest.mark.parametrize(("plane", "axes"), [("yx", (1, 2)), ("zx", (0, 2)), ("zy", (0, 1))])
def test_a_quarter_turn_moves_a_point_in_its_plane_alone(plane, axes):
    image = np.zeros((1, 4, 4, 4), dtype=np.float32)
    place = [1, 1, 1]
    place[axes[0]], place[axes[1]] = 0, 2
    image[(0, *place)] = 1
    # A quarter turn takes (i, j) of n x n to (n - 1 - j, i).
    expected = list(place)
    expected[axes[0]], expected[axes[1]] = 3 - place[axes[1]], place[axes[0]]
    assert np.argwhere(rot90(image, 1, plane=plane)[0]).tolist() == [expected]
    assert (rot90(image, 4, plane=plane) == image).all()


def test_only_squares_can_be_turned():
    require_square((32, 64, 64), "yx")
    with pytest.raises(UserError, match="32 x 64"):
        require_square((32, 64, 64), "zx")
