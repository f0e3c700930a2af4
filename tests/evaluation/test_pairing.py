"""Which files belong together, and which do not fit."""

from __future__ import annotations

import numpy as np
import pytest
from support.made_results import GRID, SHAPE, organ_map, write_maps

from swinssl.core.errors import UserError
from swinssl.evaluation.pairing import check_pairs, pair_up
from swinssl.imageio.volume import AxisMap, Geometry
from swinssl.imageio.writer import write_volume


@pytest.fixture
def folders(tmp_path):
    predictions = write_maps(tmp_path / "predictions", {"b": organ_map(1), "c": organ_map(), "d": organ_map()})
    references = write_maps(tmp_path / "references", {"c": organ_map(), "a": organ_map(), "b": organ_map()})
    return predictions, references


class TestNames:
    def test_cases_are_paired_by_name(self, folders):
        pairing = pair_up(*folders)
        assert [pair.case_id for pair in pairing.pairs] == ["b", "c"]
        assert (pairing.missing, pairing.extra) == (("a",), ("d",))

    def test_the_ending_does_not_matter(self, tmp_path):
        predictions = write_maps(tmp_path / "p", {"a": organ_map()}, ending=".nrrd")
        references = write_maps(tmp_path / "r", {"a": organ_map()}, ending=".nii.gz")
        reference, prediction, geometry = pair_up(predictions, references).pairs[0].read()
        assert np.array_equal(reference, prediction) and geometry.spacing == pytest.approx(GRID.spacing)

    def test_other_files_are_not_label_maps(self, folders):
        (folders[0] / "summary.json").write_text("{}")
        (folders[0] / ".b.nii.gz").write_text("")
        assert len(pair_up(*folders).pairs) == 2

    def test_two_files_are_a_pair_whatever_their_names(self, folders):
        (pair,) = pair_up(folders[0] / "d.nii.gz", folders[1] / "a.nii.gz").pairs
        assert (pair.case_id, pair.prediction.name, pair.reference.name) == ("a", "d.nii.gz", "a.nii.gz")

    def test_one_file_asks_for_its_own_case(self, folders):
        pairing = pair_up(folders[0] / "b.nii.gz", folders[1])
        assert [pair.case_id for pair in pairing.pairs] == ["b"] and pairing.missing == ()

    def test_messages(self, folders, tmp_path):
        predictions, references = folders
        (tmp_path / "raw" / "labelsTr").mkdir(parents=True)
        other = write_maps(tmp_path / "other", {"x": organ_map()})
        double = write_maps(write_maps(tmp_path / "double", {"b": organ_map()}), {"b": organ_map()}, ending=".nii")
        for arguments, message in [
            ((tmp_path / "none", references), "none: no such file or folder"),
            ((predictions, tmp_path / "raw"), "Did you mean .*labelsTr"),
            ((other, references), "no case has both a prediction .*x.nii.gz.* and a reference .*a.nii.gz"),
            ((double, references), "b.nii and b.nii.gz are one case"),
            ((references, references), "are the same"),
        ]:
            with pytest.raises(UserError, match=message):
                pair_up(*arguments)


class TestGrids:
    def pair(self, folder, array, geometry):
        predictions = write_maps(folder / "p", {"a": array}, geometry=geometry)
        return pair_up(predictions, write_maps(folder / "r", {"a": organ_map()})).pairs[0]

    def test_rounding_is_no_difference(self, tmp_path):
        moved = Geometry.from_parts(SHAPE, spacing=GRID.spacing, origin=tuple(np.add(GRID.origin, 0.05)))
        self.pair(tmp_path, organ_map(), moved).read()

    @pytest.mark.parametrize(
        ("array", "geometry", "message"),
        [
            (organ_map(), Geometry.from_parts(SHAPE, spacing=GRID.spacing, origin=(-5.0, 20.0, 7.6)), "0.6 voxels"),
            (organ_map(), Geometry.from_parts(SHAPE, spacing=(3.0, 1.5, 1.1), origin=GRID.origin), "1.3 voxels"),
            (np.zeros((8, 12, 13), np.uint8), Geometry.from_parts((8, 12, 13), spacing=GRID.spacing), "8 x 12 x 13"),
        ],
        ids=["moved", "stretched", "smaller"],
    )
    def test_another_grid_is_refused_naming_both_files(self, tmp_path, array, geometry, message):
        pair = self.pair(tmp_path, array, geometry)
        for look in (pair.read, pair.check):
            with pytest.raises(UserError, match=message) as error:
                look()
            assert str(pair.prediction) in str(error.value) and str(pair.reference) in str(error.value)

    @pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
    @pytest.mark.parametrize("flips", [(True, False, False), (False, True, True)])
    def test_voxels_stored_in_another_order_are_brought_to_one(self, tmp_path, order, flips):
        axes = AxisMap(order, flips)
        pair = self.pair(tmp_path, axes.apply(organ_map(2)), GRID.mapped(axes))
        reference, prediction, geometry = pair.read()
        assert np.array_equal(reference, organ_map()) and np.array_equal(prediction, organ_map(2))
        assert geometry.shape == pair.check()[0].shape == SHAPE

    def test_all_faults_are_told_at_once(self, tmp_path):
        elsewhere = Geometry.from_parts(SHAPE, spacing=GRID.spacing)
        predictions = write_maps(tmp_path / "p", {"a": organ_map(), "b": organ_map()}, geometry=elsewhere)
        references = write_maps(tmp_path / "r", {"a": organ_map(), "b": organ_map()})
        with pytest.raises(UserError, match=r"(?s)2 of 2 cases.*a\.nii\.gz.*b\.nii\.gz"):
            check_pairs(pair_up(predictions, references).pairs)


class TestValues:
    def read(self, folder, array):
        references = write_maps(folder / "r", {"a": organ_map()})
        write_volume(folder / "p" / "a.nii.gz", array, GRID)
        return pair_up(folder / "p", references).pairs[0].read()[1]

    def test_whole_numbers_in_floats_are_labels(self, tmp_path):
        found = self.read(tmp_path, organ_map().astype(np.float32))
        assert found.dtype.kind == "u" and np.array_equal(found, organ_map())

    def test_rounding_by_the_header_is_no_fraction(self, tmp_path):
        assert np.array_equal(self.read(tmp_path, organ_map() * np.float32(1.0004)), organ_map())

    @pytest.mark.parametrize("value", [0.5, -1, np.nan, 1e38])
    def test_others_are_not(self, tmp_path, value):
        array = organ_map().astype(np.float32)
        array[0, 0, 0] = value
        with pytest.raises(UserError, match=r"a\.nii\.gz: value.*Export the label map"):
            self.read(tmp_path, array)
