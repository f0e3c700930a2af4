"""Where data live, and which folder answers to a DATASET that was typed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from swinssl.core.errors import UserError
from swinssl.core.workspace import Workspace, safe_name


@pytest.fixture(autouse=True)
def no_environment(monkeypatch, tmp_path):
    """Neither variables nor the folder in which the tests were started count."""
    for name in ("SWINSSL_ROOT", "nnUNet_raw"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def workspace(tmp_path):
    """With three raw data sets, of which one is preprocessed and trained too."""
    root = tmp_path / "root"
    for name in ("Dataset004_Hippocampus", "Dataset101_HeadNeck", "Dataset102_HeadNeckTarget"):
        make(root / "raw" / name)
    make(root / "preprocessed" / "Dataset101_HeadNeck")
    make(root / "results" / "Dataset101_HeadNeck")
    return Workspace(root)


def make(folder):
    folder.mkdir(parents=True)
    (folder / "dataset.json").write_text("{}")
    return folder


def refused(call, *arguments):
    with pytest.raises(UserError) as error:
        call(*arguments)
    return str(error.value)


class TestRoot:
    def test_is_the_flag_s_then_the_environment_s_then_the_default(self, monkeypatch, tmp_path):
        assert Workspace.locate().root == Path("swinssl_data")
        monkeypatch.setenv("SWINSSL_ROOT", str(tmp_path / "environment"))
        assert Workspace.locate().root == tmp_path / "environment"
        assert Workspace.locate(tmp_path / "flag").root == tmp_path / "flag"

    def test_an_empty_variable_counts_as_none(self, monkeypatch):
        monkeypatch.setenv("SWINSSL_ROOT", "")
        assert Workspace.locate().root == Path("swinssl_data")


class TestFound:
    @pytest.mark.parametrize(
        "typed",
        [
            "Dataset101_HeadNeck",
            "101",
            "0101",
            "HeadNeck",
            "root/raw/Dataset101_HeadNeck/",
            "./root/raw/../raw/Dataset101_HeadNeck",
        ],
    )
    def test_by_name_number_short_name_and_path(self, workspace, typed):
        root = workspace.root
        assert workspace.raw(typed) == root / "raw" / "Dataset101_HeadNeck"
        assert workspace.name(typed) == "Dataset101_HeadNeck"
        assert workspace.preprocessed(typed) == root / "preprocessed" / "Dataset101_HeadNeck"
        assert workspace.results(typed) == root / "results" / "Dataset101_HeadNeck"

    def test_a_folder_anywhere_by_its_path_has_its_place_under_the_root(self, workspace, tmp_path):
        folder = make(tmp_path / "elsewhere" / "LiverCT")
        assert workspace.raw(str(folder)) == folder
        assert workspace.preprocessed(str(folder)) == workspace.root / "preprocessed" / "LiverCT"

    def test_the_folder_one_is_in(self, workspace, monkeypatch):
        monkeypatch.chdir(workspace.root / "raw" / "Dataset004_Hippocampus")
        assert workspace.raw(".") == workspace.root / "raw" / "Dataset004_Hippocampus"
        assert workspace.name(".") == "Dataset004_Hippocampus"
        monkeypatch.chdir(workspace.root / "raw")
        assert workspace.raw("Dataset004_Hippocampus") == workspace.root / "raw" / "Dataset004_Hippocampus"

    def test_a_folder_here_without_dataset_json_does_not_hide_the_data_set(self, workspace, tmp_path):
        (tmp_path / "HeadNeck").mkdir()
        assert workspace.raw("HeadNeck") == workspace.root / "raw" / "Dataset101_HeadNeck"

    def test_nnunets_raw_folder_is_searched_after_our_own(self, workspace, monkeypatch, tmp_path):
        monkeypatch.setenv("nnUNet_raw", str(tmp_path / "nnunet"))
        theirs = make(tmp_path / "nnunet" / "Dataset009_Spleen")
        make(tmp_path / "nnunet" / "Dataset101_HeadNeck")
        assert workspace.raw("9") == theirs
        assert workspace.name("Spleen") == "Dataset009_Spleen"
        assert workspace.raw("101") == workspace.root / "raw" / "Dataset101_HeadNeck"

    def test_preprocessed_or_trained_data_need_no_raw_ones(self, workspace, tmp_path):
        make(workspace.root / "results" / "Dataset300_Shared")
        assert workspace.results("300") == workspace.root / "results" / "Dataset300_Shared"
        assert workspace.preprocessed("Shared") == workspace.root / "preprocessed" / "Dataset300_Shared"
        assert "no such raw data set" in refused(workspace.raw, "300")

    def test_a_list_of_volumes_by_its_path_and_what_was_made_of_it_by_its_name(self, workspace, tmp_path):
        (tmp_path / "scans.v2.txt").touch()
        for typed in ("scans.v2.txt", "./scans.v2.txt", str(tmp_path / "scans.v2.txt")):
            assert workspace.raw(typed) == tmp_path / "scans.v2.txt" and workspace.name(typed) == "scans.v2"
        make(workspace.root / "preprocessed" / "scans.v2")
        assert workspace.preprocessed("scans.v2") == workspace.preprocessed("scans.v2.txt")
        assert "of a list of volumes (.txt)" in refused(workspace.raw, "scans.v2")

    def test_a_whole_name_stands_above_another_s_short_one(self, workspace):
        plain = make(workspace.root / "raw" / "HeadNeck")
        assert workspace.raw("HeadNeck") == plain
        assert workspace.raw("101").name == "Dataset101_HeadNeck"

    @pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
    def test_a_link_keeps_its_own_name_however_it_is_given(self, workspace, tmp_path):
        link = workspace.root / "raw" / "Dataset005_Linked"
        link.symlink_to(make(tmp_path / "archive" / "v2"))
        assert workspace.raw("5") == workspace.raw(str(link)) == link
        assert workspace.preprocessed("5") == workspace.preprocessed(str(link))


class TestRefused:
    def test_two_that_answer_are_both_named(self, workspace):
        make(workspace.root / "raw" / "Dataset101_Other")
        message = refused(workspace.raw, "101")
        assert "more than one raw data set has this name" in message
        assert "Dataset101_HeadNeck, Dataset101_Other" in message and "Give the full name." in message

    @pytest.mark.parametrize(
        ("typed", "near"),
        [("Dataset101_HeadNek", "Dataset101_HeadNeck"), ("dataset004_hippocampus", "Dataset004_Hippocampus")],
    )
    def test_a_slip_of_the_pen_gets_the_nearest_name(self, workspace, typed, near):
        message = refused(workspace.raw, typed)
        assert message.startswith(f"{typed}: no such raw data set in {workspace.root / 'raw'}.")
        assert f"Did you mean {near}?" in message and "--root" in message

    def test_a_wrong_number_gets_what_is_known(self, workspace):
        message = refused(workspace.raw, "77")
        assert "Known: Dataset004_Hippocampus, Dataset101_HeadNeck, Dataset102_HeadNeckTarget." in message

    def test_every_folder_that_was_searched_is_named(self, workspace, monkeypatch, tmp_path):
        monkeypatch.setenv("nnUNet_raw", str(tmp_path / "nnunet"))
        message = refused(Workspace(tmp_path / "empty").name, "5")
        for part in ("empty/raw", "nnunet", "empty/preprocessed", "empty/results"):
            assert str(tmp_path / part) in message
        assert "Known" not in message and "Did you mean" not in message

    @pytest.mark.parametrize("typed", ["root/raw/Dataset101_Headneck", "./nothing", "/nowhere/at/all"])
    def test_a_path_to_nothing(self, workspace, typed):
        for method in (workspace.raw, workspace.preprocessed):
            assert refused(method, typed).startswith(f"{typed}: no such folder. Give an existing raw data set folder")

    def test_a_path_to_a_file(self, workspace):
        assert "a file, not a folder" in refused(workspace.raw, "root/raw/Dataset101_HeadNeck/dataset.json")

    @pytest.mark.parametrize("typed", ["scans.txt", "lists/scans.TXT"])
    def test_a_list_that_is_not_there(self, workspace, typed):
        for method in (workspace.raw, workspace.preprocessed):
            assert refused(method, typed).startswith(
                f"{typed}: no such file. Give an existing raw data set folder, a list"
            )

    def test_a_list_whose_name_cannot_stand_under_the_root(self, workspace, tmp_path):
        (tmp_path / "my scans.txt").touch()
        assert workspace.raw("my scans.txt") == tmp_path / "my scans.txt"
        assert "'my scans' cannot be used" in refused(workspace.preprocessed, "my scans.txt")

    def test_a_folder_whose_name_cannot_stand_under_the_root(self, workspace, tmp_path):
        folder = make(tmp_path / "CT scans (2024)")
        assert workspace.raw(str(folder)) == folder  # it can be read and checked all the same
        message = refused(workspace.preprocessed, str(folder))
        assert str(folder) in message and "'CT scans (2024)' cannot be used" in message


UNUSABLE = ["", ".", "..", ".hidden", "-x", "_x", "a b", "a/b", "a\\b", "a:b", "é", "a\n", "x" * 65, "a."]


class TestSafeNames:
    @pytest.mark.parametrize("name", ["a", "Dataset101_HeadNeck", "smit96__all", "v1.2-b", "9", "x" * 64, "console"])
    def test_pass_as_they_are(self, name):
        assert safe_name(name, what="--name") == name

    @pytest.mark.parametrize("name", [*UNUSABLE, "con", "CON", "nul.txt", "Aux.tar.gz", "com1", "LPT9"])
    def test_others_are_refused_with_the_rule(self, name):
        message = refused(lambda: safe_name(name, what="--name"))
        assert message.startswith("--name: ") and repr(name) in message and "1 to 64 letters, digits" in message
