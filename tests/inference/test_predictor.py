"""Prediction from a volume as read: it lies on the volume's grid, however that is stored, and where the image says."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from support.made_models import make_plans, smooth_noise, volume_of

from swinssl.dataset.labels import LabelSet
from swinssl.imageio.volume import AxisMap, Geometry, Volume
from swinssl.inference.predictor import Predictor
from swinssl.inference.source_grid import SourceGrid
from swinssl.preprocessing.prepared_volume import prepare

ONE = LabelSet(names=("bright",), values=((4,),))
REGIONS = LabelSet(names=("any", "bright"), values=((1, 2), (2,)), regions=True, region_order=(1, 2))
SMALL = (16, 16, 16)


class Bright(torch.nn.Module):
    """Structure where the first channel exceeds a threshold."""

    def __init__(self, *thresholds, regions=False):
        super().__init__()
        self.thresholds, self.regions = thresholds, regions

    def forward(self, image):
        above = [image[:, :1] - threshold for threshold in self.thresholds]
        return torch.cat(above if self.regions else [torch.zeros_like(image[:, :1]), *above], 1)


def predictor_of(network, labels=ONE, **changes):
    plans = make_plans(labels, **{"patch_size": SMALL, **changes})
    return Predictor.of([network], plans, device=torch.device("cpu"), bf16=False)


def every_axis_map():
    return [
        AxisMap(order, flips)
        for order in itertools.permutations(range(3))
        for flips in itertools.product((False, True), repeat=3)
    ]


def stored_as(volume, axes):
    """The same image in the same place, stored so that `axes` brings it to the volume's own order."""
    back = AxisMap(
        tuple(axes.order.index(i) for i in range(3)), tuple(axes.flips[axes.order.index(i)] for i in range(3))
    )
    return Volume(np.ascontiguousarray(axes.invert(volume.array)), volume.geometry.mapped(back))


def oblique(shape, spacing=(2.5, 1.1, 0.9)):
    turned = Rotation.from_euler("zyx", [17, -11, 23], degrees=True).as_matrix()
    return Geometry.from_parts(shape, spacing=spacing, origin=(40, -3, 11), direction=turned)


class TestGeometry:
    @pytest.mark.parametrize("axes", every_axis_map(), ids=str)
    @pytest.mark.parametrize("turned", [False, True], ids=["straight", "oblique"])
    def test_result_lies_on_the_files_grid_and_does_not_depend_on_how_it_is_stored(self, axes, turned):
        """All 48 permutations and flips of the axes, with a crop, another spacing and several windows."""
        array = smooth_noise((11, 20, 26), seed=3)
        array[:2], array[:, -3:], array[..., :4] = 0, 0, 0
        canonical = Volume(array[None], oblique(array.shape)) if turned else volume_of(array, (2.5, 1.1, 0.9))
        predictor = predictor_of(Bright(0.3), spacing=(1.6, 1.0, 1.2), crop_to_nonzero=True)
        expected = predictor.predict(canonical).label_map
        assert 0.1 < (expected == 4).mean() < 0.9
        stored = stored_as(canonical, axes)
        found = predictor.predict(stored).label_map
        assert found.shape == stored.geometry.shape
        np.testing.assert_array_equal(axes.apply(found), expected)

    @pytest.mark.parametrize("shape", [(5, 6, 7), (2, 30, 30), (1, 20, 20), (40, 9, 33), SMALL], ids=str)
    def test_of_any_size(self, shape):
        volume = volume_of(smooth_noise(shape, sigma=1))
        found = predictor_of(Bright(0.0)).predict(volume).label_map
        np.testing.assert_array_equal(found, np.where(volume.array[0] > 0, 4, 0))

    @pytest.mark.parametrize("plan_spacing", [(1.0, 1.0, 1.0), (2.0, 2.0, 2.0), (3.0, 1.5, 0.8)], ids=str)
    @pytest.mark.parametrize("spacing", [(3.0, 1.0, 1.0), (1.0, 1.4, 0.7)], ids=str)
    def test_a_ball_stays_where_it_is_at_any_spacing(self, spacing, plan_spacing):
        shape = tuple(round(60 / mm) for mm in spacing)
        places = np.meshgrid(*((np.arange(n) + 0.5) * mm for n, mm in zip(shape, spacing, strict=True)), indexing="ij")
        centre, radius = np.array([28.3, 33.1, 24.7]), 14.0
        distance = np.sqrt(sum((own - c) ** 2 for own, c in zip(places, centre, strict=True)))
        image = np.clip(radius - distance, -3, 3).astype(np.float32)
        found = predictor_of(Bright(0.0), spacing=plan_spacing).predict(volume_of(image, spacing)).label_map > 0
        centroid = [own[found].mean() for own in places]
        np.testing.assert_allclose(centroid, centre, atol=0.15)
        volume = found.sum() * np.prod(spacing)
        assert volume == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.04)


class TestPredictor:
    def test_stored_case_and_volume_give_the_same(self):
        volume = volume_of(smooth_noise((20, 24, 28)), (2.0, 1.0, 1.0))
        predictor = predictor_of(Bright(0.2))
        prepared = prepare(volume, predictor.plans)
        stored = prepared.properties("case")
        found = predictor.segment(prepared.image, SourceGrid.of(stored)).label_map
        np.testing.assert_array_equal(found, predictor.predict(volume).label_map)
        assert SourceGrid.of(stored).shape == SourceGrid.of(prepared).shape == prepared.shape

    @pytest.mark.parametrize("shape", [(20, 24, 28), (12, 40, 18), (8, 9, 50)], ids=str)
    def test_on_the_grid_it_gives_the_winning_structures(self, shape):
        image = smooth_noise((1, *shape))
        found = predictor_of(Bright(-0.5, 0.8), LabelSet(names=("a", "b"), values=((7,), (9,)))).segment_on_grid(image)
        a, b = image[0] + 0.5, image[0] - 0.8
        np.testing.assert_array_equal(found, np.stack([np.zeros(shape), a, b]).argmax(0))

    def test_on_the_grid_it_gives_a_mask_for_each_region(self):
        image = smooth_noise((1, 20, 24, 18))
        found = predictor_of(Bright(0.0, 0.5, regions=True), REGIONS).segment_on_grid(image)
        assert found.dtype == bool
        np.testing.assert_array_equal(found, np.stack([image[0] > 0, image[0] > 0.5]))

    @pytest.mark.parametrize("labels", [ONE, REGIONS], ids=["exclusive", "regions"])
    def test_where_memory_is_short_it_works_in_strips_and_gives_the_same(self, labels, caplog):
        network = Bright(0.1, 0.3, regions=True) if labels.regions else Bright(0.2)
        predictor = predictor_of(network, labels, spacing=(2.0, 1.5, 1.2))
        short = replace(predictor, sum_bytes=100_000)
        volume = Volume(smooth_noise((1, 33, 41, 47)), oblique((33, 41, 47)))
        whole = predictor.predict(volume, probabilities=True)
        assert not caplog.messages
        with caplog.at_level("INFO"):
            found = short.predict(volume, probabilities=True)
        assert "strips" in caplog.text
        assert whole.label_map.any()
        np.testing.assert_array_equal(found.label_map, whole.label_map)
        # Vectors of another length round otherwise.
        np.testing.assert_allclose(found.probabilities, whole.probabilities, atol=3e-7)
        image = prepare(volume, predictor.plans).image
        assert short.window_count(image.shape[1:]) > predictor.window_count(image.shape[1:])
        np.testing.assert_array_equal(short.segment_on_grid(image), predictor.segment_on_grid(image))

    def test_regions_write_their_values_later_ones_over_earlier_ones(self):
        volume = volume_of(smooth_noise((20, 24, 18)))
        found = predictor_of(Bright(0.0, 0.5, regions=True), REGIONS).predict(volume).label_map
        image = volume.array[0]
        np.testing.assert_array_equal(found, np.where(image > 0.5, 2, np.where(image > 0, 1, 0)))

    def test_probabilities_lie_on_the_files_grid_too(self):
        volume = volume_of(smooth_noise((12, 10, 30)).transpose(2, 0, 1))
        stored = stored_as(volume, AxisMap((2, 0, 1), (True, False, True)))
        found = predictor_of(Bright(0.0)).predict(stored, probabilities=True)
        expected = 1 / (1 + np.exp(-stored.array[0]))
        np.testing.assert_allclose(found.probabilities[1], expected, atol=1e-5)
        np.testing.assert_array_equal(found.probabilities.argmax(0) * 4, found.label_map)

    def test_mirror_images_follow_the_plans(self):
        plans = make_plans(mirror_axes=(0, 1))
        device = torch.device("cpu")
        assert Predictor.of([Bright(0)], plans, device=device, mirror=True).windows.mirror_axes == (0, 1)
        assert Predictor.of([Bright(0)], plans, device=device).windows.mirror_axes == ()
