"""From a patch's place to tensors: padding, augmentation that keeps the sampler's promise, threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from support.stored_cases import TUMOUR, make_case, make_plans

from swinssl.core.rng import KeyedRng
from swinssl.dataset.labels import LabelSet
from swinssl.training.augmentation.pipeline import draw_augmentation
from swinssl.training.sampling.patches import load_patch, read_window
from swinssl.training.sampling.sampler import Patch, make_sampler

SHAPE = (24, 28, 30)
OUTSIDE = TUMOUR.outside_code


@pytest.fixture(scope="module")
def label():
    out = np.zeros(SHAPE, np.uint8)
    out[4:20, 4:20, 4:20] = 1
    out[10:13, 10:13, 10:13] = 2
    return out


@pytest.fixture(scope="module")
def image():
    # Exact in float16, which the store may choose.
    return (np.random.default_rng(0).integers(1, 1024, (2, *SHAPE)) / 1024).astype(np.float32)


@pytest.fixture(scope="module")
def case(label, image, tmp_path_factory):
    return make_case(tmp_path_factory.mktemp("patches"), "a", label, image=image)


@pytest.mark.parametrize(
    "start",
    [(0, 0, 0), (5, 6, 7), (-5, -16, 3), (20, 20, 29), (-40, 0, 0), (24, 0, 0)],
    ids=["corner", "inside", "before", "behind", "all before", "all behind"],
)
def test_a_window_is_the_volume_padded(case, image, label, start):
    size = (16, 18, 20)
    found_image, found_label = read_window(case, start, size, outside=OUTSIDE)
    margin = 60
    padded_image = np.pad(image, ((0, 0), *((margin, margin),) * 3))
    padded_label = np.pad(label, margin, constant_values=OUTSIDE)
    window = tuple(slice(s + margin, s + margin + n) for s, n in zip(start, size, strict=True))
    np.testing.assert_array_equal(found_image, padded_image[(slice(None), *window)])
    np.testing.assert_array_equal(found_label, padded_label[window])
    assert found_image.dtype == np.float32


def test_without_augmentation_the_patch_is_the_window(case, image, label):
    plans = make_plans(channels=2)
    found_image, found_label = load_patch(
        case, Patch("a", (3, 4, 5)), plans=plans, rng=KeyedRng(0, 0, 0), augmentation="none"
    )
    assert found_image.dtype == torch.float32
    assert found_label.dtype == torch.uint8
    np.testing.assert_array_equal(found_image, image[:, 3:19, 4:20, 5:21])
    np.testing.assert_array_equal(found_label, label[3:19, 4:20, 5:21])


def test_rotation_and_zoom_show_what_lies_round_the_patch_not_padding(case):
    plans = make_plans(channels=2, patch_size=(8, 8, 8))
    turned = 0
    for step in range(60):
        draws = KeyedRng(0, step, 0)
        drawn = draw_augmentation(draws, patch_size=(8, 8, 8), channels=2, mirror_axes=(0, 1, 2), spacing=(1, 1, 1))
        if drawn.spatial is None:
            continue
        turned += 1
        _, label = load_patch(case, Patch("a", (8, 10, 11)), plans=plans, rng=draws, augmentation="default")
        assert OUTSIDE not in label.unique()
    assert turned > 10


@pytest.mark.parametrize("augmentation", ["default", "batchgenerators"])
def test_patches_with_and_without_tumour_stay_1_to_1_under_augmentation(case, augmentation):
    plans = make_plans(channels=2, sampling="tumour", patch_size=(8, 8, 8))
    sampler = make_sampler({"a": case}, plans)
    shown = []
    for n in range(120):
        draws = KeyedRng(3, *divmod(n, 2))
        patch = sampler.locate(draws, batch_size=2)
        _, label = load_patch(case, patch, plans=plans, rng=draws, augmentation=augmentation)
        shown.append(bool((label == 2).any()))
    assert all(first != second for first, second in zip(shown[0::2], shown[1::2], strict=True))


@pytest.mark.parametrize("augmentation", ["default", "batchgenerators"])
def test_threads_read_what_one_thread_reads(case, augmentation):
    plans = make_plans(channels=2)
    sampler = make_sampler({"a": case}, plans)

    def load(step):
        draws = KeyedRng(0, step, 0)
        return load_patch(case, sampler.locate(draws, batch_size=1), plans=plans, rng=draws, augmentation=augmentation)

    alone = [load(step) for step in range(24)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(load, range(24)))
    for (image, label), (other_image, other_label) in zip(alone, together, strict=True):
        assert torch.equal(image, other_image)
        assert torch.equal(label, other_label)
        assert image.shape == (2, 16, 16, 16)
        assert torch.isfinite(image).all()


def test_over_253_structures_the_codes_come_as_int32(tmp_path):
    labels = LabelSet(names=tuple(f"s{i}" for i in range(300)), values=tuple((i + 1,) for i in range(300)))
    label = np.zeros((20, 20, 20), np.uint16)
    label[5:15, 5:15, 5:15] = 280
    case = make_case(tmp_path, "a", label, labels=labels)
    plans = make_plans(labels)
    for augmentation in ("none", "default", "batchgenerators"):
        for step in range(8):
            _, found = load_patch(
                case, Patch("a", (-2, 3, 3)), plans=plans, rng=KeyedRng(0, step, 0), augmentation=augmentation
            )
            assert found.dtype == torch.int32
            assert set(found.unique().tolist()) <= {0, 280, 65535}
