"""One rule for "same grid", whatever the storage order, and every step follows it."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from swinssl.core.errors import UserError
from swinssl.dataset.checks.dataset_check import check_dataset
from swinssl.dataset.raw_dataset import RawDataset
from swinssl.evaluation.pairing import Pair, check_pairs
from swinssl.imageio.reader import read_case, read_channels
from swinssl.imageio.same_grid import compare_grids, on_grid_of
from swinssl.imageio.volume import AxisMap, Geometry, Volume
from swinssl.imageio.writer import write_volume
from swinssl.preprocessing.fingerprint_extraction import measure_case

SHAPE = (6, 12, 10)
# From quaternion (1, 2, 3, 4) / sqrt(30): far from every axis, so that no two of them are confused.
ROTATION = np.array([[2, 10, 11], [14, -5, 2], [-5, -10, 10]]) / 15
ORIENTATIONS = list(itertools.product(itertools.permutations(range(3)), itertools.product((False, True), repeat=3)))


def grid(*, origin=(5.0, -7.0, 9.0), spacing=(3.0, 1.0, 1.0), direction=None, shape=SHAPE):
    return Geometry.from_parts(shape, spacing=spacing, origin=origin, direction=direction)


def shifted(voxels):
    """The grid moved along x, whose voxels are 1 mm."""
    return grid(origin=(5.0, -7.0, 9.0 + voxels))


@pytest.mark.parametrize("direction", [None, ROTATION], ids=["axial", "oblique"])
def test_every_storage_order_of_one_place_is_one_grid(direction):
    reference = grid(direction=direction)
    array = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    for order, flips in ORIENTATIONS:
        stored = AxisMap(order, flips)
        comparison = compare_grids(reference.mapped(stored), reference)
        assert comparison.same and not comparison.noticeable
        assert np.array_equal(comparison.axes.apply(stored.apply(array)), array)


def test_an_axis_near_45_degrees_is_not_taken_for_another():
    """Canonical axes of each file alone would differ here: 44.99 and 45.01 degrees."""
    first, other = (
        grid(spacing=(1, 1, 1), direction=np.array([[1, 0, 0], [0, np.cos(t), -np.sin(t)], [0, np.sin(t), np.cos(t)]]))
        for t in np.radians((44.99, 45.01))
    )
    assert first.canonical_map() != other.canonical_map()
    assert compare_grids(first, other).same


@pytest.mark.parametrize(
    ("other", "same", "noticeable"),
    [
        (shifted(0.05), True, False),
        (shifted(0.3), True, True),
        (shifted(0.5), True, True),
        (shifted(0.6), False, True),
        (grid(spacing=(3.0, 1.0, 1.05)), True, True),  # 9 steps of 0.05 mm
        (grid(spacing=(3.0, 1.0, 1.1)), False, True),
        (grid(shape=(6, 12, 11)), False, True),
    ],
)
def test_half_a_voxel_is_the_limit_in_either_direction(other, same, noticeable):
    for first, second in ((grid(), other), (other, grid())):
        comparison = compare_grids(first, second)
        assert (comparison.same, comparison.noticeable) == (same, noticeable)
        assert comparison.voxels == compare_grids(second, first).voxels


def test_the_difference_is_told_in_mm_and_voxels():
    thick = grid(origin=(6.5, -7.0, 9.0))
    assert compare_grids(thick, grid()).describe("a.nii") == "lies 1.5 mm (0.5 voxels) from a.nii at the worst corner"
    smaller = compare_grids(grid(shape=(5, 12, 10)), grid())
    assert smaller.describe("a.nii") == "has 5 x 12 x 10 voxels (z, y, x); a.nii has 6 x 12 x 10"


def test_what_is_brought_onto_a_grid_has_its_geometry(tmp_path):
    stored = AxisMap((2, 0, 1), (True, False, True))
    array = np.arange(np.prod(SHAPE)).reshape(1, *SHAPE)
    volume = Volume(stored.apply(array), grid().mapped(stored))
    moved = on_grid_of(volume, tmp_path / "a", reference=shifted(0.2), reference_path=tmp_path / "b")
    assert np.array_equal(moved.array, array) and np.array_equal(moved.geometry.affine, shifted(0.2).affine)


def test_channels_in_several_storage_orders_are_stacked_in_that_of_the_first(tmp_path):
    rng = np.random.default_rng(0)
    channels = rng.integers(-900, 900, (2, *SHAPE)).astype(np.int16)
    stored = AxisMap((1, 2, 0), (True, True, False))
    write_volume(tmp_path / "a_0000.nii.gz", channels[0], grid())
    write_volume(tmp_path / "a_0001.nii.gz", stored.apply(channels[1]), grid().mapped(stored))
    image = read_channels([tmp_path / "a_0000.nii.gz", tmp_path / "a_0001.nii.gz"])
    assert np.array_equal(image.array, channels)


class TestEveryStepAgrees:
    """Check, plan, preprocess and evaluate answer alike for one image and one label."""

    @staticmethod
    def case(folder, label_grid, stored):
        rng = np.random.default_rng(0)
        label = np.zeros(SHAPE, np.uint8)
        label[1:5, 3:9, 2:7] = 1
        write_volume(folder / "imagesTr" / "a_0000.nii.gz", rng.integers(-900, 900, SHAPE).astype(np.int16), grid())
        write_volume(folder / "labelsTr" / "a.nii.gz", stored.apply(label), label_grid.mapped(stored))
        content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "organ": 1}, "file_ending": ".nii.gz"}
        (folder / "dataset.json").write_text(json.dumps(content))
        return RawDataset.load(folder), label

    @pytest.mark.parametrize("stored", [AxisMap((0, 1, 2), (False,) * 3), AxisMap((0, 2, 1), (False, True, True))])
    @pytest.mark.parametrize("voxels", [0, 0.09, 0.11, 0.3, 0.49, 0.5])
    def test_one_grid(self, tmp_path, voxels, stored):
        raw, label = self.case(tmp_path / "Dataset001_A", shifted(voxels), stored)
        found = {finding.code for finding in check_dataset(raw.folder, workers=0).findings}
        assert found == {"N501", *(["W402"] if voxels > 0.1 else [])}
        case = raw.cases[0]
        assert measure_case(case, raw.labels).facts.structures["organ"].voxels == label.sum()
        assert np.array_equal(read_case(case.images, case.label)[1].array[0], label)
        # As training ends: a prediction on the image's grid beside the label.
        write_volume(tmp_path / "p" / "a.nii.gz", label, grid())
        pair = Pair("a", tmp_path / "p" / "a.nii.gz", case.label)
        check_pairs([pair])
        reference, prediction, _ = pair.read()
        assert np.array_equal(reference, prediction)

    def test_another_grid(self, tmp_path):
        raw, label = self.case(tmp_path / "Dataset001_A", shifted(0.55), AxisMap((0, 1, 2), (False,) * 3))
        assert "E402" in {finding.code for finding in check_dataset(raw.folder, workers=0).findings}
        case = raw.cases[0]
        write_volume(tmp_path / "p" / "a.nii.gz", label, grid())
        for look in (
            lambda: measure_case(case, raw.labels),
            lambda: read_case(case.images, case.label),
            lambda: Pair("a", tmp_path / "p" / "a.nii.gz", case.label).read(),
        ):
            with pytest.raises(UserError, match=r"0\.55 mm \(0\.55 voxels\)"):
                look()


def test_a_pair_that_differs_slightly_is_named(tmp_path, caplog):
    array = np.ones(SHAPE, np.uint8)
    for folder, place in (("p", grid()), ("r", shifted(0.3))):
        for case in "ab":
            write_volume(tmp_path / folder / f"{case}.nii.gz", array, place)
    check_pairs([Pair(c, tmp_path / "p" / f"{c}.nii.gz", tmp_path / "r" / f"{c}.nii.gz") for c in "ab"])
    assert len(caplog.records) == 1
    assert "a.nii.gz lies 0.3 mm (0.3 voxels) from its reference" in caplog.text and "1 other prediction" in caplog.text
