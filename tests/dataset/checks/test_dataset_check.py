"""Every code: a data set with that fault, and nothing else found in it."""

from __future__ import annotations

import gzip
import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel
import numpy as np
import pytest
from support.raw_folders import GRID, LABELS, SHAPE, ct, describe, liver_and_tumour, make_raw

from swinssl.core.errors import UserError
from swinssl.core.pools import Crash
from swinssl.dataset.checks import dataset_check as module
from swinssl.dataset.checks.case_check import CaseCheck, check_case
from swinssl.dataset.checks.dataset_check import check_dataset
from swinssl.dataset.checks.finding import CODES, Finding
from swinssl.dataset.checks.label_check import value_counts
from swinssl.imageio.volume import Geometry
from swinssl.imageio.writer import write_volume

if TYPE_CHECKING:
    from collections.abc import Callable

FEW = {"N502"}  # three cases give three folds
IMAGE, LABEL = "imagesTr/case_1_0000.nii.gz", "labelsTr/case_1.nii.gz"


@dataclass
class Raw:
    """A sound data set of three cases, and ways to spoil it."""

    folder: Path

    def image(self, array, geometry=GRID, file=IMAGE):
        write_volume(self.folder / file, array, geometry)

    def label(self, array, geometry=GRID, file=LABEL):
        write_volume(self.folder / file, array, geometry)

    def all_labels(self, array):
        for i in range(3):
            self.label(array, file=f"labelsTr/case_{i}.nii.gz")

    def describe(self, **keys):
        describe(self.folder, **keys)

    def edit(self, file, change):
        path = self.folder / file
        path.write_bytes(change(path.read_bytes()))

    def header(self, file, at, layout, *values):
        """Overwrite bytes of a NIfTI header."""

        def change(content):
            plain = bytearray(gzip.decompress(content))
            struct.pack_into(layout, plain, at, *values)
            return gzip.compress(bytes(plain))

        self.edit(file, change)

    def rename(self, file, other):
        (self.folder / file).rename(self.folder / other)

    def copy(self, file, other):
        (self.folder / other).write_bytes((self.folder / file).read_bytes())

    def remove(self, file):
        (self.folder / file).unlink()

    def write(self, file, text):
        (self.folder / file).write_text(text)


def moved(mm):
    return Geometry.from_parts(SHAPE, spacing=(3.0, 1.0, 1.0), origin=(5, -7, 9 + mm))


def with_value(array, value, where=(0, 0, 0), dtype=None):
    out = array.astype(dtype or array.dtype)
    out[where] = value
    return out


def replaced(raw, file, by):
    raw.remove(file)
    by(raw.folder / file)


def no_images(raw):
    for i in range(3):
        raw.remove(f"imagesTr/case_{i}_0000.nii.gz")


def no_labels(raw):
    for i in range(3):
        raw.remove(f"labelsTr/case_{i}.nii.gz")


def images_only(raw):
    no_labels(raw)
    (raw.folder / "labelsTr").rmdir()
    raw.remove("dataset.json")


def a_space(raw):
    raw.rename(IMAGE, "imagesTr/a b_0000.nii.gz")
    raw.rename(LABEL, "labelsTr/a b.nii.gz")


def gaps(raw):
    raw.describe(labels={**LABELS, "tumour": 3})
    for i in range(3):
        label = liver_and_tumour(i)
        label[label == 2] = 3
        raw.label(label, file=f"labelsTr/case_{i}.nii.gz")


def a_slice_less(raw):
    raw.label(liver_and_tumour(1)[1:], Geometry.from_parts((5, 12, 10), spacing=(3, 1, 1)))


def mask_of_255(raw):
    raw.describe(labels={"background": 0, "liver": 1})
    for i in range(3):
        mask = np.uint8(liver_and_tumour(i) > 0)
        raw.label(mask * np.uint8(255 if i == 1 else 1), file=f"labelsTr/case_{i}.nii.gz")


def annotated_but_empty(raw):
    raw.label(np.minimum(liver_and_tumour(1), 1))
    raw.describe(labels_present={f"case_{i}": ["liver", "tumour"] for i in range(3)})


def said_not_to_be_annotated(raw):
    raw.describe(labels_present={f"case_{i}": ["liver", "tumour"][: 2 - (i == 1)] for i in range(3)})


def one_voxel_of_tumour(raw):
    raw.label(with_value(np.minimum(liver_and_tumour(1), 1), 2, (2, 4, 4)))


def regions_without_order(raw):
    raw.describe(labels={"background": 0, "liver": [1, 2], "tumour": [2]})


def without_channel_numbers(raw):
    for i in range(3):
        raw.rename(f"imagesTr/case_{i}_0000.nii.gz", f"imagesTr/case_{i}.nii.gz")


def two_cases_of_one_patient_on_both_sides(raw):
    raw.describe(groups={"case_0": "p", "case_1": "p", "case_2": "q"})
    raw.write("splits_final.json", json.dumps([{"train": ["case_0"], "val": ["case_1"]}]))


def sheared(raw):
    affine = GRID.affine.copy()
    affine[2, 1] = 0.3
    raw.image(ct(10), Geometry(SHAPE, affine))
    raw.label(liver_and_tumour(1), Geometry(SHAPE, affine))


def disagreeing_forms(raw):
    raw.header(IMAGE, 268, "<f", 25.0)  # qoffset_x


def sform_without_sizes(raw):
    """As ACDC is published: right pixdim beside an sform of unit vectors."""
    raw.header(IMAGE, 280, "<12f", 1, 0, 0, 9, 0, 1, 0, -7, 0, 0, 1, 5)


def dicom_extension(raw):
    path = raw.folder / IMAGE
    image = nibabel.load(path)
    image = nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header)
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension(2, b"PatientName"))
    nibabel.save(image, path)


def metres(raw):
    grid = Geometry.from_parts(SHAPE, spacing=(0.003, 0.001, 0.001), origin=(0.005, -0.007, 0.009))
    raw.image(ct(10), grid)
    raw.label(liver_and_tumour(1), grid)
    for file in (IMAGE, LABEL):
        raw.header(file, 123, "<B", 1)


def bomb(raw):
    raw.header(IMAGE, 40, "<4h", 3, 1024, 1024, 1024)


def sides(raw):
    """The label's left structure on the patient's right: world x grows to the right, and x is the last index."""
    raw.describe(labels={"background": 0, "kidney_left": 1, "kidney_right": 2})
    for i in range(3):
        label = np.zeros(SHAPE, np.uint8)
        label[1:5, 3:9, 1:3], label[1:5, 3:9, 6 + i : 9] = (2, 1) if i == 1 else (1, 2)
        raw.label(label, file=f"labelsTr/case_{i}.nii.gz")


def only_tumour_labels(raw):
    raw.describe(labels={**LABELS, "spleen": 3})


def hu_without_intercept(raw):
    raw.image((ct(10) + 1024).astype(np.int16))


def another_structure(raw):
    make_raw(raw.folder, cases=9)
    raw.label(np.ones(SHAPE, np.uint8))


def another_unit(raw):
    grid = Geometry.from_parts(SHAPE, spacing=(30.0, 10.0, 10.0))
    raw.image(ct(10), grid)
    raw.label(liver_and_tumour(1), grid)


FAULTS: list[tuple[str, str, Callable[[Raw], object], set[str]]] = [
    ("E101", "not JSON", lambda raw: raw.write("dataset.json", "{"), {"W306"}),
    ("E101", "no description beside labels", lambda raw: raw.remove("dataset.json"), {"W306"}),
    ("E102", "no labels key", lambda raw: raw.describe(labels=None), set()),
    ("E102", "no channel names", lambda raw: raw.describe(channel_names=None), {"W306"}),
    ("E103", "channel names of another form", lambda raw: raw.describe(channel_names="CT"), {"W306"}),
    ("E104", "two structures of one value", lambda raw: raw.describe(labels={"background": 0, "a": 1, "b": 1}), set()),
    ("E105", "regions without order", regions_without_order, set()),
    ("E106", "image missing", lambda raw: raw.describe(channel_names={"0": "CT", "1": "PET"}), set()),
    ("E107", "label missing", lambda raw: raw.remove(LABEL), set()),
    ("E108", "a channel too many", lambda raw: raw.copy(IMAGE, "imagesTr/case_1_0001.nii.gz"), set()),
    ("E109", "id that is a device", lambda raw: raw.image(ct(7), file="imagesTr/con_0000.nii.gz"), {"E107", "W101"}),
    ("E110", "no image", no_images, {"W101", "W103"}),
    ("E111", "unknown structure", lambda raw: raw.describe(groups={"case_9": "p"}), {"W108"}),
    ("E112", "one label twice", lambda raw: raw.copy(LABEL, "labelsTr/case_1.nii"), set()),
    ("E113", "a patient on both sides", two_cases_of_one_patient_on_both_sides, set()),
    ("W101", "numTraining", lambda raw: raw.describe(numTraining=5), set()),
    ("W102", "another file", lambda raw: raw.write("imagesTr/notes.txt", "x"), set()),
    ("W102", "a folder", lambda raw: (raw.folder / "labelsTr" / "old").mkdir(), set()),
    ("W103", "label without image", lambda raw: raw.label(liver_and_tumour(4), file="labelsTr/x.nii.gz"), set()),
    ("W104", "another format", lambda raw: raw.image(ct(50), file="imagesTr/case_5_0000.nrrd"), set()),
    ("W105", "misspelt key", lambda raw: raw.describe(label_present={}), set()),
    ("W106", "id with a space", a_space, set()),
    ("W107", "no labels", no_labels, set()),
    ("W108", "cases without a group", lambda raw: raw.describe(groups={"case_0": "p"}), set()),
    ("N101", "modality", lambda raw: raw.describe(channel_names=None, modality={"0": "CT"}), set()),
    ("N101", "names by value", lambda raw: raw.describe(labels={"0": "background", "1": "a", "2": "b"}), set()),
    ("N102", "no channel number", without_channel_numbers, set()),
    ("N103", "gaps", gaps, set()),
    ("N104", "no background", lambda raw: raw.describe(labels={"liver": 1, "tumour": 2}), set()),
    ("N105", "ignore below", lambda raw: raw.describe(labels={"background": 0, "liver": 2, "ignore": 1}), set()),
    ("N106", "capitals", lambda raw: raw.rename(IMAGE, "imagesTr/case_1_0000.NII.GZ"), set()),
    ("N107", "images only", images_only, {"W306"}),
    ("E201", "a FIFO", lambda raw: replaced(raw, IMAGE, os.mkfifo), set()),
    ("E201", "a device", lambda raw: replaced(raw, IMAGE, lambda path: path.symlink_to("/dev/zero")), set()),
    ("E201", "a link loop", lambda raw: replaced(raw, LABEL, lambda path: path.symlink_to(path.name)), set()),
    ("E202", "empty file", lambda raw: raw.edit(IMAGE, lambda content: b""), set()),
    ("E203", "no image", lambda raw: raw.edit(LABEL, lambda content: b"text" * 200), set()),
    ("E204", "truncated image", lambda raw: raw.edit(IMAGE, lambda content: content[: len(content) // 2]), set()),
    ("E204", "no checksum", lambda raw: raw.edit(LABEL, lambda content: content[:-6]), set()),
    ("E205", "flipped bit", lambda raw: raw.edit(IMAGE, lambda c: c[:-6] + bytes([c[-6] ^ 1]) + c[-5:]), set()),
    ("E206", "2D", lambda raw: raw.header(IMAGE, 40, "<4h", 2, 120, 6, 1), set()),
    ("E206", "4D", lambda raw: raw.header(IMAGE, 40, "<5h", 4, 10, 6, 6, 2), set()),
    ("E207", "colour", lambda raw: raw.header(IMAGE, 70, "<2h", 128, 24), set()),
    ("E208", "voxels of 100 m", lambda raw: raw.image(ct(10), Geometry(SHAPE, np.diag([1e5, 1, 1, 1]))), set()),
    ("E208", "zero affine", lambda raw: raw.header(IMAGE, 280, "<4f", 0, 0, 0, 0), set()),
    ("E209", "garbage behind", lambda raw: raw.edit(IMAGE, lambda content: content + b"garbage"), set()),
    ("E210", "terabytes", lambda raw: raw.header(IMAGE, 40, "<4h", 3, 16000, 16000, 8000), set()),
    ("E210", "bomb", bomb, set()),
    ("W201", "no place", lambda raw: [raw.header(file, 252, "<2h", 0, 0) for file in (IMAGE, LABEL)], set()),
    ("W202", "forms differ", disagreeing_forms, set()),
    ("W202", "a qform that is no rotation", lambda raw: raw.header(IMAGE, 256, "<3f", 5, 5, 5), set()),
    ("W211", "sform without sizes", sform_without_sizes, set()),
    ("W211", "pixdim of another scan", lambda raw: raw.header(IMAGE, 80, "<3f", 0.5, 0.5, 5), set()),
    ("N203", "metres", metres, set()),
    ("N204", "DICOM in the header", dicom_extension, set()),
    ("N205", "sheared", sheared, set()),
    ("E301", "NaN", lambda raw: raw.image(with_value(ct(10), np.nan, dtype=np.float32)), set()),
    ("E301", "infinity", lambda raw: raw.image(with_value(ct(10), -np.inf, dtype=np.float32)), set()),
    ("E301", "beyond float32", lambda raw: raw.image(with_value(ct(10), 1e300, dtype=np.float64)), set()),
    ("E301", "at float32's end", lambda raw: raw.image(with_value(ct(10), 3.4e38, dtype=np.float32)), set()),
    ("W303", "constant", lambda raw: raw.image(np.full(SHAPE, -1000, np.int16)), set()),
    ("W304", "same scan", lambda raw: raw.copy("imagesTr/case_0_0000.nii.gz", IMAGE), set()),
    ("W305", "no intercept", hu_without_intercept, set()),
    ("W305", "intercept applied twice", lambda raw: raw.image((ct(10) - 1024).astype(np.int16)), set()),
    ("W305", "scaled", lambda raw: raw.image(((ct(10) + 1000) / 2000).astype(np.float32)), set()),
    ("W305", "fill value", lambda raw: raw.image(with_value(ct(10), -32768)), set()),
    ("W305", "one voxel of 1e9", lambda raw: raw.image(with_value(ct(10), 10**9, dtype=np.int32)), set()),
    ("W306", "CT called MR", lambda raw: raw.describe(channel_names={"0": "MR"}), set()),
    ("W307", "another unit", another_unit, set()),
    ("E401", "label of another shape", a_slice_less, set()),
    ("E402", "label 5 mm away", lambda raw: raw.label(liver_and_tumour(1), moved(5)), set()),
    ("W402", "label 0.3 mm away", lambda raw: raw.label(liver_and_tumour(1), moved(0.3)), set()),
    ("E403", "undeclared", lambda raw: raw.label(with_value(liver_and_tumour(1), 4)), set()),
    ("E403", "0 and 255", mask_of_255, set()),
    ("E403", "negative", lambda raw: raw.label(with_value(liver_and_tumour(1), -1, dtype=np.int16)), set()),
    ("E404", "fractional", lambda raw: raw.label(with_value(liver_and_tumour(1), 1.4, dtype=np.float32)), set()),
    ("E404", "scaled by the header", lambda raw: raw.header(LABEL, 112, "<2f", 0.25, 0), set()),
    ("E405", "NaN", lambda raw: raw.label(with_value(liver_and_tumour(1), np.nan, dtype=np.float32)), set()),
    ("W406", "empty", lambda raw: raw.label(np.zeros(SHAPE, np.uint8)), set()),
    ("W407", "annotated, but empty", annotated_but_empty, set()),
    ("W408", "not annotated, but there", said_not_to_be_annotated, set()),
    ("W409", "a structure that nobody has", only_tumour_labels, set()),
    ("E410", "all empty", lambda raw: raw.all_labels(np.zeros(SHAPE, np.uint8)), {"W406"}),
    ("W411", "another case's label", lambda raw: raw.copy("labelsTr/case_0.nii.gz", LABEL), set()),
    ("W412", "a few voxels", one_voxel_of_tumour, set()),
    ("W414", "sides", sides, set()),
    ("W415", "another structure", another_structure, {"W411"}),
]


@pytest.fixture
def raw(tmp_path):
    return Raw(make_raw(tmp_path / "Dataset001_Toy"))


def codes(report):
    return {finding.code for finding in report.findings}


def test_sound_data_have_no_finding(tmp_path):
    report = check_dataset(make_raw(tmp_path / "a", cases=5), workers=0)
    assert report.findings == () and report.structures == {"liver": 5, "tumour": 5}


@pytest.mark.parametrize(("code", "what", "spoil", "also"), FAULTS, ids=[f"{f[0]} {f[1]}" for f in FAULTS])
def test_fault(raw, code, what, spoil, also):
    spoil(raw)
    report = check_dataset(raw.folder, workers=0)
    assert code in codes(report), [str(f) for f in report.findings]
    assert codes(report) - also - FEW - {"N501"} == {code}, [str(f) for f in report.findings]
    for finding in report.findings:
        assert finding.severity == {"E": "error", "W": "warning", "N": "note"}[finding.code[0]]
        assert finding.remedy.endswith((".", "}")) and not finding.message.endswith(".")
        assert not Path(finding.file).is_absolute() and finding.file in (
            "dataset.json",
            *_files(raw.folder),
            finding.file,
        )


def _files(folder):
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*")]


def test_channels_on_other_grids(tmp_path):
    for code, mm in (("E302", 2.0), ("W302", 0.3)):
        raw = Raw(make_raw(tmp_path / code, channels=2))
        raw.image(ct(11), moved(mm), "imagesTr/case_1_0001.nii.gz")
        report = check_dataset(raw.folder, workers=0)
        assert codes(report) - FEW == {code} and report.findings[0].file == "imagesTr/case_1_0001.nii.gz"


def test_rounding_is_no_finding(raw):
    """nnU-Net refuses a spacing that differs by 1e-4."""
    raw.label(liver_and_tumour(1), Geometry.from_parts(SHAPE, spacing=(3.0, 1.0, 1.0001), origin=(5, -7, 9)))
    assert codes(check_dataset(raw.folder, workers=0)) == FEW


def test_capitals_everywhere(tmp_path):
    folder = make_raw(tmp_path / "a")
    for path in (*folder.glob("imagesTr/*"), *folder.glob("labelsTr/*")):
        path.rename(path.with_name(path.name.replace(".nii.gz", ".NII.GZ")))
    report = check_dataset(folder, workers=0)
    assert codes(report) == {"N106", *FEW} and len(report.raw.cases) == 3


def test_one_case(tmp_path):
    assert codes(check_dataset(make_raw(tmp_path / "a", cases=1), workers=0)) == {"N501"}


def test_a_listed_file_that_is_no_image(raw):
    raw.write("case.png", "x")
    raw.describe(dataset={"case_1": {"images": ["case.png"], "label": LABEL}}, cases=1)
    report = check_dataset(raw.folder, workers=0)
    assert codes(report) == {"E203", "N501"} and "Convert it" in report.findings[0].remedy


def test_voxels_beside_their_header(raw):
    """The missing file is the one that the header names, so the listing did not miss it."""
    for channel in range(3):
        write_volume(raw.folder / "imagesTr" / f"case_{channel}_0000.mhd", ct(10 * channel), GRID)
    raw.describe(file_ending=".mhd")
    assert codes(check_dataset(raw.folder, workers=0)) == {"W104", *FEW}
    raw.remove("imagesTr/case_1_0000.zraw")
    report = check_dataset(raw.folder, workers=0)
    assert codes(report) == {"E201", "W104", *FEW} and report.findings[0].file == "imagesTr/case_1_0000.zraw"


def test_a_dead_process_is_a_finding(raw, monkeypatch):
    monkeypatch.setattr(module, "run_jobs", lambda function, jobs, workers: enumerate([Crash(-9)] * len(jobs)))
    report = check_dataset(raw.folder, workers=2)
    assert codes(report) - FEW == {"E201"} and "memory" in report.findings[0].message


def test_a_bug_in_one_case_is_a_finding(raw, monkeypatch):
    monkeypatch.setattr("swinssl.dataset.checks.case_check.value_counts", lambda _: 1 / 0)
    found = check_case(CaseCheck(raw.folder, module.survey(raw.folder)[0].cases[0], ("CT",), None)).findings
    assert [f.code for f in found] == ["E203"] and "ZeroDivisionError" in found[0].message


def test_every_problem_in_one_run(raw):
    """Different faults in all three cases and in the description; none hides another."""
    raw.describe(numTraining=9, label_present={})
    raw.edit("imagesTr/case_0_0000.nii.gz", lambda content: content[:-20])
    raw.label(with_value(liver_and_tumour(0), 7), file="labelsTr/case_0.nii.gz")
    raw.image(with_value(ct(10), np.nan, dtype=np.float32))
    raw.label(liver_and_tumour(1), moved(5))
    raw.remove("labelsTr/case_2.nii.gz")
    raw.write("imagesTr/notes.txt", "x")
    found = [finding.code for finding in check_dataset(raw.folder, workers=0).findings]
    assert found == ["E107", "E204", "E301", "E402", "E403", "W101", "W102", "W105", "N502"]


def test_workers_find_the_same(raw):
    raw.label(with_value(liver_and_tumour(1), 4))
    assert check_dataset(raw.folder, workers=2).findings == check_dataset(raw.folder, workers=0).findings


def test_the_same_scan_in_another_orientation_and_type(raw):
    array = ct(0)[:, ::-1].astype(np.float32)
    affine = GRID.affine.copy()
    affine[:3, 3] += affine[:3, 1] * (SHAPE[1] - 1)
    affine[:3, 1] *= -1
    raw.image(array, Geometry(SHAPE, affine))
    raw.label(liver_and_tumour(1)[:, ::-1], Geometry(SHAPE, affine))
    report = check_dataset(raw.folder, workers=0)
    assert codes(report) - FEW == {"W304"} and "case_0" in report.findings[0].message


def test_remedies_say_what_was_meant(raw):
    raw.describe(labels={"background": 0, "liver": 1})
    raw.all_labels(liver_and_tumour(0))
    raw.label(np.uint8(liver_and_tumour(1) > 0) * np.uint8(255))
    remedies = {f.file: f.remedy for f in check_dataset(raw.folder, workers=0).findings if f.code == "E403"}
    assert "relabel 255 to 1" in remedies[LABEL] and 'Add 2 to "labels"' in remedies["labelsTr/case_0.nii.gz"]


@pytest.mark.parametrize("line", ["imagesTr", "labelsTr/case_0.pdf"])
def test_a_line_of_a_list_that_is_no_image(raw, line):
    raw.write("scans.txt", f"# channel: CT\n{IMAGE}\n{line}\n")
    (finding,) = check_dataset(raw.folder / "scans.txt", workers=0).findings
    assert (finding.code, finding.file) == ("E114", line) and "line 3 of scans.txt" in finding.message


def test_no_such_folder(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        check_dataset(tmp_path / "x")


@pytest.mark.parametrize("dtype", ["u1", "i2", "i8", "f4"])
def test_value_counts(dtype):
    array = np.random.default_rng(0).integers(-3 if dtype != "u1" else 0, 9, SHAPE).astype(dtype)
    expected = {value: int((array == value).sum()) for value in np.unique(array).tolist()}
    assert value_counts(array) == expected
    wide = array.astype(np.int64)
    wide[0, 0, 0] = 10**9
    assert value_counts(wide)[10**9] == 1


class TestCodes:
    def test_each_is_tested(self):
        tested = {fault[0] for fault in FAULTS} | {"E114", "E115", "E201", "E302", "W302", "N501", "N502"}
        assert tested == set(CODES)

    def test_each_is_documented(self):
        text = (Path(__file__).parents[3] / "docs" / "check.md").read_text()
        for code, meaning in CODES.items():
            assert f"| {code} | {meaning}" in text

    def test_unknown_code(self):
        with pytest.raises(ValueError, match="E999"):
            Finding("E999", "x", "y", "z.")


def test_nnunets_mistakes_are_documented(shared_data):
    """Every row of what nnU-Net's own check said about twenty prepared mistakes."""
    rows = shared_data.parent / "spec" / "nnunet_ref" / "mistakes.json"
    if not rows.is_file():
        pytest.skip("no reference file here")
    text = (Path(__file__).parents[3] / "docs" / "check.md").read_text()
    for row in json.loads(rows.read_text()):
        assert f"| {row['case']} |" in text, row["case"]


def test_half_of_the_cts_in_another_unit(raw):
    raw.image((ct(10) - 1024).astype(np.int16))
    raw.image((ct(20) - 1024).astype(np.int16), file="imagesTr/case_2_0000.nii.gz")
    raw.image(ct(30), file="imagesTr/case_3_0000.nii.gz")
    raw.label(liver_and_tumour(3), file="labelsTr/case_3.nii.gz")
    unlike = [finding for finding in check_dataset(raw.folder, workers=0).findings if finding.code == "W305"]
    assert [finding.file for finding in unlike] == [IMAGE, "imagesTr/case_2_0000.nii.gz"]


def test_the_scale_of_one_mr_does_not_matter(raw):
    for i, scale in enumerate((1, 1, 1000)):
        image = (np.clip(ct(i) + 1000, 0, None) * np.float32(scale)).astype(np.float32)
        raw.image(image, file=f"imagesTr/case_{i}_0000.nii.gz")
    raw.describe(channel_names={"0": "T1"})
    assert codes(check_dataset(raw.folder, workers=0)) == FEW


# The reference of this case has the neck's muscles in place of the spinal cord.
KNOWN = {"Dataset101_HeadNeckOrgansCT": [("W415", "labelsTr/okbp_260.nii.gz")]}


@pytest.mark.parametrize("name", ["Dataset101_HeadNeckOrgansCT", "Dataset202_SarcomaTumourMR"])
def test_real_data_are_sound(shared_data, name):
    findings = check_dataset(shared_data / "raw" / name, workers=0).findings
    assert [(finding.code, finding.file) for finding in findings] == KNOWN.get(name, [])
