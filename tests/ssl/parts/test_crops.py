"""Which crops a run sees: on the body, padded where volumes are small, two views from one region, sources weighed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from support.stored_cases import make_case

from swinssl.core.errors import UserError
from swinssl.core.rng import KeyedRng
from swinssl.preprocessing.store import PreprocessedCase
from swinssl.ssl.method import Images
from swinssl.ssl.parts.crops import CropSampler
from swinssl.ssl.sources import SourceVolume


def volume(folder, name, image, share=1.0):
    make_case(folder, name, np.zeros(image.shape, np.uint8), image=image[None].astype(np.float32), annotated=False)
    return SourceVolume(name, PreprocessedCase.open(folder, name), share)


def sampler(volumes, *, patch=(16, 16, 16), views=1, context=4 / 3):
    return CropSampler(volumes, Images(patch, (1, 1, 1), 1), views=views, context=context)


def places(shape):
    """An image whose values say where they are."""
    z, y, x = np.meshgrid(*map(np.arange, shape), indexing="ij")
    return 1 + z + 64 * y + 64**2 * x


def place_of(crop):
    value = int(crop[0, 0, 0, 0]) - 1
    return np.array([value % 64, value // 64 % 64, value // 64**2])


def test_crops_show_the_body_and_not_bare_air(tmp_path):
    image = np.zeros((96, 64, 64))
    image[70:96, 16:48, 16:48] = 0.5
    image[80, 20, 20] = 1.0
    drawn = sampler([volume(tmp_path, "a", image)])
    shown = [float((drawn.crops(KeyedRng(0, step, 0)) > 0).mean()) for step in range(40)]
    assert np.mean([share > 0.25 for share in shown]) > 0.9


def test_the_mean_intensity_is_that_of_the_crops(tmp_path):
    volumes = [volume(tmp_path, name, np.full((32, 32, 32), value)) for name, value in (("a", 0.2), ("b", 0.6))]
    assert sampler(volumes).mean_intensity(seed=0) == pytest.approx(0.4, abs=0.1)
    assert sampler(volumes[1:], views=2).mean_intensity(seed=0) == pytest.approx(0.6, rel=1e-3)


def test_a_volume_smaller_than_the_crop_is_padded_with_nothing(tmp_path):
    image = 0.1 + np.random.default_rng(0).random((10, 40, 12))
    crop = sampler([volume(tmp_path, "a", image)]).crops(KeyedRng(0, 0, 0))
    assert crop.shape == (1, 1, 16, 16, 16)
    assert np.count_nonzero(crop) == 10 * 16 * 12


def test_two_views_lie_in_a_region_a_third_wider_than_a_crop(tmp_path):
    drawn = sampler([volume(tmp_path, "a", places((60, 60, 60)))], patch=(12, 12, 12), views=2)
    apart = []
    for step in range(60):
        first, second = drawn.crops(KeyedRng(0, step, 0))
        apart.append(np.abs(place_of(first) - place_of(second)))
    assert np.max(apart) == 4  # 16 - 12
    assert np.mean(apart) > 0.5


def test_whole_lets_views_lie_anywhere_in_the_volume(tmp_path):
    drawn = sampler([volume(tmp_path, "a", places((60, 60, 60)))], patch=(12, 12, 12), views=2, context=None)
    apart = [np.abs(place_of(a) - place_of(b)) for a, b in (drawn.crops(KeyedRng(0, step, 0)) for step in range(60))]
    assert np.max(apart) > 30


def test_volumes_are_drawn_by_their_shares(tmp_path):
    names = {"a": 0.7, "b": 0.2, "c": 0.1}
    volumes = [volume(tmp_path, n, np.full((16, 16, 16), 1.0 + i), share) for i, (n, share) in enumerate(names.items())]
    drawn = sampler(volumes)
    count = Counter(int(drawn.crops(KeyedRng(0, step, 0)).max()) for step in range(600))
    assert [count[value] / 600 for value in (1, 2, 3)] == pytest.approx([0.7, 0.2, 0.1], abs=0.06)


def test_a_draw_depends_on_seed_step_and_sample_alone(tmp_path):
    volumes = [volume(tmp_path, name, places((40, 40, 40)) + i) for i, name in enumerate("ab")]
    first, second = sampler(volumes), sampler(volumes)
    second.crops(KeyedRng(3, 9, 1))
    assert (first.crops(KeyedRng(0, 5, 2)) == second.crops(KeyedRng(0, 5, 2))).all()
    assert not (first.crops(KeyedRng(0, 5, 3)) == first.crops(KeyedRng(0, 5, 2))).all()


def test_a_damaged_volume_is_left_out_with_a_word(tmp_path, caplog):
    volumes = [volume(tmp_path, name, 1 + np.random.default_rng(0).random((40, 40, 40)), 0.5) for name in "ab"]
    path = volumes[0].case.folder / "image.b2nd"
    path.write_bytes(path.read_bytes()[:200] + b"\0" * (path.stat().st_size - 200))
    drawn = sampler(volumes)
    for step in range(10):
        assert drawn.crops(KeyedRng(0, step, 0)).max() > 0
    assert list(drawn.damaged) == ["a"] and caplog.text.count("is left out") == 1


def test_where_no_volume_can_be_read_it_says_so(tmp_path):
    volumes = [volume(tmp_path, "a", np.ones((20, 20, 20)))]
    (volumes[0].case.folder / "image.b2nd").unlink()
    with pytest.raises(UserError, match="1 of 1 volumes cannot be read"):
        sampler(volumes).crops(KeyedRng(0, 0, 0))
