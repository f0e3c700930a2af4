"""What is cleaned up: only what helps, by numbers that an evaluation of cleaned files gives too."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.measure import label as components_of

from swinssl.dataset.labels import LabelSet
from swinssl.evaluation.aggregate import make_report
from swinssl.evaluation.evaluate import evaluate
from swinssl.evaluation.reference_labels import ReferenceLabels
from swinssl.experiments.postprocessing_choice import LEAST_GAIN, choose_postprocessing
from swinssl.imageio.reader import read_label
from swinssl.imageio.volume import Geometry
from swinssl.imageio.writer import write_volume

SHAPE = (24, 24, 24)
GRID = Geometry.from_parts(SHAPE, spacing=(2.0, 1.0, 1.0))
LABELS = LabelSet(names=("liver", "lesion"), values=((1,), (5,)))


def block(array, start, size, value):
    array[tuple(slice(a, a + size) for a in start)] = value


def organ_with_lesions():
    """A liver, and two lesions apart from it and from each other."""
    label = np.zeros(SHAPE, np.uint8)
    block(label, (2, 2, 2), 8, 1)
    block(label, (14, 14, 14), 4, 5)
    block(label, (20, 20, 20), 3, 5)
    return label


class Folders:
    """References and predictions of cases 0, 1, 2 ..."""

    def __init__(self, folder, references, predictions, labels=LABELS, present=None):
        self.folder, self.labels, self.present = folder, labels, present or {}
        for name, maps in (("references", references), ("predictions", predictions)):
            for number, label_map in enumerate(maps):
                write_volume(folder / name / f"{number}.nii.gz", label_map, GRID)

    def evaluate(self, predictions="predictions"):
        labels = ReferenceLabels(self.folder / "dataset.json", self.labels, self.present)
        return evaluate(self.folder / predictions, self.folder / "references", labels=labels, workers=0)

    def choose(self, **how):
        return choose_postprocessing(self.evaluate(), self.labels, fold_sha256={"0": "aa"}, **how)

    def dice_where_only_the_largest_is_kept(self, *groups):
        """Mean Dice by structure, and of all: clean files by scikit-image, evaluate the folder."""
        for path in (self.folder / "predictions").iterdir():
            label_map = read_label(path).array[0].copy()
            for values in groups:
                parts = components_of(np.isin(label_map, values), connectivity=3)
                sizes = np.bincount(parts[parts > 0], minlength=2)
                label_map[(parts > 0) & (parts != sizes.argmax())] = 0
            write_volume(self.folder / f"cleaned{groups}" / path.name, label_map, GRID)
        report = make_report(self.evaluate(f"cleaned{groups}"))
        each = {one.structure.name: one.averages["Dice"].mean for one in report.structures}
        return {**each, "all": report.dice.mean}


@pytest.fixture
def folders(tmp_path):
    """Predictions with false pieces of liver; lesions are right as they are, in two parts."""
    references, predictions = [], []
    for number in range(3):
        reference = organ_with_lesions()
        prediction = reference.copy()
        block(prediction, (2, 2, 2), 1 + number, 0)  # imperfect
        block(prediction, (2, 16, 2), 3 - number, 1)  # false, and apart
        references.append(reference)
        predictions.append(prediction)
    return Folders(tmp_path, references, predictions)


def by_structures(trials):
    return {trial.structures: trial for trial in trials}


def test_a_structure_that_gets_better_is_cleaned_and_one_that_gets_worse_is_not(folders):
    found = folders.choose()
    assert found.groups == (("liver",),)
    rejected = by_structures(found.rejected)
    assert rejected.keys() == {("liver", "lesion"), ("lesion",)}
    raw = folders.dice_where_only_the_largest_is_kept()
    liver, lesion, both = (folders.dice_where_only_the_largest_is_kept(g) for g in ((1,), (5,), (1, 5)))
    (applied,) = found.applied
    assert (applied.before, applied.after) == pytest.approx((raw["liver"], liver["liver"]))
    assert (applied.better, applied.worse, applied.cases) == (3, 0, 3)
    one = rejected["lesion",]
    assert (one.before, one.after) == pytest.approx((raw["lesion"], lesion["lesion"])) and raw["lesion"] == 1
    assert (one.better, one.worse, one.cases) == (0, 3, 3)
    one = rejected["liver", "lesion"]
    assert (one.before, one.after) == pytest.approx((raw["all"], both["all"]))
    assert found.fold_sha256 == {"0": "aa"}


def test_the_whole_foreground_comes_first_and_the_structures_on_top_of_it(tmp_path):
    reference = np.zeros(SHAPE, np.uint8)
    block(reference, (2, 2, 2), 8, 1)
    block(reference, (10, 2, 2), 4, 5)  # touches the liver
    prediction = reference.copy()
    block(prediction, (18, 18, 18), 5, 1)  # far away
    block(prediction, (18, 2, 18), 5, 5)
    block(prediction, (2, 10, 2), 2, 5)  # a false lesion that touches the liver
    folders = Folders(tmp_path, [reference] * 3, [prediction] * 3)
    found = folders.choose()
    assert found.groups == (("liver", "lesion"), ("lesion",))
    assert by_structures(found.rejected).keys() == {("liver",)}  # nothing is left to remove
    together, lesion = found.applied
    first = folders.dice_where_only_the_largest_is_kept((1, 5))
    then = folders.dice_where_only_the_largest_is_kept((1, 5), (5,))
    assert together.after == pytest.approx(first["all"])
    assert (lesion.before, lesion.after) == pytest.approx((first["lesion"], then["lesion"])) and then["lesion"] == 1


def with_crumb(size, value=1):
    label = organ_with_lesions()
    block(label, (2, 16, 2), size, value)
    return label


def broken_in_two():
    """The liver is predicted whole but for a gap; the smaller part is real."""
    label = organ_with_lesions()
    label[7, 2:10, 2:10] = 0
    return label


@pytest.mark.parametrize(
    ("predictions", "cleaned"),
    [
        # A voxel beside 512 costs a Dice of 1/1025, which is below the least gain; eight are above it.
        ([with_crumb(1)] * 3, False),
        ([with_crumb(2)] * 3, True),
        ([with_crumb(2), organ_with_lesions(), organ_with_lesions()], True),
        # A large gain in one case, a loss in two: the mean rises, and still it is not done.
        ([with_crumb(7), broken_in_two(), broken_in_two()], False),
        ([with_crumb(7), with_crumb(7), broken_in_two(), broken_in_two()], True),
        ([organ_with_lesions()] * 3, False),
    ],
)
def test_only_a_gain_that_is_worth_it_in_as_many_cases_as_lose_counts(tmp_path, predictions, cleaned):
    folders = Folders(tmp_path, [organ_with_lesions()] * len(predictions), predictions)
    found = folders.choose()
    assert (("liver",) in found.groups) == cleaned
    trial = by_structures((*found.applied, *found.rejected))["liver",]
    raw, liver = folders.dice_where_only_the_largest_is_kept(), folders.dice_where_only_the_largest_is_kept((1,))
    assert (trial.before, trial.after) == pytest.approx((raw["liver"], liver["liver"]))
    assert cleaned == (liver["liver"] - raw["liver"] >= LEAST_GAIN and trial.worse <= trial.better)


@pytest.mark.parametrize(
    ("predictions", "cleaned"),
    [
        ([with_crumb(7), with_crumb(7), organ_with_lesions()], True),
        # One case of gain is no measurement, and one that loses is a warning, whatever the mean.
        ([with_crumb(7), organ_with_lesions(), organ_with_lesions()], False),
        ([with_crumb(7), with_crumb(7), with_crumb(7), broken_in_two()], False),
    ],
)
def test_where_cases_were_learnt_from_none_may_get_worse(tmp_path, predictions, cleaned):
    folders = Folders(tmp_path, [organ_with_lesions()] * len(predictions), predictions)
    assert (("liver",) in folders.choose().groups) or not cleaned
    found = folders.choose(strict=True, measured_on="training cases")
    assert (("liver",) in found.groups) == cleaned and found.measured_on == "training cases"
    # A tumour in two real parts is left alone.
    assert not any("lesion" in group for group in found.groups)


def test_a_gain_of_all_that_costs_one_structure_is_not_taken(tmp_path):
    """The far liver is false and the far lesion is real: the mean over both rises all the same."""
    reference = np.zeros(SHAPE, np.uint8)
    block(reference, (2, 2, 2), 8, 1)
    block(reference, (10, 2, 2), 4, 5)  # touches the liver
    block(reference, (20, 20, 20), 2, 5)
    prediction = reference.copy()
    block(prediction, (2, 12, 12), 7, 1)
    found = Folders(tmp_path, [reference] * 2, [prediction] * 2).choose()
    trial = by_structures(found.rejected)["liver", "lesion"]
    assert trial.after > trial.before + LEAST_GAIN and trial.better == 2
    assert found.groups == (("liver",),)


def test_a_structure_that_is_invented_and_vanishes_has_got_better(tmp_path):
    reference = np.zeros(SHAPE, np.uint8)
    block(reference, (2, 2, 2), 8, 1)
    prediction = reference.copy()
    block(prediction, (18, 18, 18), 3, 5)
    found = Folders(tmp_path, [reference] * 2, [prediction] * 2).choose()
    (trial,) = found.applied
    assert trial.structures == ("liver", "lesion") and (trial.before, trial.after) == (0.5, 1.0)
    assert (trial.better, trial.worse) == (2, 0)
    lesion = by_structures(found.rejected)["lesion",]
    assert (lesion.before, lesion.after, lesion.cases) == (None, None, 0)


def test_structures_that_nobody_looked_for_do_not_count(tmp_path):
    folders = Folders(tmp_path, [organ_with_lesions()] * 2, [with_crumb(3), with_crumb(5)], present={"1": ("lesion",)})
    (trial,) = folders.choose().applied
    assert trial.structures == ("liver",) and trial.cases == 1
    assert trial.before == pytest.approx(2 * 512 / (2 * 512 + 27))


def test_unannotated_voxels_do_not_count(tmp_path):
    labels = LABELS.model_copy(update={"ignore_value": 9})
    reference = organ_with_lesions()
    block(reference, (2, 16, 2), 5, 9)  # where the crumb is
    assert Folders(tmp_path, [reference] * 2, [with_crumb(3)] * 2, labels).choose().groups == ()


def test_one_structure_is_tried_once_and_regions_are_not_tried(tmp_path):
    only = LabelSet(names=("liver",), values=((1,),))
    references = [np.where(organ_with_lesions() == 1, 1, 0).astype(np.uint8)] * 2
    predictions = [np.where(with_crumb(3) == 1, 1, 0).astype(np.uint8)] * 2
    found = Folders(tmp_path / "one", references, predictions, only).choose()
    assert found.groups == (("liver",),) and found.rejected == ()
    regions = LabelSet(names=("whole", "lesion"), values=((1, 5), (5,)), regions=True, region_order=(1, 5))
    found = Folders(tmp_path / "regions", [organ_with_lesions()] * 2, [with_crumb(3)] * 2, regions).choose()
    assert found.applied == found.rejected == ()
