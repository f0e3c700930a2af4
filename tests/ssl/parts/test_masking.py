"""Masks: how many cells, of which size, and which tokens of the deep map they hide."""

from __future__ import annotations

import math

import numpy as np
import pytest

from swinssl.core.errors import UserError
from swinssl.core.rng import generator
from swinssl.ssl.parts.masking import at_stage4, cell_tokens, random_mask


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5, 0.7, 0.75, 0.99])
@pytest.mark.parametrize(("tokens", "cell"), [((48, 48, 48), (8, 8, 8)), ((16, 32, 32), (4, 8, 2))])
def test_as_many_cells_are_masked_as_the_ratio_asks_rounded_up(tokens, cell, ratio):
    mask = random_mask(generator(0, "mask"), tokens=tokens, cell=cell, ratio=ratio)
    z, y, x = (n // c for n, c in zip(tokens, cell, strict=True))
    by_cell = mask.reshape(z, cell[0], y, cell[1], x, cell[2]).mean(axis=(1, 3, 5))
    assert set(np.unique(by_cell)) <= {0.0, 1.0}
    assert by_cell.sum() == math.ceil(round(ratio * z * y * x, 6))


def test_smit_masks_152_of_216_cells_at_its_ratio():
    mask = random_mask(generator(0, "mask"), tokens=(48, 48, 48), cell=(8, 8, 8), ratio=0.7)
    assert mask.sum() == 152 * 8**3


def test_every_cell_is_masked_equally_often():
    count = np.zeros((2, 2, 4))
    for number in range(2000):
        count += random_mask(generator(0, "mask", number), tokens=(2, 2, 4), cell=(1, 1, 1), ratio=0.75)
    np.testing.assert_allclose(count / 2000, 0.75, atol=0.05)


def test_cells_that_do_not_fit_are_cut_off_at_the_end():
    mask = random_mask(generator(1, "mask"), tokens=(5, 4, 4), cell=(4, 4, 4), ratio=0.5)
    assert mask.shape == (5, 4, 4) and mask.sum() in (16, 64)


@pytest.mark.parametrize(
    ("cell", "spacing", "tokens"),
    [("16", (3, 3, 3), (8, 8, 8)), ("24mm", (3, 1.5, 1.5), (4, 8, 8)), ("1", (1, 1, 1), (1, 1, 1))],
)
def test_cells_are_given_in_voxels_or_mm(cell, spacing, tokens):
    assert cell_tokens(cell, spacing=spacing) == tokens


@pytest.mark.parametrize("cell", ["0", "-3", "wide", "mm", "nan"])
def test_a_cell_that_is_no_length_is_refused(cell):
    with pytest.raises(UserError, match="--mask-cell"):
        cell_tokens(cell, spacing=(1, 1, 1))


def test_a_deep_token_is_masked_when_more_than_half_of_it_is():
    mask = np.zeros((8, 8, 16), dtype=bool)
    mask[:4], mask[4, 0, 0] = True, True
    mask[4, 0, 8] = False
    assert at_stage4(mask).tolist() == [[[True, False]]]
