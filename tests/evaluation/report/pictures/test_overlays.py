"""Figure 5: which cases, which plane, what is seen of it."""

from __future__ import annotations

import numpy as np
import pytest

from swinssl.evaluation.report.html.content import Case
from swinssl.evaluation.report.pictures.overlays import overlays_figure, typical_cases
from swinssl.imageio.volume import Geometry
from swinssl.imageio.writer import write_volume
from swinssl.metrics.structures import Structure

SHAPE = (6, 40, 60)
GRID = Geometry.from_parts(SHAPE, spacing=(5, 2, 1))
ORGAN = Structure.of_value(1)


@pytest.fixture
def case(tmp_path):
    """The reference is in planes 1 to 4; one model is wrong in plane 3, a third drew nothing."""
    reference = np.zeros(SHAPE, np.uint8)
    reference[1:5, 18:22, 20:40] = 1
    wrong = reference.copy()
    wrong[3, 18:20] = 0
    wrong[0] = 1  # a plane without reference is not the one to show
    image = np.broadcast_to(np.arange(6.0)[:, None, None], SHAPE)
    paths = {name: tmp_path / f"{name}.nii.gz" for name in ("image", "reference", "right", "wrong")}
    for name, array in zip(paths, (image.astype(np.float32), reference, reference, wrong), strict=True):
        write_volume(paths[name], array, GRID)
    predictions = {"right": paths["right"], "wrong": paths["wrong"], "none": tmp_path / "nowhere.nii.gz"}
    scores = {"right": {ORGAN.name: 1.0}, "wrong": {ORGAN.name: 0.5}}
    return Case("task", "a", paths["image"], paths["reference"], predictions, scores, (ORGAN,))


def test_all_models_are_shown_in_the_plane_where_one_is_most_wrong(case):
    figure = overlays_figure([case], ["right", "wrong", "none"])
    assert [axes.get_title() for axes in figure.axes] == ["right: 1.000", "wrong: 0.500", "none: no prediction"]
    assert {float(np.unique(axes.images[0].get_array()).item()) for axes in figure.axes} == {3.0}


def test_a_model_whose_prediction_lies_elsewhere_is_not_taken_for_one_that_drew_nothing(case):
    case.predictions["wrong"].unlink()
    figure = overlays_figure([case], ["right", "wrong"])
    assert [axes.get_title() for axes in figure.axes] == ["right: 1.000", "wrong: 0.500, no prediction"]


def test_a_square_round_what_was_drawn_is_seen(case):
    figure = overlays_figure([case], ["right"])
    left, right, bottom, top = figure.axes[0].images[0].get_extent()
    # The organ is 20 mm wide, with 15 mm on either side.
    assert right - left == pytest.approx(50) and top - bottom == pytest.approx(50)


def test_the_worst_a_middling_and_the_best_case_are_chosen(case):
    def scored(name, dice):
        return Case("task", name, case.image, case.reference, {}, {"m": {ORGAN.name: dice}})

    cases = [scored("b", 0.5), scored("a", 0.9), scored("d", None), scored("c", 0.1), scored("e", 0.6)]
    assert [one.case for one in typical_cases(cases)] == ["c", "b", "a"]
    assert [one.case for one in typical_cases(cases[:1])] == ["b"] and typical_cases([]) == []


def test_without_a_reference_there_is_no_figure(case, tmp_path):
    gone = Case("task", "a", case.image, tmp_path / "gone.nii.gz", case.predictions, case.scores, (ORGAN,))
    assert overlays_figure([gone], ["right"]) is None and overlays_figure([], ["right"]) is None
