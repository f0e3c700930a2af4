"""Text that names a patient, in headers of raw images, is in nothing that any command writes or says."""

from __future__ import annotations

import gzip

import nibabel
from nibabel.nifti1 import Nifti1Extension
from support.raw_folders import make_raw
from support.whole_way import STEPS

CANARY = b"CANARY^PATIENT"
DICOM, COMMENT = 2, 6


def mark(path):
    """Write the name wherever a NIfTI header has room for text, and as extensions of both usual kinds."""
    image = nibabel.load(path)
    marked = nibabel.Nifti1Image(image.dataobj.get_unscaled(), image.affine, image.header)
    for name in ("descrip", "aux_file", "intent_name", "db_name"):
        marked.header[name] = CANARY
    marked.header.extensions += [Nifti1Extension(code, CANARY) for code in (DICOM, COMMENT)]
    nibabel.save(marked, path)


def content(path):
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == ".gz" else data


def test_a_name_in_the_headers_reaches_neither_files_nor_what_is_said(tmp_path, typed):
    raw = make_raw(tmp_path / "raw" / "Dataset007_Toy")
    for path in [*raw.rglob("*.nii.gz")]:
        mark(path)
        assert content(path).count(CANARY) == 6
    for step, arguments in STEPS.items():
        done = typed(step, *arguments(tmp_path))
        assert done.code == 0 and CANARY.decode() not in done.out + done.err, step
    written = [path for path in tmp_path.rglob("*") if path.is_file() and raw not in path.parents]
    assert {".json", ".csv", ".png", ".gz", ".jsonl", ".safetensors", ".b2nd"} <= {path.suffix for path in written}
    # Preprocessing keeps the reference labels as they were given, for training to measure by; they stay with the data.
    own = [path for path in written if path.parent.name != "gt_segmentations"]
    assert [path for path in own if CANARY in content(path)] == []
