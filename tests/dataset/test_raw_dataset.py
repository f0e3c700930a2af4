"""Which cases a folder has, with which files; what load refuses, and what it leaves to the case."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.raw_folders import LABELS, describe, make_raw

from swinssl.core.errors import UserError
from swinssl.dataset.case_tables import read_groups
from swinssl.dataset.raw_dataset import RawDataset, survey
from swinssl.imageio.formats import unread_images


def touch(folder, *names):
    """Empty files: listing opens no image."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def found(folder):
    """Case id -> names of its images, label's name."""
    raw, findings = survey(folder)
    cases = {case.id: ([path.name for path in case.images], case.label and case.label.name) for case in raw.cases}
    return cases, [finding.code for finding in findings]


def test_nnunet_v2(tmp_path):
    raw = RawDataset.load(make_raw(tmp_path / "Dataset001_Toy", cases=2, channels=2, licence="CC BY"))
    assert raw.name == "Dataset001_Toy" and raw.folder == tmp_path / "Dataset001_Toy" and raw.file_ending == ".nii.gz"
    assert raw.channel_names == ("CT", "CT") and raw.labels.names == ("liver", "tumour")
    assert [case.id for case in raw.cases] == ["case_0", "case_1"]
    assert [p.name for p in raw.case("case_1").images] == ["case_1_0000.nii.gz", "case_1_0001.nii.gz"]
    assert raw.case("case_1").label == raw.folder / "labelsTr" / "case_1.nii.gz"
    assert raw.description == json.loads((raw.folder / "dataset.json").read_text())


@pytest.mark.parametrize(
    "name", ["Dataset004_Hippocampus", "Dataset100_HeadNeckCTUnlabelled", "Dataset202_SarcomaTumourMR"]
)
def test_real_data(shared_data, name):
    raw, findings = survey(shared_data / "raw" / name)
    assert findings == [] and len(raw.cases) == raw.description["numTraining"]
    assert all((case.label is not None) == bool(raw.labels.names) for case in raw.cases)


def test_unknown_case_with_the_nearest(tmp_path):
    raw = RawDataset.load(make_raw(tmp_path / "a"))
    with pytest.raises(UserError, match="Did you mean case_1"):
        raw.case("case1")
    assert replace(raw, cases=raw.cases[:1]).case("case_0").id == "case_0"


class TestListing:
    def test_no_channel_number(self, tmp_path):
        assert found(make_raw(tmp_path / "a", cases=2, numbered=False)) == (
            {"case_0": (["case_0.nii.gz"], "case_0.nii.gz"), "case_1": (["case_1.nii.gz"], "case_1.nii.gz")},
            ["N102"],
        )

    def test_capitals(self, tmp_path):
        touch(tmp_path, "imagesTr/a_0000.NII.GZ", "labelsTr/a.Nii.Gz")
        describe(tmp_path, cases=1)
        assert found(tmp_path) == ({"a": (["a_0000.NII.GZ"], "a.Nii.Gz")}, ["N106", "N106"])

    def test_four_digits_that_number_patients(self, tmp_path):
        names = [f"pat_{i:04d}" for i in range(3)]
        touch(tmp_path, *(f"imagesTr/{n}.nii.gz" for n in names), *(f"labelsTr/{n}.nii.gz" for n in names))
        describe(tmp_path)
        assert sorted(found(tmp_path)[0]) == names

    def test_four_digits_that_number_patients_without_labels(self, tmp_path):
        touch(tmp_path, *(f"imagesTr/pat_{i:04d}.nii.gz" for i in range(1, 4)))
        assert sorted(found(tmp_path)[0]) == ["pat_0001", "pat_0002", "pat_0003"]

    def test_images_alone(self, tmp_path):
        touch(tmp_path, "imagesTr/a_0000.mha", "imagesTr/b_0000.mha")
        raw, findings = survey(tmp_path)
        assert [f.code for f in findings] == ["N107"] and raw.channel_names == ("image",) and raw.labels.names == ()
        assert [case.label for case in raw.cases] == [None, None] and raw.file_ending == ".mha"
        assert raw.description["numTraining"] == 2 and raw.description["labels"] == {"background": 0}
        assert RawDataset.load(tmp_path).cases == raw.cases

    def test_images_alone_of_two_channels(self, tmp_path):
        touch(tmp_path, *(f"imagesTr/{case}_{channel:04d}.nii" for case in "ab" for channel in (0, 1)))
        raw, _ = survey(tmp_path)
        assert raw.channel_names == ("image_0", "image_1") and [len(c.images) for c in raw.cases] == [2, 2]

    def test_what_systems_leave_behind_is_no_file(self, tmp_path):
        folder = make_raw(tmp_path / "a")
        touch(folder, "imagesTr/.DS_Store", "imagesTr/._case_0_0000.nii.gz", "labelsTr/Thumbs.db")
        assert found(folder)[1] == []

    def test_several_formats(self, tmp_path):
        touch(tmp_path, "imagesTr/a_0000.nii.gz", "imagesTr/b_0000.nrrd", "labelsTr/a.nrrd", "labelsTr/b.mha")
        describe(tmp_path, cases=2, file_ending=None)
        cases, codes = found(tmp_path)
        assert codes == ["W104"] and cases["a"] == (["a_0000.nii.gz"], "a.nrrd") and cases["b"][1] == "b.mha"
        describe(tmp_path, cases=1)  # .nii.gz
        cases, codes = found(tmp_path)
        assert list(cases) == ["a"] and codes == ["W104", "W103"]

    def test_missing_files_are_listed_where_they_should_be(self, tmp_path):
        folder = make_raw(tmp_path / "a", channels=2)
        (folder / "imagesTr" / "case_1_0000.nii.gz").unlink()
        (folder / "labelsTr" / "case_2.nii.gz").unlink()
        raw = RawDataset.load(folder)
        assert raw.case("case_1").images[0].name == "case_1_0000.nii.gz"
        assert raw.case("case_2").label.name == "case_2.nii.gz"
        assert found(folder)[1] == ["E106", "E107"]

    def test_a_channel_too_many_is_kept_for_the_case_to_fail(self, tmp_path):
        folder = make_raw(tmp_path / "a")
        touch(folder, "imagesTr/case_1_0001.nii.gz")
        assert found(folder)[1] == ["E108"] and len(RawDataset.load(folder).case("case_1").images) == 2

    def test_several_channels_need_their_number(self, tmp_path):
        folder = make_raw(tmp_path / "a", cases=1, numbered=False, channel_names={"0": "T1", "1": "T2"})
        touch(folder, "imagesTr/case_1_0000.nii.gz", "imagesTr/case_1_0001.nii.gz", "labelsTr/case_1.nii.gz")
        assert found(folder)[1] == ["W101", "E108", "E106"]

    def test_several_channels_in_one_file_name_the_command_that_splits_them(self, tmp_path):
        folder = make_raw(tmp_path / "a", cases=2, numbered=False, channel_names={"0": "T1", "1": "T2"})
        _, findings = survey(folder)
        assert [finding.code for finding in findings] == ["E115"]
        assert f"swinssl_convert msd {folder}" in findings[0].remedy

    def test_label_with_the_channel_number_too(self, tmp_path):
        touch(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a_0000.nii.gz")
        describe(tmp_path, cases=1)
        assert found(tmp_path)[0] == {"a_0000": (["a_0000.nii.gz"], "a_0000.nii.gz")}

    @pytest.mark.parametrize(
        ("case_id", "code"),
        [("a b", "W106"), ("ä", "W106"), ("x" * 70, "W106"), ("con", "E109"), ("a?b", "E109"), ("a. ", "E109")],
    )
    def test_ids_that_are_no_names(self, tmp_path, case_id, code):
        touch(tmp_path, f"imagesTr/{case_id}_0000.nii.gz")
        assert code in found(tmp_path)[1]

    def test_ids_that_differ_in_capitals(self, tmp_path):
        touch(tmp_path, "imagesTr/a_0000.nii.gz", "imagesTr/A_0000.nii.gz")
        assert "E109" in found(tmp_path)[1]


class TestListedCases:
    def test_dataset_key_with_all_kinds_of_paths(self, tmp_path, monkeypatch):
        monkeypatch.setenv("SOMEWHERE", str(tmp_path / "far"))
        touch(tmp_path, "set/x.nii.gz", "far/y.nii.gz", "abs/z.nii.gz")
        listed = {
            "b": {"images": ["x.nii.gz"], "label": "$SOMEWHERE/y.nii.gz"},
            "a": {"images": [str(tmp_path / "abs" / "z.nii.gz")]},
        }
        describe(tmp_path / "set", cases=2, dataset=listed)
        raw = RawDataset.load(tmp_path / "set")
        assert raw.case("a").images == (tmp_path / "abs" / "z.nii.gz",) and raw.case("a").label is None
        assert raw.case("b").label == tmp_path / "far" / "y.nii.gz" and survey(raw.folder)[1] == []

    def test_dataset_key_with_missing_files_and_channels(self, tmp_path):
        listed = {"../a": {"images": ["x.nii.gz", "y.nii.gz"], "label": "$NOT_SET/z.nii.gz"}}
        touch(tmp_path, "x.nii.gz", "y.nii.gz")
        describe(tmp_path, cases=1, dataset=listed)
        _, findings = survey(tmp_path)
        assert [f.code for f in findings] == ["E108", "E109", "E107"] and "variable" in findings[-1].remedy

    def test_training_list_of_v1_elsewhere(self, tmp_path):
        touch(tmp_path, "images/a.nii.gz", "labels/a.nii.gz")
        training = [{"image": "./images/a.nii.gz", "label": "./labels/a.nii.gz"}]
        describe(tmp_path, cases=1, training=training)
        assert found(tmp_path)[0] == {"a": (["a.nii.gz"], "a.nii.gz")}

    def test_training_list_of_v1_beside_the_folders(self, tmp_path):
        training = [{"image": f"./imagesTr/case_{i}.nii.gz", "label": f"./labelsTr/case_{i}.nii.gz"} for i in range(4)]
        folder = make_raw(tmp_path / "a", training=training)
        _, findings = survey(folder)
        assert [f.code for f in findings] == ["E106"] and "case_3" in findings[0].message


class TestLoad:
    def test_no_folder_and_no_case(self, tmp_path):
        with pytest.raises(UserError, match="no such folder"):
            RawDataset.load(tmp_path / "nothing")
        with pytest.raises(UserError, match=r"imagesTr: has no image\. Put images there"):
            RawDataset.load(tmp_path)

    @pytest.mark.parametrize(
        ("keys", "words"),
        [
            ({"labels": None}, 'has no "labels"'),
            ({"labels": {"background": 0, "a": 1, "b": 1}}, "both have the value 1"),
            ({"channel_names": {"0": 1}}, "counted from"),
            ({"labels_present": {"case_9": ["liver"]}}, "case_9"),
            ({"labels_present": {"case_0": ["livre"]}}, "Did you mean liver"),
        ],
    )
    def test_what_leaves_the_meaning_open_is_refused(self, tmp_path, keys, words):
        folder = make_raw(tmp_path / "a", **keys)
        with pytest.raises(UserError, match=words) as refused:
            RawDataset.load(folder)
        assert str(folder / "dataset.json") in str(refused.value) and "swinssl_check" in str(refused.value)

    def test_labels_without_a_description(self, tmp_path):
        folder = make_raw(tmp_path / "a")
        (folder / "dataset.json").unlink()
        with pytest.raises(UserError, match="has labels whose meaning"):
            RawDataset.load(folder)

    def test_the_same_image_twice(self, tmp_path):
        folder = make_raw(tmp_path / "a", file_ending=None)
        touch(folder, "imagesTr/case_0.nrrd")
        with pytest.raises(UserError, match="same image"):
            RawDataset.load(folder)

    def test_writes_nothing(self, tmp_path):
        folder = make_raw(tmp_path / "a", labels_present={"case_0": ["liver"]})
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        RawDataset.load(folder)
        assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


class TestTables:
    def cases(self, folder):
        return {case.id: (case.labels_present, case.group) for case in RawDataset.load(folder).cases}

    def test_keys_of_the_description(self, tmp_path):
        folder = make_raw(
            tmp_path / "a", labels_present={"case_0": ["liver"], "case_1": []}, groups={"case_0": "p", "case_1": "p"}
        )
        assert self.cases(folder) == {"case_0": (("liver",), "p"), "case_1": ((), "p"), "case_2": (None, None)}
        assert found(folder)[1] == ["W108", "W108"]

    @pytest.mark.parametrize("separator", [",", ";", "\t"])
    def test_columns_of_a_spreadsheet(self, tmp_path, separator):
        folder = make_raw(tmp_path / "a", labels_present={"case_0": []})  # the table stands above it
        table = "case,liver,tumour\ncase_0,1,0\ncase_1,x,1\ncase_2,,0\n"
        (folder / "labels_present.csv").write_text(table.replace(",", separator), encoding="utf-8-sig")
        (folder / "groups.csv").write_text("case,group\r\ncase_0,p1\r\ncase_1,p1\r\ncase_2,p2\r\n")
        assert self.cases(folder) == {
            "case_0": (("liver",), "p1"),
            "case_1": (("liver", "tumour"), "p1"),
            "case_2": ((), "p2"),
        }
        assert found(folder)[1] == []

    def test_structures_in_one_column(self, tmp_path):
        folder = make_raw(tmp_path / "a", cases=1)
        (folder / "labels_present.csv").write_text("case,structures\ncase_0,liver; tumour\n")
        assert self.cases(folder) == {"case_0": (("liver", "tumour"), None)}

    def test_pattern(self, tmp_path):
        folder = make_raw(tmp_path / "a", group_pattern=r"case_([01])")
        assert self.cases(folder) == {"case_0": (None, "0"), "case_1": (None, "1"), "case_2": (None, None)}
        assert found(folder)[1] == ["W108"]

    @pytest.mark.parametrize(
        ("file", "text", "words"),
        [
            ("labels_present.csv", "case,livre\ncase_0,1\n", "Did you mean liver"),
            ("labels_present.csv", "case,liver\ncase_0,2\n", "expected are 1"),
            ("labels_present.csv", "patient,liver\ncase_0,1\n", "one must be 'case'"),
            ("labels_present.csv", "case,liver\ncase_0,1\ncase_0,0\n", "twice"),
            ("groups.csv", "case,patient\ncase_0,1\n", "expected are case and group"),
            ("groups.csv", "case,group\ncase_7,1\n", "does not exist"),
        ],
    )
    def test_what_does_not_fit(self, tmp_path, file, text, words):
        folder = make_raw(tmp_path / "a")
        (folder / file).write_text(text)
        with pytest.raises(UserError, match=words):
            RawDataset.load(folder)


class TestCopyDescription:
    def copied(self, raw: RawDataset, out: Path):
        raw.copy_description(out)
        return json.loads((out / "dataset.json").read_text())

    def test_a_complete_file_is_copied_as_it_is(self, tmp_path):
        folder = make_raw(tmp_path / "a", numTraining=7)
        assert self.copied(RawDataset.load(folder), tmp_path / "out")["numTraining"] == 7
        assert (tmp_path / "out" / "dataset.json").read_bytes() == (folder / "dataset.json").read_bytes()

    def test_older_forms_become_v2(self, tmp_path):
        older = {
            "channel_names": None,
            "modality": {"0": "CT"},
            "labels": {"0": "background", "1": "liver", "2": "tumour"},
            "file_ending": None,
            "numTraining": None,
            "licence": "CC BY",
        }
        content = self.copied(RawDataset.load(make_raw(tmp_path / "a", **older)), tmp_path / "out")
        assert content == {
            "channel_names": {"0": "CT"},
            "labels": LABELS,
            "numTraining": 3,
            "file_ending": ".nii.gz",
            "licence": "CC BY",
        }

    def test_tables_and_splits_come_along(self, tmp_path):
        folder = make_raw(tmp_path / "a", group_pattern="[01]$")
        (folder / "labels_present.csv").write_text("case,liver\ncase_0,1\n")
        (folder / "splits_final.json").write_text("[]")
        raw, out = RawDataset.load(folder), tmp_path / "out"
        raw.copy_description(out)
        assert read_groups(out) == {"case_0": "0", "case_1": "1"}
        assert (out / "splits_final.json").read_text() == "[]"
        assert (out / "labels_present.csv").read_text() == (folder / "labels_present.csv").read_text()
        (folder / "labels_present.csv").unlink()
        replace(raw, cases=tuple(replace(case, group=None) for case in raw.cases)).copy_description(out)
        assert read_groups(out) == {} and not (out / "labels_present.csv").exists()

    def test_other_splits_are_replaced_with_a_word(self, tmp_path, caplog):
        folder, out = make_raw(tmp_path / "a"), tmp_path / "out"
        touch(out, "splits_final.json")
        (folder / "splits_final.json").write_text("[]")
        RawDataset.load(folder).copy_description(out)
        assert "used other folds" in caplog.text and (out / "splits_final.json").read_text() == "[]"


class TestLeftOut:
    """Every command that reads a folder says which files it leaves out, in lines that begin with "warning:"."""

    @pytest.fixture
    def folder(self, tmp_path, monkeypatch):
        monkeypatch.setenv("SWINSSL_ROOT", str(tmp_path / "root"))
        folder = make_raw(tmp_path / "Dataset001_Toy", cases=3)
        image = (folder / "imagesTr" / "case_0_0000.nii.gz").read_bytes()
        (folder / "imagesTr" / "case_7_0000.nii").write_bytes(gzip.decompress(image))
        return folder

    @pytest.mark.parametrize("name", ["check", "plan", "plan_and_preprocess"])
    def test_nii_among_nii_gz(self, typed, folder, name):
        small = ["--preset", "tiny", "--patch", 32, 32, 32] if name != "check" else []
        done = typed(name, folder, *small)
        said = "left out: W104 (" if name == "check" else "ignored"  # the table of check has the file and the remedy
        (line,) = [line for line in done.out.splitlines() if line.startswith("warning: ") and said in line]
        assert "case_7_0000.nii" in (done.out if name == "check" else line)
        assert done.out.count("Convert them, or correct file_ending") == 1
        assert not done.out.split(line)[1].strip().partition("next: ")[0].strip()  # nothing else but what comes next
        beside_json = typed(name, folder, *small, "--json")
        json.loads(beside_json.out)
        assert "warning: " in beside_json.err
        assert "case_7_0000.nii" in (beside_json.out if name == "check" else beside_json.err)

    def test_other_formats_among_images(self, folder):
        touch(folder, "labelsTr/scan.dcm", "labelsTr/notes.txt", "labelsTr/a.img", "labelsTr/._b.dcm")
        (line,) = unread_images(folder / "labelsTr")
        assert "2 files left out, such as a.img" in line and unread_images(folder / "imagesTr") == []
