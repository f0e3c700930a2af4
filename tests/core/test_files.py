"""Files that are never half written, and JSON that says what is wrong with it."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from swinssl.core import files
from swinssl.core.errors import UserError


def names(folder):
    """What lies in a folder, hidden entries too."""
    return sorted(path.name for path in folder.iterdir())


class TestWriting:
    def test_makes_the_folders_above_and_leaves_only_the_file(self, tmp_path):
        files.write_bytes(tmp_path / "a" / "b" / "c.bin", b"\x00\xff")
        assert (tmp_path / "a" / "b" / "c.bin").read_bytes() == b"\x00\xff"
        assert names(tmp_path / "a" / "b") == ["c.bin"]

    def test_replaces_what_was_there(self, tmp_path):
        files.write_text(tmp_path / "f.txt", "old and longer")
        files.write_text(tmp_path / "f.txt", "new")
        assert (tmp_path / "f.txt").read_text() == "new"

    def test_the_temporary_file_has_the_whole_ending_and_lies_on_the_same_disk(self, tmp_path):
        with files.atomic_path(tmp_path / "scan.nii.gz") as temporary:
            assert temporary.name.endswith("scan.nii.gz")
            assert temporary.parent == tmp_path  # so that the renaming is one step
            assert not temporary.exists()  # some writers refuse to write over a file
            temporary.write_bytes(b"voxels")
            assert not (tmp_path / "scan.nii.gz").exists()
        assert names(tmp_path) == ["scan.nii.gz"]

    @pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt, SystemExit])
    def test_a_failure_leaves_the_old_file_and_no_temporary_one(self, tmp_path, stop):
        files.write_text(tmp_path / "f.txt", "old")
        with pytest.raises(stop), files.atomic_path(tmp_path / "f.txt") as temporary:
            temporary.write_text("half of the n")
            raise stop
        assert names(tmp_path) == ["f.txt"] and (tmp_path / "f.txt").read_text() == "old"

    @pytest.mark.parametrize("named", [False, True], ids=["no file named", "temporary file named"])
    def test_an_error_of_the_disk_names_the_file_and_not_the_temporary_one(self, tmp_path, named):
        with pytest.raises(OSError) as error, files.atomic_path(tmp_path / "f.txt") as temporary:
            raise OSError(errno.ENOSPC, "No space left on device", *([str(temporary)] if named else []))
        assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(tmp_path / "f.txt"))

    def test_an_error_of_another_file_stays_what_it_is(self, tmp_path):
        with pytest.raises(FileNotFoundError) as error, files.atomic_path(tmp_path / "copy"):
            (tmp_path / "original").read_bytes()
        assert str(error.value.filename) == str(tmp_path / "original")

    def test_a_block_that_writes_nothing_is_a_failure(self, tmp_path):
        files.write_text(tmp_path / "f.txt", "old")
        with pytest.raises(FileNotFoundError), files.atomic_path(tmp_path / "f.txt"):
            pass
        assert names(tmp_path) == ["f.txt"] and (tmp_path / "f.txt").read_text() == "old"

    def test_a_kill_leaves_the_old_file_and_a_reader_of_the_folder_sees_no_half_one(self, tmp_path):
        files.write_text(tmp_path / "f.txt", "old")
        code = """if True:
            import os, signal, sys
            from pathlib import Path
            from swinssl.core import files
            with files.atomic_path(Path(sys.argv[1])) as temporary:
                with open(temporary, "w") as stream:
                    stream.write("half of the n")
                    stream.flush()
                    os.kill(os.getpid(), signal.SIGKILL if os.name != "nt" else signal.SIGTERM)
        """
        done = subprocess.run([sys.executable, "-c", code, tmp_path / "f.txt"], check=False)
        assert done.returncode != 0
        assert (tmp_path / "f.txt").read_text() == "old"
        assert [name for name in names(tmp_path) if not name.startswith(".writing-")] == ["f.txt"]

    @pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
    def test_others_may_read_it_as_the_umask_says(self, tmp_path):
        before = os.umask(0o022)
        try:
            files.write_text(tmp_path / "f.txt", "for the whole group")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "f.txt").stat().st_mode) == 0o644

    def test_text_is_the_same_on_every_system(self, tmp_path):
        files.write_text(tmp_path / "f.txt", "Bücher\nlight µm\n")
        assert (tmp_path / "f.txt").read_bytes() == "Bücher\nlight µm\n".encode()


class TestJson:
    def test_what_is_written_is_read(self, tmp_path):
        value = {"spacing": [2.0, 1.5, 1.5], "names": ["Prostata (µ)"], "none": None, "exact": 0.1 + 0.2}
        files.write_json(tmp_path / "v.json", value)
        assert files.read_json(tmp_path / "v.json", what="value", remedy="") == value
        assert (tmp_path / "v.json").read_bytes().endswith(b"}\n")

    @pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
    def test_numbers_that_json_does_not_have_are_refused(self, tmp_path, number):
        files.write_json(tmp_path / "v.json", {"Dice": 0.9})
        with pytest.raises(ValueError, match="not JSON compliant"):
            files.write_json(tmp_path / "v.json", {"Dice": number})
        assert json.loads((tmp_path / "v.json").read_text()) == {"Dice": 0.9}
        assert names(tmp_path) == ["v.json"]

    def test_a_byte_order_mark_does_no_harm(self, tmp_path):
        (tmp_path / "v.json").write_bytes(b'\xef\xbb\xbf{"labels": 1}')
        assert files.read_json(tmp_path / "v.json", what="value", remedy="") == {"labels": 1}

    @pytest.mark.parametrize(
        ("content", "found"),
        [
            (None, "no plans here"),
            (b"", "not valid JSON"),
            (b'{"spacing": [1, 1', "not valid JSON"),
            (b'{"name": "\xff\xfe"}', "not valid JSON"),
            (b"[" * 100_000, "not valid JSON"),
        ],
    )
    def test_a_fault_names_the_file_what_it_is_and_the_remedy(self, tmp_path, content, found):
        path = tmp_path / "swinsslPlans.json"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(UserError) as error:
            files.read_json(path, what="plans", remedy="Run swinssl_plan.")
        message = str(error.value)
        assert message.startswith(f"{path}: ") and found in message and message.endswith(" Run swinssl_plan.")

    def test_a_folder_in_its_place_is_named_too(self, tmp_path):
        with pytest.raises(UserError, match=r"the plans cannot be read \(.+\)\. Run swinssl_plan\."):
            files.read_json(tmp_path, what="plans", remedy="Run swinssl_plan.")


def test_the_hash_is_that_of_the_bytes(tmp_path):
    # The known answer of FIPS 180-2 for "abc".
    (tmp_path / "f").write_bytes(b"abc")
    assert files.sha256_of(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("text", ["NaN", "[1, Infinity]", "1e999", '{"a": "\\ud800"}', '{"\\udc00": 1}', "9" * 5000])
def test_json_that_could_not_be_written_again_is_refused(tmp_path, text):
    path = tmp_path / "plans.json"
    path.write_text(text)
    with pytest.raises(UserError, match="the plans cannot be read: not valid JSON"):
        files.read_json(path, what="plans", remedy="Run swinssl_plan.")


class TestReplacedFolders:
    def test_a_folder_takes_the_place_of_another(self, tmp_path):
        for name in ("new", "old"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "content").write_text(name)
        files.replace_folder(tmp_path / "new", tmp_path / "old")
        assert (tmp_path / "old" / "content").read_text() == "new"
        assert [path.name for path in tmp_path.iterdir()] == ["old"]

    def test_a_kill_at_any_moment_leaves_one_of_them(self, tmp_path, monkeypatch):
        (tmp_path / "new").mkdir()
        (tmp_path / "old").mkdir()
        if not files._exchange(tmp_path / "new", tmp_path / "old"):
            pytest.skip("the file system cannot exchange two names")

        def killed(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(files, "_remove", killed)
        monkeypatch.setattr(Path, "rename", killed)  # the place is never empty
        with pytest.raises(KeyboardInterrupt):
            files.replace_folder(tmp_path / "new", tmp_path / "old")
        assert (tmp_path / "old").is_dir()

    def test_where_names_cannot_be_exchanged_a_failure_puts_the_old_one_back(self, tmp_path, monkeypatch):
        monkeypatch.setattr(files, "_exchange", lambda first, second: False)
        (tmp_path / "old").mkdir()
        with pytest.raises(FileNotFoundError):
            files.replace_folder(tmp_path / "missing", tmp_path / "old")
        (tmp_path / "new").mkdir()
        files.replace_folder(tmp_path / "new", tmp_path / "old")
        assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_what_a_kill_left_goes_when_it_is_a_day_old(tmp_path):
    for name, age in (("fresh", 60), ("old", 2 * files.LEFT_BEHIND_SECONDS)):
        left = tmp_path / f"{files.PREFIX}{name}"
        left.mkdir()
        (left / "weights").write_text("half")
        for path in (left / "weights", left):
            os.utime(path, (time.time() - age,) * 2)
    files.write_text(tmp_path / "another", "file")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{files.PREFIX}fresh", "another"]


def test_what_is_there_already_is_not_written_again(tmp_path, monkeypatch):
    files.write_text(tmp_path / "file", "content")
    monkeypatch.setattr(files, "atomic_path", None)  # as in a folder that cannot be written to
    files.write_text(tmp_path / "file", "content")
