"""nnU-Net v1's recipe: deterministic in spite of global generators, and on the same footing as our own."""

from __future__ import annotations

import random

import numpy as np
import pytest

from swinssl.core.rng import KeyedRng
from swinssl.training.augmentation.batchgenerators_recipe import augment, read_size

PATCH = (12, 16, 14)
UNIT = (1.0, 1.0, 1.0)


def augmented(step, image, label, **changes):
    values = {"patch_size": PATCH, "spacing": UNIT, "mirror_axes": (0, 1, 2), "outside": 255}
    return augment(KeyedRng(0, step, 0), image, label, **{**values, **changes})


@pytest.fixture
def source():
    size = read_size(PATCH, UNIT)
    generator = np.random.default_rng(0)
    return generator.random((2, *size), dtype=np.float32), generator.integers(0, 3, size).astype(np.uint8)


def test_the_draws_alone_decide_and_global_generators_stay_as_they_were(source):
    np.random.seed(5)
    random.seed(5)
    before = np.random.get_state()[1].copy(), random.getstate()
    first = [augmented(step, *source) for step in range(12)]
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])
    assert random.getstate() == before[1]
    np.random.seed(77)
    random.seed(77)
    for (image, label), again in zip(first, (augmented(step, *source) for step in range(12)), strict=True):
        np.testing.assert_array_equal(image, again[0])
        np.testing.assert_array_equal(label, again[1])
    assert len({image.tobytes() for image, _ in first}) > 8


def test_shapes_types_and_codes_are_kept(source):
    for step in range(20):
        image, label = augmented(step, *source)
        assert image.shape == (2, *PATCH)
        assert image.dtype == np.float32
        assert label.dtype == np.uint8
        assert set(np.unique(label)) <= {0, 1, 2, 255}


def test_only_allowed_axes_are_mirrored(source):
    """The label changes by rotation, zoom and mirroring alone; without the first two, only by mirroring."""
    image, label = source
    cut = tuple(slice((n - p) // 2, (n - p) // 2 + p) for n, p in zip(label.shape, PATCH, strict=True))
    mirrored = {"plain": label[cut], "z": label[cut][::-1], "y": label[cut][:, ::-1], "zy": label[cut][::-1, ::-1]}
    seen = set()
    for step in range(40):
        _, out = augmented(step, image, label, spatial=False, mirror_axes=(0, 1))
        seen |= {name for name, expected in mirrored.items() if np.array_equal(out, expected)} or {"another"}
    assert seen == set(mirrored)
    _, out = augmented(0, image, label, spatial=False, mirror_axes=())
    np.testing.assert_array_equal(out, mirrored["plain"])


@pytest.mark.parametrize(("spacing", "flat"), [((5.0, 1.0, 1.0), 0), ((1.0, 1.0, 5.0), 2)])
def test_thick_slices_are_not_mixed(spacing, flat):
    """A label that is constant within each slice stays so, whatever is turned or zoomed in the plane."""
    size = read_size(PATCH, spacing)
    assert size[flat] == PATCH[flat]
    assert all(size[a] > PATCH[a] for a in range(3) if a != flat)
    label = np.moveaxis(np.broadcast_to(np.arange(PATCH[flat], dtype=np.uint8), (99, 99, PATCH[flat])), 2, flat)
    label = np.ascontiguousarray(label[tuple(slice(n) for n in size)])
    image = np.random.default_rng(0).random((1, *size), dtype=np.float32)
    for step in range(12):
        _, out = augmented(step, image, label, spacing=spacing, mirror_axes=())
        for index, slice_ in enumerate(np.moveaxis(out, flat, 0)):
            assert set(np.unique(slice_)) <= {index, 255}


def test_noise_is_scaled_by_the_patchs_deviation(source):
    """Scaling the image scales the result: no step has an absolute size in it."""
    image, label = source
    for step in range(30):
        small, _ = augmented(step, image * np.float32(0.25), label)
        large, _ = augmented(step, image, label)
        np.testing.assert_allclose(small * 4, large, atol=2e-4)
