"""All numbers of a case: which voxels they are made of, and what becomes of empty maps."""

from __future__ import annotations

import numpy as np
import pytest
from support.shapes import ball

from swinssl.dataset.labels import LabelSet
from swinssl.imageio.volume import Geometry
from swinssl.metrics.case_metrics import case_metrics, case_overlaps
from swinssl.metrics.lesions import LesionCounts
from swinssl.metrics.structures import Structure, coded_structures, raw_structures
from swinssl.metrics.surface_distance import surface_distances

SHAPE, SPACING = (12, 20, 24), (2.5, 1.0, 0.8)
GRID = Geometry.from_parts(SHAPE, spacing=SPACING)
ORGAN, TUMOUR, REST = (
    Structure("organ", (1,), "1"),
    Structure("tumour", (5,), "5", lesions=True),
    Structure("rest", (9,), "9"),
)
WHOLE = Structure("whole", (1, 5), "(1, 5)")


def label_map(organ=(6, 9, 10), tumour=(6, 9, 12)):
    label = np.zeros(SHAPE, np.uint8)
    label[ball(SHAPE, organ, 6.5, SPACING)] = 1
    label[ball(SHAPE, tumour, 3.4, SPACING)] = 5
    return label


@pytest.fixture
def maps():
    return label_map(), label_map((6, 10, 11), (6, 8, 13))


def measure(reference, prediction, *structures, **options):
    return case_metrics(reference, prediction, structures=structures, geometry=GRID, **options)


class TestNumbers:
    def test_a_structure_is_measured_as_its_masks_are(self, maps):
        reference, prediction = maps
        found = measure(*maps, ORGAN, TUMOUR, WHOLE, tolerances=(1.0, 3.0))
        for structure in (ORGAN, TUMOUR, WHOLE):
            masks = [np.isin(array, structure.values) for array in (reference, prediction)]
            distances = surface_distances(*masks, SPACING)
            surface = found[structure.name].surface
            assert surface.hd95 == pytest.approx(distances.hausdorff())
            assert surface.mean_distance == pytest.approx(distances.mean())
            assert surface.dice == pytest.approx((distances.dice(1.0), distances.dice(3.0)))
            dice = 2 * (masks[0] & masks[1]).sum() / (masks[0].sum() + masks[1].sum())
            assert found[structure.name].overlap.dice == pytest.approx(dice)

    def test_what_is_far_from_the_reference_is_measured_against_its_volume(self):
        reference, prediction = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
        reference[:2, :5, :4] = prediction[:2, :5, :4] = 1
        prediction[8:10, 15:, 20:] = 1  # 20 mm away and as large
        prediction[4, 0, 0] = 1  # 7.5 mm away
        reference[11, 0, 0] = 5
        found = measure(reference, prediction, ORGAN, TUMOUR, REST)
        assert found["organ"].far_false_positives == 1.0
        assert found["tumour"].far_false_positives == 0 and found["rest"].far_false_positives is None
        assert measure(prediction, reference, ORGAN)["organ"].far_false_positives == 0
        swapped = measure(np.zeros(SHAPE, np.uint8), prediction, ORGAN)["organ"]
        assert swapped.far_false_positives is None  # nothing to be far from

    def test_volumes_are_in_ml(self, maps):
        found = measure(*maps, TUMOUR)["tumour"]
        voxels = [(array == 5).sum() for array in maps]
        assert (found.reference_ml, found.prediction_ml) == pytest.approx(tuple(0.002 * n for n in voxels))
        assert found.volume_error_ml == pytest.approx(0.002 * (voxels[1] - voxels[0]))
        assert found.volume_error_percent == pytest.approx(100 * (voxels[1] / voxels[0] - 1))

    def test_lesions_are_counted_where_a_structure_has_them(self, maps):
        found = measure(*maps, ORGAN, TUMOUR)
        assert found["organ"].lesions is None and found["tumour"].lesions == LesionCounts(1, 1, 1, 1)

    def test_an_oblique_grid_has_the_same_distances(self, maps):
        turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
        oblique = Geometry.from_parts(SHAPE, spacing=SPACING, direction=turn)
        tilted = case_metrics(*maps, structures=[ORGAN], geometry=oblique)["organ"]
        straight = measure(*maps, ORGAN)["organ"]
        assert tilted.surface.hd95 == pytest.approx(straight.surface.hd95)
        assert tilted.reference_ml == pytest.approx(straight.reference_ml)

    def test_codes_measure_as_raw_values_do(self, maps):
        labels = LabelSet(
            names=("organ", "tumour", "both"),
            values=((1,), (5,), (1, 5)),
            regions=True,
            region_order=(1, 5, 5),
            ignore_value=7,
        )
        reference, prediction = maps
        reference[:2] = 7
        raw = measure(reference, prediction, *raw_structures(labels), ignore=7)
        codes = [labels.encode(array) for array in (reference, prediction)]
        codes[0][3, 0] = labels.outside_code  # outside the image's mask, which is background
        assert measure(*codes, *coded_structures(labels), ignore=labels.ignore_code) == raw

    def test_overlap_alone_is_the_same_overlap(self, maps):
        found = case_overlaps(*maps, structures=[ORGAN, WHOLE], ignore=5)
        assert found == {name: m.overlap for name, m in measure(*maps, ORGAN, WHOLE, ignore=5).items()}


class TestIgnore:
    def test_what_lies_under_the_ignore_label_does_not_matter(self, maps):
        reference, prediction = maps
        reference[:5] = 9
        other = prediction.copy()
        other[:5] = 0
        assert measure(reference, prediction, ORGAN, TUMOUR, ignore=9) == measure(
            reference, other, ORGAN, TUMOUR, ignore=9
        )

    def test_ignored_voxels_are_not_counted(self, maps):
        reference, prediction = maps
        reference[:5] = 9
        overlap = measure(reference, prediction, ORGAN, ignore=9)["organ"].overlap
        assert overlap.tp + overlap.fp + overlap.fn + overlap.tn == 7 * 20 * 24

    def test_agreement_outside_it_is_full_agreement(self, maps):
        reference = maps[0].copy()
        reference[:5] = 9
        found = measure(reference, maps[0], ORGAN, ignore=9)["organ"]
        assert (found.overlap.dice, found.surface.hd95, found.surface.dice) == (1, 0, (1,))


class TestEmpty:
    def test_neither_has_it(self, maps):
        found = measure(*maps, REST)["rest"]
        assert found.both_empty and not found.false_negative and not found.false_positive and found.surface is None
        assert (
            found.overlap.dice is found.surface_dice(0) is found.volume_error_ml is found.volume_error_percent is None
        )

    @pytest.mark.parametrize("absent_from", ["prediction", "reference"])
    def test_one_has_it(self, absent_from):
        full, empty = label_map(), np.zeros(SHAPE, np.uint8)
        found = measure(*((full, empty) if absent_from == "prediction" else (empty, full)), TUMOUR)["tumour"]
        assert (found.false_negative, found.false_positive) == (absent_from == "prediction", absent_from == "reference")
        assert (found.overlap.dice, found.surface, found.surface_dice(0)) == (0, None, 0)
        volume = 0.002 * (full == 5).sum()
        if absent_from == "prediction":
            assert (found.volume_error_ml, found.volume_error_percent) == (pytest.approx(-volume), -100)
        else:
            assert (found.volume_error_ml, found.volume_error_percent) == (pytest.approx(volume), None)

    def test_a_structure_hidden_by_the_ignore_label_is_in_neither(self, maps):
        reference, prediction = maps
        reference[reference == 0] = 9
        reference[reference == 5] = 9
        prediction[prediction != 5] = 0
        reference[prediction == 5] = 9
        assert measure(reference, prediction, TUMOUR, ignore=9)["tumour"].both_empty
