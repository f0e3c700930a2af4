"""Surface distances against closed formulas, a slow implementation written here, and published numbers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from skimage.measure import marching_cubes, mesh_surface_area
from support.shapes import ball, box

from swinssl.metrics import surface_distance as module
from swinssl.metrics.surface_distance import far_false_positives, surface_distances, surfel_areas

SPACINGS = [(1.0, 1.0, 1.0), (3.0, 1.5, 0.7), (0.5, 2.0, 5.0)]


def reference_surfels(mask, spacing):
    """Place (mm) and area of every corner whose eight voxels differ, corner by corner."""
    padded = np.pad(mask, 1).astype(int)
    areas = surfel_areas(spacing)
    places, found = [], []
    for corner in itertools.product(*(range(n - 1) for n in padded.shape)):
        voxels = [padded[tuple(np.add(corner, step))] for step in itertools.product((0, 1), repeat=3)]
        if 0 < sum(voxels) < 8:
            places.append(np.multiply(corner, spacing))
            found.append(areas[int("".join(map(str, voxels)), 2)])
    return np.array(places), np.array(found)


def reference_scores(reference, prediction, spacing, tolerance, percent=95):
    """HD95, mean distance and surface Dice from all pairs of surfels."""
    (a, a_areas), (b, b_areas) = reference_surfels(reference, spacing), reference_surfels(prediction, spacing)
    table = cdist(a, b)
    both = [(table.min(axis=1), a_areas), (table.min(axis=0), b_areas)]
    percentiles = []
    for distances, areas in both:
        limits = sorted(set(distances))
        covered = [areas[distances <= limit].sum() >= percent / 100 * areas.sum() - 1e-9 for limit in limits]
        percentiles.append(limits[covered.index(True)])
    distances, areas = (np.concatenate(parts) for parts in zip(*both, strict=True))
    within = areas[distances <= tolerance + 1e-6].sum() / areas.sum()
    return max(percentiles), (distances * areas).sum() / areas.sum(), within


def scores(reference, prediction, spacing, tolerance):
    found = surface_distances(reference, prediction, spacing)
    return found.hausdorff(), found.mean(), found.dice(tolerance)


class TestAreas:
    @pytest.mark.parametrize(("z", "y", "x"), SPACINGS)
    def test_a_box_has_faces_edges_and_corners(self, z, y, x):
        a, b, c = 4, 5, 6
        faces = 2 * ((b - 1) * (c - 1) * y * x + (a - 1) * (c - 1) * z * x + (a - 1) * (b - 1) * z * y)
        # An edge is cut off across half a voxel on both sides, a corner by the triangle through three such cuts.
        edges = 4 * sum(
            (n - 1) * along * math.hypot(p, q) / 2 for n, along, p, q in ((a, z, y, x), (b, y, z, x), (c, x, z, y))
        )
        corner = math.sqrt((y * x) ** 2 + (z * x) ** 2 + (z * y) ** 2) / 8
        mask = box((a, b, c), (0, 0, 0), (a, b, c))
        found = surface_distances(mask, mask, (z, y, x)).reference_areas
        assert found.sum() == pytest.approx(faces + edges + 8 * corner, rel=1e-12)

    @pytest.mark.parametrize("spacing", SPACINGS)
    def test_a_ball_has_the_area_of_its_marching_cubes_mesh(self, spacing):
        mask = ball((17, 21, 31), (8, 10, 15), 7.3, spacing)
        points, faces, _, _ = marching_cubes(np.pad(mask, 1).astype(float), 0.5, spacing=spacing)
        found = surface_distances(mask, mask, spacing).reference_areas
        assert found.sum() == pytest.approx(mesh_surface_area(points, faces), rel=1e-6)

    def test_a_mask_and_its_complement_have_one_surface(self):
        areas = surfel_areas((3.0, 1.5, 0.7))
        assert np.allclose(areas, areas[::-1], rtol=1e-12) and areas[0] == 0 and (areas[1:255] > 0).all()

    def test_turning_and_mirroring_a_cell_keeps_its_area(self):
        areas = surfel_areas((1.0, 1.0, 1.0))
        cells = np.array([[code >> bit & 1 for bit in range(7, -1, -1)] for code in range(256)]).reshape(256, 2, 2, 2)
        powers = 2 ** np.arange(7, -1, -1)
        for order in itertools.permutations((1, 2, 3)):
            for flips in itertools.product((1, -1), repeat=3):
                turned = cells.transpose(0, *order)[:, :: flips[0], :: flips[1], :: flips[2]].reshape(256, 8) @ powers
                assert np.allclose(areas[turned], areas)

    def test_published_sums(self):
        """Two noisy masks, which have every kind of cell: sums printed by `surface-distance` 0.1."""
        a, b = np.random.default_rng(7).random((2, 7, 9, 8)) < np.array([0.35, 0.45])[:, None, None, None]
        found = surface_distances(a, b, (3.0, 1.5, 0.7))
        assert (len(found.reference_areas), len(found.prediction_areas)) == (601, 665)
        assert found.reference_areas.sum() == pytest.approx(1028.675000448948, rel=1e-12)
        assert found.prediction_areas.sum() == pytest.approx(1388.1521318206348, rel=1e-12)
        assert (found.hausdorff(), found.hausdorff(100)) == pytest.approx((0.7, 3.0))
        expected = (0.9210633599367156, 0.9738962236827371, 0.9958647628023336)
        assert [found.dice(mm) for mm in (0.5, 1.0, 2.0)] == pytest.approx(expected, abs=1e-12)


class TestDistances:
    @pytest.mark.parametrize("spacing", SPACINGS)
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_a_face_that_moves_is_as_far_as_it_moved(self, spacing, axis):
        size = [5, 6, 7]
        reference = box((9, 10, 11), (0, 0, 0), size)
        size[axis] += 3
        found = surface_distances(reference, box((9, 10, 11), (0, 0, 0), size), spacing)
        assert found.hausdorff(100) == pytest.approx(3 * spacing[axis])

    def test_concentric_balls_are_their_radii_apart(self):
        spacing = (1.0, 0.5, 0.25)
        small, large = (ball((25, 49, 97), (12, 24, 48), radius, spacing) for radius in (6.0, 10.0))
        found = surface_distances(small, large, spacing)
        # Every surfel lies within half a voxel's diagonal of its sphere.
        slack = math.hypot(*spacing)
        assert abs(found.mean() - 4.0) < slack and abs(found.hausdorff() - 4.0) < slack
        assert found.dice(4.0 - slack) == 0 and found.dice(4.0 + slack) == 1

    def test_published_numbers(self):
        """Two balls: numbers printed by `surface-distance` 0.1."""
        spacing = (2.5, 1.25, 0.9)
        found = surface_distances(
            ball((17, 34, 44), (8, 15, 20), 14, spacing), ball((17, 34, 44), (8, 17, 26), 10, spacing), spacing
        )
        assert (found.hausdorff(), found.hausdorff(100)) == pytest.approx((9.0, 10.23095792191523), rel=1e-12)
        to_prediction, to_reference = 4.519230112544111, 2.6833673169058385
        areas = 2822.166600259561, 1394.7824914693742
        mean = (to_prediction * areas[0] + to_reference * areas[1]) / sum(areas)
        assert found.mean() == pytest.approx(mean, rel=1e-12)
        expected = (0.23594981874963591, 0.45956743333202255, 0.6216138935835507)
        assert [found.dice(mm) for mm in (1.0, 3.0, 5.0)] == pytest.approx(expected, abs=1e-12)

    @given(seed=st.integers(0, 10**6), density=st.sampled_from([0.02, 0.3, 0.8]), spacing=st.sampled_from(SPACINGS))
    @example(seed=1103, density=0.02, spacing=(1, 1, 1))  # 95 % of the area to the last digit
    @settings(max_examples=25, deadline=None)
    def test_noise_against_all_pairs(self, seed, density, spacing):
        reference, prediction = np.random.default_rng(seed).random((2, 5, 6, 4)) < density
        reference[2, 2, 2] = prediction[0, 1, 3] = True
        found = scores(reference, prediction, spacing, 1.5)
        assert found == pytest.approx(reference_scores(reference, prediction, spacing, 1.5), rel=1e-9)

    @pytest.mark.parametrize("leaf", [1, 32])
    @pytest.mark.parametrize(
        "prediction",
        [
            ball((14, 15, 16), (11, 12, 13), 2),
            ball((14, 15, 16), (7, 7, 8), 6),
            box((14, 15, 16), (0, 0, 0), (14, 15, 1)),
        ],
        ids=["far away", "round it", "a sheet"],
    )
    def test_wherever_the_prediction_is(self, monkeypatch, prediction, leaf):
        spacing = (2.5, 1.0, 0.8)
        reference = ball((14, 15, 16), (6, 6, 7), 3)
        monkeypatch.setattr(module, "LEAF", leaf)
        found = scores(reference, prediction, spacing, 4.0)
        assert found == pytest.approx(reference_scores(reference, prediction, spacing, 4.0), rel=1e-9)

    def test_equal_masks_do_not_differ(self):
        mask = ball((9, 9, 9), (4, 4, 4), 3)
        assert scores(mask, mask, (2.0, 1.0, 1.0), 0.1) == (0, 0, 1)

    def test_reference_and_prediction_may_change_places(self):
        a, b = ball((12, 12, 12), (5, 5, 5), 4), ball((12, 12, 12), (6, 7, 5), 3)
        assert scores(a, b, (3.0, 1.0, 1.0), 2.0) == pytest.approx(scores(b, a, (3.0, 1.0, 1.0), 2.0))

    def test_exchanging_axes_with_their_spacing_changes_nothing(self):
        a, b = ball((8, 10, 12), (4, 5, 6), 3), ball((8, 10, 12), (4, 6, 5), 2)
        turned = scores(a.transpose(2, 0, 1), b.transpose(2, 0, 1), (0.7, 3.0, 1.5), 2.0)
        assert turned == pytest.approx(scores(a, b, (3.0, 1.5, 0.7), 2.0))

    def test_a_mask_is_closed_at_the_border_of_the_array(self):
        mask = box((4, 5, 6), (0, 0, 0), (4, 5, 3))
        inside = box((8, 9, 10), (2, 2, 2), (4, 5, 3))
        areas = [surface_distances(m, m, (1.0, 1.0, 1.0)).reference_areas.sum() for m in (mask, inside)]
        assert areas[0] == areas[1]

    @pytest.mark.parametrize("voxel", [2.0, math.hypot(1.2, 1.6), float(np.float32(2.0000002))])
    def test_rounding_of_the_spacing_does_not_decide_about_the_tolerance(self, voxel):
        """A shift of one voxel of 2 mm is within 2 mm, however the 2 is stored."""
        a, b = box((6, 6, 6), (1, 1, 1), (3, 3, 3)), box((6, 6, 6), (2, 1, 1), (3, 3, 3))
        assert surface_distances(a, b, (voxel, 1.0, 1.0)).dice(2.0) == 1

    @pytest.mark.parametrize("empty", [0, 1])
    def test_nothing_is_measured_to_an_empty_mask(self, empty):
        masks = [box((3, 3, 3), (0, 0, 0), (1, 1, 1))] * 2
        masks[empty] = np.zeros((3, 3, 3), bool)
        with pytest.raises(ValueError, match="empty"):
            surface_distances(*masks, (1.0, 1.0, 1.0))


class TestFarFalsePositives:
    @pytest.mark.parametrize("spacing", [(3.0, 3.0, 3.0), (5.0, 0.9, 0.9), (0.7, 2.0, 4.1)])
    def test_is_what_all_pairs_of_voxels_say(self, spacing):
        rng = np.random.default_rng(3)
        reference, prediction = np.zeros((14, 22, 20), bool), rng.random((14, 22, 20)) < 0.05
        reference[6:8, 8:12, 3:6] = reference[7, 9, 6:9] = True
        ends = np.argwhere(reference) * spacing
        by_hand = sum(
            np.sqrt(((ends - np.array(place) * spacing) ** 2).sum(axis=1)).min() > 15
            for place in np.argwhere(prediction)
        )
        assert far_false_positives(reference, prediction, spacing) == by_hand > 0

    def test_fifteen_millimetres_are_not_far_and_the_next_voxel_is(self):
        reference, prediction = np.zeros((2, 40), bool).reshape(1, 2, 40), np.zeros((1, 2, 40), bool)
        reference[0, 0, :3] = True
        prediction[0, 0, [0, 7, 8]] = True  # on it, 15 mm and 18 mm away
        assert far_false_positives(reference, prediction, (3.0, 3.0, 3.0)) == 1
        spacing = float(np.float32(3.0000001))
        assert far_false_positives(reference, prediction, (spacing,) * 3) == 1

    def test_an_empty_prediction_has_none_and_an_empty_reference_no_answer(self):
        empty, full = np.zeros((3, 3, 3), bool), np.ones((3, 3, 3), bool)
        assert far_false_positives(full, empty, (1, 1, 1)) == 0
        with pytest.raises(ValueError, match="empty mask"):
            far_false_positives(empty, full, (1, 1, 1))
