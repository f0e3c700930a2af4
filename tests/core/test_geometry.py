"""Boxes of voxel arrays, checked against brute force."""

from __future__ import annotations

import numpy as np

from swinssl.core.geometry import (
    EMPTY_BOX,
    bounding_box,
    bounds_of,
    box_of,
    box_shape,
    expanded,
    union,
    value_boxes,
    whole_box,
)


def test_bounding_box_is_half_open_and_tight() -> None:
    mask = np.zeros((6, 7, 8), bool)
    mask[2:4, 5, 1] = True
    mask[3, 6, 7] = True
    assert bounding_box(mask) == (slice(2, 4), slice(5, 7), slice(1, 8))
    assert bounding_box(mask[:2]) == EMPTY_BOX
    assert mask[EMPTY_BOX].size == 0


def test_bounds_are_the_box_as_numbers() -> None:
    box = (slice(2, 4), slice(0, 7), slice(1, 8))
    assert bounds_of(box) == ((2, 4), (0, 7), (1, 8))
    assert box_of(bounds_of(box)) == box
    assert box_shape(box) == (2, 7, 7) and box_shape(whole_box((3, 4, 5))) == (3, 4, 5)


def test_value_boxes_span_all_arrays() -> None:
    first, second = np.zeros((2, 4, 5, 6), int)
    first[1, 2, 3], second[3, 2, 5] = 2, 2
    second[0, 0, 0] = 5
    boxes = value_boxes(first, second)
    assert boxes == {2: (slice(1, 4), slice(2, 3), slice(3, 6)), 5: (slice(0, 1),) * 3}
    assert union(boxes.values()) == (slice(0, 4), slice(0, 3), slice(0, 6)) and union([]) == EMPTY_BOX


def test_a_margin_stays_inside_the_array() -> None:
    box = (slice(1, 4), slice(2, 3), slice(3, 6))
    assert expanded(box, (2, 1, 1), (5, 9, 6)) == (slice(0, 5), slice(1, 4), slice(2, 6))
