"""A list of volumes: which case each line becomes, under which id, and what is said of lines that cannot be one."""

from __future__ import annotations

import os
import shutil

import pytest
from support.raw_folders import GRID, ct, make_raw

from swinssl.core.errors import UserError
from swinssl.dataset.checks.dataset_check import check_dataset
from swinssl.dataset.raw_dataset import RawDataset, survey
from swinssl.imageio.writer import write_volume

NAMES = ("a.nii.gz", "far/b.nrrd", "far/er/c.mha")


@pytest.fixture
def folder(tmp_path):
    """Three files in three formats; listing opens no image."""
    folder = tmp_path / "lists"
    for name in NAMES:
        touch(folder / name)
    return folder


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def write(folder, *lines, name="scans.txt", end="\n", encoding="utf-8"):
    path = folder / name
    path.write_bytes("".join(f"{line}{end}" for line in lines).encode(encoding))
    return path


def listed(file):
    """Case id -> image as it lies below the list's folder."""
    raw, _ = survey(file)
    return {case.id: os.path.relpath(case.images[0], file.parent) for case in raw.cases}


def codes(file):
    return [finding.code for finding in survey(file)[1]]


def only_finding(file):
    (finding,) = survey(file)[1]
    return finding


class TestWhatItSays:
    def test_an_image_a_line_in_any_format(self, folder):
        raw, findings = survey(write(folder, "# channel: MR", *NAMES))
        assert findings == [] and raw.name == "scans" and raw.source == folder / "scans.txt"
        assert [case.id for case in raw.cases] == ["a", "b", "c"]
        assert all(case.label is None and case.group is None for case in raw.cases)
        assert raw.channel_names == ("MR",) and raw.labels.names == ()
        assert raw.description == {
            "channel_names": {"0": "MR"},
            "labels": {"background": 0},
            "numTraining": 3,
            "file_ending": ".nii.gz",
        }
        assert RawDataset.load(raw.source) == raw

    def test_a_channel_without_a_name_is_a_note_as_in_a_folder(self, folder):
        file = write(folder, "# chanel: CT", "a.nii.gz")
        assert survey(file)[0].channel_names == ("image",)
        finding = only_finding(file)
        assert (finding.code, finding.file) == ("N107", "scans.txt") and "# channel: CT" in finding.remedy

    @pytest.mark.parametrize("line", ["# channel: PET", "#channel:PET", "# Channel : PET"])
    def test_ways_to_write_the_channel(self, folder, line):
        assert survey(write(folder, "a.nii.gz", line))[0].channel_names == ("PET",)

    def test_comments_and_blank_lines_are_passed_over(self, folder):
        file = write(folder, "", "# channel: MR", "#b.nrrd", "   ", "  a.nii.gz  ", "# the end")
        assert listed(file) == {"a": "a.nii.gz"} and codes(file) == []

    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
    def test_line_ends_and_byte_order_mark_of_other_systems(self, folder, end, encoding):
        touch(folder / "größe.nii")
        file = write(folder, "größe.nii", "a.nii.gz", "# channel: MR", end=end, encoding=encoding)
        assert listed(file) == {"größe": "größe.nii", "a": "a.nii.gz"} and codes(file) == ["W106"]

    def test_what_lies_beside_it_is_not_its_own(self, tmp_path):
        raw = make_raw(tmp_path / "a", groups={"case_0": "p"})
        (raw / "groups.csv").write_text("case,group\ncase_9,p\n")
        (raw / "splits_final.json").write_text("no JSON")
        file = write(raw, "# channel: CT", "imagesTr/case_0_0000.nii.gz")
        assert check_dataset(file, workers=0).findings == ()
        RawDataset.load(file).copy_description(tmp_path / "out")
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["dataset.json"]

    def test_nothing_is_written(self, folder):
        file = write(folder, *NAMES)
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        RawDataset.load(file)
        assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


class TestPaths:
    def test_of_all_kinds(self, folder, tmp_path, monkeypatch):
        monkeypatch.setenv("ARCHIVE", str(touch(tmp_path / "archive" / "x.nii")).removesuffix("/x.nii"))
        monkeypatch.setenv("HOME", str(touch(tmp_path / "home" / "y.nii").parent))
        touch(tmp_path / "my scans" / "z.nii")
        file = write(folder, "$ARCHIVE/x.nii", "~/y.nii", "../my scans/z.nii", tmp_path / "lists" / "a.nii.gz")
        assert listed(file) == {
            "x": "../archive/x.nii",
            "y": "../home/y.nii",
            "z": "../my scans/z.nii",
            "a": "a.nii.gz",
        }

    @pytest.mark.parametrize("quote", ['"', "'"])
    def test_in_quotes(self, folder, quote):
        touch(folder / "a b.nii")
        assert listed(write(folder, f"{quote}a b.nii{quote}")) == {"a b": "a b.nii"}

    def test_as_windows_writes_them(self, folder):
        assert listed(write(folder, r"far\er\c.mha", r".\far\b.nrrd")) == {"b": "far/b.nrrd", "c": "far/er/c.mha"}
        finding = survey(write(folder, '"C:\\my scans\\p7.nii"'))[1][-1]
        assert (finding.code, finding.file) == ("E106", "C:/my scans/p7.nii")

    @pytest.mark.skipif(os.name == "nt", reason="no such file name there")
    def test_a_backslash_in_a_name(self, folder):
        touch(folder / "a\\b.nii")
        assert list(listed(write(folder, "a\\b.nii")).values()) == ["a\\b.nii"]

    def test_relative_to_the_list_not_to_where_one_is(self, folder, tmp_path, monkeypatch):
        file = write(folder, "a.nii.gz")
        monkeypatch.chdir(tmp_path)
        raw = RawDataset.load(file.relative_to(tmp_path))
        assert raw.cases[0].images == (folder / "a.nii.gz",) and raw.source == file


class TestIds:
    @pytest.fixture
    def patients(self, tmp_path):
        """`ct.nii.gz` of each of three patients in one study, and of one in another."""
        for place in ("study/p1", "study/p2", "study/p3", "other/p2"):
            touch(tmp_path / place / "ct.nii.gz")
        return tmp_path

    def test_as_few_folders_as_tell_files_of_one_name_apart(self, patients):
        lines = [f"{place}/ct.nii.gz" for place in ("study/p1", "study/p2", "other/p2")]
        ids = {path: case_id for case_id, path in listed(write(patients, *lines)).items()}
        assert [ids[line] for line in lines] == ["ct", "p2__ct", "other__p2__ct"]

    def test_a_line_at_the_end_changes_no_other_s_id(self, patients):
        lines = [f"{place}/ct.nii.gz" for place in ("study/p3", "other/p2", "study/p2", "study/p1")]
        before = {}
        for number in range(1, 5):
            now = listed(write(patients, *lines[:number]))
            assert len(now) == number and before.items() <= now.items()
            before = now

    def test_a_path_has_one_id_however_it_is_written(self, patients):
        lines = ["study/p1/ct.nii.gz", "study/p2/ct.nii.gz"]
        ids = sorted(listed(write(patients, *lines)))
        other_way = [f"./other/../{lines[0]}", patients / lines[1]]
        assert sorted(listed(write(patients, *other_way))) == ids

    def test_names_that_differ_in_capitals_only(self, patients):
        touch(patients / "p4" / "CT.nii.gz")
        file = write(patients, "# channel: CT", "study/p1/ct.nii.gz", "p4/CT.nii.gz")
        assert sorted(listed(file)) == ["ct", "p4__CT"] and codes(file) == []

    def test_a_file_that_is_called_like_another_s_id(self, patients):
        touch(patients / "x" / "p2__ct.nii.gz")
        lines = ["study/p1/ct.nii.gz", "x/p2__ct.nii.gz", "study/p2/ct.nii.gz"]
        assert sorted(listed(write(patients, *lines))) == ["ct", "p2__ct", "study__p2__ct"]

    def test_a_channel_number_is_part_of_the_name(self, folder):
        touch(folder / "p_0001.nii")
        assert sorted(listed(write(folder, "p_0001.nii", "a.nii.gz"))) == ["a", "p_0001"]

    @pytest.mark.parametrize(("name", "code"), [("a b", "W106"), ("con", "E109")])
    def test_that_are_no_names(self, folder, name, code):
        touch(folder / f"{name}.nii")
        assert codes(write(folder, "# channel: MR", f"{name}.nii")) == [code]


class TestFaults:
    @pytest.mark.parametrize(
        ("line", "code", "message", "remedy"),
        [
            ("b.nii", "E106", "no such file", "Put the file there"),
            ("far/bb.nrrd", "E106", "no such file", "Did you mean b.nrrd?"),
            ("$NOT_SET/b.nii", "E106", "no such file", "Set the variable"),
            ("~nobody_at_all/b.nii", "E106", "no such file", "correct the line"),
            ("a.nii.gz/b.nii", "E106", "no such file", "correct the line"),
            ("a.nii.gz", "E112", "is named in line 2 already", "Remove one of these lines"),
            ("./far/../a.nii.gz", "E112", "is named in line 2 already", "Remove one of these lines"),
            ("a.mha", "E112", "is the same image as a.nii.gz by its name", "Remove one of these lines"),
            ("far", "E114", "is a folder", "List the images in it"),
            ("far.nii", "E114", "is a folder", "List the images in it"),
            ("notes.pdf", "E114", "is not an image that swinssl reads", "Convert it to one of .nii.gz"),
            ("far/*.nrrd", "E114", "is a pattern", "List the images"),
            (f"{'x' * 300}.nii", "E114", "cannot be opened", "Correct the line"),
        ],
    )
    def test_of_a_line(self, folder, line, code, message, remedy):
        touch(folder / "a.mha")
        (folder / "far.nii").mkdir()
        file = write(folder, "# channel: MR", "a.nii.gz", line)
        finding = next(finding for finding in survey(file)[1] if finding.code[0] == "E")
        assert finding.code == code and message in finding.message and remedy in finding.remedy
        assert "line 3 of scans.txt" in finding.message and (folder / finding.file).name == line.split("/")[-1]
        assert finding.remedy.endswith(".") and not finding.message.endswith(".")
        assert "a" in listed(file)

    def test_every_bad_line_is_named_at_once(self, folder):
        assert sorted(codes(write(folder, "far", "x.nii", "a.nii.gz", "y.txt"))) == ["E106", "E114", "E114", "N107"]

    @pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
    def test_one_file_under_two_names(self, folder):
        (folder / "link.nii.gz").symlink_to(folder / "a.nii.gz")
        assert only_finding(write(folder, "# channel: MR", "a.nii.gz", "link.nii.gz")).code == "E112"

    def test_two_channels(self, folder):
        finding = only_finding(write(folder, "# channel: T1", "a.nii.gz", "# channel: T2"))
        assert finding.code == "E114" and "T1, T2" in finding.message

    @pytest.mark.parametrize("lines", [[], ["", "  "], ["# channel: CT", "# a.nii.gz"]])
    def test_empty(self, folder, lines):
        file = write(folder, *lines)
        assert [f.code for f in survey(file)[1] if f.code[0] == "E"] == ["E110"]
        with pytest.raises(UserError, match=r"scans\.txt: names no image\. Give a text file"):
            RawDataset.load(file)

    @pytest.mark.parametrize(
        "content", [bytes(range(256)), b"a.nii\0gz\n", "a.nii.gz\n".encode("utf-16"), b"gr\xf6\xdfe"]
    )
    def test_no_text(self, folder, content):
        file = write(folder)
        file.write_bytes(content)
        finding = only_finding(file)
        assert (finding.code, finding.file) == ("E114", "scans.txt") and "UTF-8" in finding.message
        with pytest.raises(UserError, match=r"scans\.txt: is not UTF-8 text"):
            RawDataset.load(file)

    @pytest.mark.parametrize("line", ["far", "a.nii.gz"])
    def test_that_leave_the_meaning_open_are_refused(self, folder, line):
        with pytest.raises(UserError, match=r"line 2 of scans\.txt.* Run swinssl_check"):
            RawDataset.load(write(folder, "a.nii.gz", line))

    def test_a_missing_file_is_left_to_its_case(self, folder):
        assert [case.id for case in RawDataset.load(write(folder, "a.nii.gz", "x.nii")).cases] == ["a", "x"]

    def test_no_such_list(self, folder):
        with pytest.raises(UserError, match=r"nothing\.txt: no such folder.* or a list of volumes \(\.txt\)"):
            RawDataset.load(folder / "nothing.txt")


class TestCheck:
    def test_images_are_read_to_their_end(self, tmp_path):
        for number in range(3):
            write_volume(tmp_path / f"p{number}" / "ct.nii.gz", ct(number), GRID)
        shutil.copy(tmp_path / "p0" / "ct.nii.gz", touch(tmp_path / "again.nii.gz"))
        cut = tmp_path / "p2" / "ct.nii.gz"
        cut.write_bytes(cut.read_bytes()[:-20])
        file = write(tmp_path, "p0/ct.nii.gz", "p1/ct.nii.gz", "p2/ct.nii.gz", "again.nii.gz", "# channel: MR")
        findings = check_dataset(file, workers=0).findings
        (remedy,) = [finding.remedy for finding in findings if finding.code == "W306"]
        assert 'write the line "# channel: CT" at the top' in remedy
        found = {(finding.code, finding.file) for finding in findings}
        assert found == {("E204", "p2/ct.nii.gz"), ("W304", "p0/ct.nii.gz"), ("W306", file.name)}
