"""Plant 20 faults in a copy of data set 101, a case each, and see whether swinssl_check finds these and nothing else.

    python benchmarks/reliability/planted_faults.py ../shared/data/raw/Dataset101_HeadNeckOrgansCT

Prints a row per fault: what was planted, in which case, and what the check said of it. Exit code 1 if a fault was
missed or something else was reported.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

COMMAND = Path(sys.executable).parent / "swinssl_check"
# Reported of the data set as it is: its "spinal cord" is the muscles of the neck.
KNOWN = "okbp_260"


def main(source: Path) -> int:
    with tempfile.TemporaryDirectory(prefix="planted_") as root:
        folder = Path(root) / "raw" / "Dataset101_Planted"
        shutil.copytree(source, folder)
        for path in folder.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        ids = [i for i in sorted(p.name.removesuffix(".nii.gz") for p in (folder / "labelsTr").iterdir()) if i != KNOWN]
        planted = {}
        for (name, plant), case in zip(FAULTS, ids, strict=False):
            plant(folder, case)
            planted[case] = name
        done = subprocess.run([COMMAND, str(folder), "--json"], capture_output=True, text=True, check=False)
        findings = json.loads(done.stdout)
    missed = 0
    for case, name in planted.items():
        said = [f for f in findings if case in f["file"].lower() or case in f["message"].lower()]
        missed += not said
        print(f"{'found ' if said else 'MISSED'} {case}  {name}")
        for finding in said:
            print(f"         {finding['code']} {finding['file']}: {finding['message']}")
    others = [f for f in findings if not any(c in f["file"].lower() or c in f["message"].lower() for c in planted)]
    for finding in others:
        print(f"other  {finding['code']} {finding['file']}: {finding['message']}")
    unexpected = [f for f in others if KNOWN not in f["file"] + f["message"]]
    print(f"{len(planted) - missed} of {len(planted)} found, {len(unexpected)} other findings beside {KNOWN}")
    return int(missed > 0 or len(unexpected) > 0)


def image_of(folder: Path, case: str) -> Path:
    return folder / "imagesTr" / f"{case}_0000.nii.gz"


def label_of(folder: Path, case: str) -> Path:
    return folder / "labelsTr" / f"{case}.nii.gz"


def change(path: Path, voxels: Callable[[np.ndarray], np.ndarray], dtype: type | None = None) -> None:
    volume = nib.load(path)
    array = voxels(np.asanyarray(volume.dataobj).copy())
    header = volume.header.copy()
    header.set_data_dtype(dtype or array.dtype)
    nib.save(nib.Nifti1Image(array, volume.affine, header), path)


def change_affine(path: Path, affine: Callable[[np.ndarray], np.ndarray]) -> None:
    volume = nib.load(path)
    nib.save(nib.Nifti1Image(np.asanyarray(volume.dataobj), affine(volume.affine.copy())), path)


def poke(path: Path, offset: int, form: str, *values: float) -> None:
    content = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into("<" + form, content, offset, *values)
    path.write_bytes(gzip.compress(bytes(content), 1))


def shifted(affine: np.ndarray) -> np.ndarray:
    affine[0, 3] += 8
    return affine


def one_voxel(value: float, dtype: type) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array = array.astype(dtype)
        array[tuple(n // 2 for n in array.shape)] = value
        return array

    return change


def structure_as(old: int, new: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda array: np.where(array == old, new, array).astype(array.dtype)


def swapped(array: np.ndarray) -> np.ndarray:
    return np.select([array == 3, array == 4], [array + 1, array - 1], array).astype(array.dtype)


def unscaled_sform(folder: Path, case: str) -> None:
    for path in (image_of(folder, case), label_of(folder, case)):
        poke(path, 252, "hh", 1, 1)
        poke(path, 280, "12f", -1, 0, 0, 0, 0, -1, 0, 0, 0, 0, 1, 0)


def other_qform(folder: Path, case: str) -> None:
    poke(image_of(folder, case), 252, "hh", 1, 1)
    poke(image_of(folder, case), 268, "3f", 500, 0, 0)


def twice(folder: Path, case: str) -> None:
    shutil.copy(image_of(folder, "okbp_260"), image_of(folder, case))
    shutil.copy(label_of(folder, "okbp_260"), label_of(folder, case))


def not_utf8(folder: Path, case: str) -> None:
    for path in (image_of(folder, case), label_of(folder, case)):
        path.rename(path.with_name(path.name.replace(case, case + "\udce4")))


def other_ending(folder: Path, case: str) -> None:
    for path in (image_of(folder, case), label_of(folder, case)):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()


def capitals(folder: Path, case: str) -> None:
    for path in (image_of(folder, case), label_of(folder, case)):
        shutil.copy(path, path.with_name(path.name.replace("okbp", "OKBP")))
        change(path.with_name(path.name.replace("okbp", "OKBP")), lambda a: np.roll(a, 1, 0))


def fifo(folder: Path, case: str) -> None:
    image_of(folder, case).unlink()
    os.mkfifo(image_of(folder, case))


FAULTS: list[tuple[str, Callable[[Path, str], object]]] = [
    ("label 8 mm beside its image", lambda f, c: change_affine(label_of(f, c), shifted)),
    ("label with a slice too few", lambda f, c: change(label_of(f, c), lambda a: a[:, :, 1:])),
    ("sform without voxel sizes, right pixdim", unscaled_sform),
    ("qform half a metre from sform", other_qform),
    ("image cut off", lambda f, c: image_of(f, c).write_bytes(image_of(f, c).read_bytes()[:-5000])),
    ("image with a NaN", lambda f, c: change(image_of(f, c), one_voxel(np.nan, np.float32))),
    ("image with a value beyond float32", lambda f, c: change(image_of(f, c), one_voxel(1e39, np.float64))),
    ("CT with one voxel of 1e9", lambda f, c: change(image_of(f, c), one_voxel(1e9, np.float32))),
    ("CT with the intercept applied twice", lambda f, c: change(image_of(f, c), lambda a: a.astype(np.int16) - 1024)),
    ("CT of raw stored values", lambda f, c: change(image_of(f, c), lambda a: a.astype(np.int16) + 1024)),
    ("label with an undeclared value", lambda f, c: change(label_of(f, c), structure_as(1, 9))),
    ("label with a value of 1.5", lambda f, c: change(label_of(f, c), one_voxel(1.5, np.float32))),
    ("label without any structure", lambda f, c: change(label_of(f, c), np.zeros_like)),
    ("left and right exchanged", lambda f, c: change(label_of(f, c), swapped)),
    ("no label file", lambda f, c: label_of(f, c).unlink()),
    ("the images of another case", twice),
    ("a name that is not UTF-8", not_utf8),
    (".nii among .nii.gz", other_ending),
    ("two cases whose names differ in capitals only", capitals),
    ("a named pipe for an image", fifo),
]

if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
