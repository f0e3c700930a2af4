"""Which files are the channels of which case."""

from __future__ import annotations

import pytest

from swinssl.core.errors import UserError
from swinssl.inference.input_cases import find_cases


@pytest.fixture
def folder(tmp_path):
    def make(*names):
        for name in names:
            (tmp_path / name).write_bytes(b"x")
        return tmp_path

    return make


def found(folder, channels=("CT",)):
    return {case.id: [path.name for path in case.images] for case in find_cases([folder], channels)}


class TestFolder:
    def test_one_channel_with_and_without_number(self, folder):
        assert found(folder("b_0000.nii.gz", "a.nrrd", "c.v2.mha")) == {
            "a": ["a.nrrd"],
            "b": ["b_0000.nii.gz"],
            "c.v2": ["c.v2.mha"],
        }

    def test_several_channels_in_order(self, folder):
        names = ("p_1_0001.nii.gz", "p_1_0000.nii.gz", "p_2_0000.nii.gz", "p_2_0001.nii.gz")
        assert found(folder(*names), ("T1", "T2")) == {
            "p_1": ["p_1_0000.nii.gz", "p_1_0001.nii.gz"],
            "p_2": ["p_2_0000.nii.gz", "p_2_0001.nii.gz"],
        }

    def test_four_digits_are_a_channel_only_beside_a_first_one(self, folder):
        assert list(found(folder("scan_2020.nii.gz", "scan_2021.nii.gz", "x_0000.nii.gz"))) == [
            "scan_2020",
            "scan_2021",
            "x",
        ]

    def test_four_digits_that_number_cases(self, folder):
        assert list(found(folder(*(f"img_{i:04d}.nii.gz" for i in range(3))))) == ["img_0000", "img_0001", "img_0002"]

    def test_two_series_of_numbered_cases(self, folder):
        names = [f"{series}_{i:04d}" for series in ("img", "scan") for i in range(6)]
        assert list(found(folder(*(f"{name}.nii.gz" for name in names)))) == names

    def test_labels_beside_the_images_say_what_cases_are_called(self, tmp_path):
        for name in ("imagesTr/img_0000.nii.gz", "imagesTr/other_0000.nii.gz", "labelsTr/img_0000.nii.gz"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(b"x")
        assert list(found(tmp_path / "imagesTr")) == ["img_0000", "other"]

    def test_other_files_are_left_alone(self, folder):
        assert list(found(folder("a_0000.nii.gz", "notes.txt", "dataset.json", "._a_0000.nii.gz", ".nii.gz"))) == ["a"]

    def test_endings_in_capitals(self, folder):
        assert found(folder("A_0000.NII.GZ")) == {"A": ["A_0000.NII.GZ"]}

    @pytest.mark.parametrize(
        ("name", "result"),
        [("a_0000.nii.gz", "a.nii.gz"), ("a.NRRD", "a.nrrd"), ("a.mhd", "a.mha"), ("a.b_0000.nii", "a.b.nii")],
    )
    def test_result_has_the_id_and_the_images_ending(self, folder, name, result):
        (case,) = find_cases([folder(name)], ("CT",))
        assert case.result_name == result


class TestRefusals:
    def test_too_many_channels(self, folder):
        names = folder("a_0000.nii.gz", "a_0001.nii.gz", "b_0000.nii.gz")
        with pytest.raises(UserError, match=r"a has 0000, 0001\. The model expects 1 channel: 0000 \(CT\)"):
            found(names)

    def test_missing_channels_name_the_case_and_what_is_expected(self, folder):
        names = folder("a_0000.nii.gz", "a_0002.nii.gz", "b_0000.nii.gz", "b_0001.nii.gz", "b_0002.nii.gz")
        expected = r"a has 0000, 0002\. The model expects 3 channels: 0000 \(T1\), 0001 \(T2\), 0002 \(FLAIR\)"
        with pytest.raises(UserError, match=expected):
            found(names, ("T1", "T2", "FLAIR"))

    def test_a_hundred_wrong_cases_fit_into_one_message(self, folder):
        with pytest.raises(UserError, match=r"c004 has 0000 and 95 more") as error:
            found(folder(*(f"c{i:03d}_0000.nii.gz" for i in range(100))), ("T1", "T2"))
        assert len(str(error.value)) < 500

    def test_no_channel_number_where_there_are_several_channels(self, folder):
        with pytest.raises(UserError, match=r"plain\.nii\.gz has no channel number"):
            found(folder("a_0000.nii.gz", "a_0001.nii.gz", "plain.nii.gz"), ("T1", "T2"))

    @pytest.mark.parametrize("names", [("a.nii.gz", "a.nrrd"), ("a.nii.gz", "a_0000.nii.gz")])
    def test_two_files_for_one_place(self, folder, names):
        with pytest.raises(UserError, match=r"both are channel 0000 of case a\. Keep one"):
            found(folder(*names))

    def test_nothing_there(self, folder):
        with pytest.raises(UserError, match=r"no images here; expected files ending with \.nii\.gz"):
            found(folder("notes.txt"))

    def test_the_folder_above_the_images(self, folder):
        above = folder()
        (above / "imagesTs").mkdir()
        with pytest.raises(UserError, match=r"Did you mean .*imagesTs\?"):
            found(above)

    @pytest.mark.parametrize("name", ["con_0000.nii.gz", "a:b.nii.gz", "x" * 230 + ".nii.gz"])
    def test_an_id_that_cannot_be_stored(self, folder, name):
        for inputs in ([folder(name)], [folder(name) / name]):
            with pytest.raises(UserError, match="Rename it"):
                find_cases(inputs, ("CT",))

    def test_ids_that_differ_in_capitals(self, folder):
        with pytest.raises(UserError, match="differs from case A in upper or lower case only"):
            found(folder("a.nii.gz", "A_0000.nii.gz"))


class TestFiles:
    def test_a_file_has_the_name_that_it_has_in_its_folder(self, folder):
        there = folder(*(f"img_{i:04d}.nii.gz" for i in range(3)))
        (case,) = find_cases([there / "img_0000.nii.gz"], ("CT",))
        assert case.id == "img_0000"

    def test_one_file_is_a_case(self, folder):
        (case,) = find_cases([folder("a_0000.nii.gz") / "a_0000.nii.gz"], ("CT",))
        assert case.id == "a"

    def test_files_are_channels_in_the_order_given(self, folder):
        there = folder("t2.nii.gz", "t1.nii.gz")
        (case,) = find_cases([there / "t2.nii.gz", there / "t1.nii.gz"], ("T2", "T1"))
        assert case.id == "t2" and [path.name for path in case.images] == ["t2.nii.gz", "t1.nii.gz"]

    def test_wrong_number(self, folder):
        there = folder("a.nii.gz")
        with pytest.raises(UserError, match=r"1 files?; the model expects 2 channels: 0000 \(T1\), 0001 \(T2\)"):
            find_cases([there / "a.nii.gz"], ("T1", "T2"))

    def test_missing_file_or_unknown_format(self, folder):
        there = folder("a.dcm")
        with pytest.raises(UserError, match="no such file or folder"):
            find_cases([there / "b.nii.gz"], ("CT",))
        with pytest.raises(UserError, match=r"a\.dcm: .*\.nii\.gz"):
            find_cases([there / "a.dcm"], ("CT",))

    def test_a_folder_and_a_file(self, folder):
        there = folder("a.nii.gz")
        with pytest.raises(UserError, match="one folder, or the files of one case"):
            find_cases([there, there / "a.nii.gz"], ("CT",))
