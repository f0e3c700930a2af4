"""Reading and writing NIfTI volumes beside SimpleITK and nibabel: same voxels, less time.

    python benchmarks/speed/volumes.py --out volumes.json

In an environment with the peers of benchmarks/requirements.txt. Ours uses isal where it is installed; the tables say
whether it was.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import side_by_side as sbs
import SimpleITK as sitk
from inputs import Shape, blobs, ct, organs, shares, size
from numpy.typing import NDArray

from swinssl.imageio.reader import read_channels
from swinssl.imageio.volume import Geometry
from swinssl.imageio.voxel_stream import ISAL_LEVEL, ZLIB_LEVEL
from swinssl.imageio.writer import write_volume

SIMPLEITK, NIBABEL = "SimpleITK", "nibabel"
SPACING = (1.5, 0.8, 0.8)
# Label maps are written in milliseconds, so that a single one would measure what a fresh process pays once.
LABEL_MAPS_WRITTEN = 5
ISAL = importlib.util.find_spec("isal") is not None
READ_GOAL, WRITE_LABELS_GOAL, WRITE_IMAGE_GOAL = 1.4, 8.0, 4.0


def comparisons(quick: bool) -> Iterator[sbs.Comparison]:
    """Read an image, write label maps, dense and sparse, write an image."""
    shape: Shape = (80, 256, 256) if quick else (200, 512, 512)
    image = ct(shape)
    with tempfile.TemporaryDirectory() as folder:
        yield _read("read image", Path(folder), image)
        for name, labels in (("dense", organs(shape)), ("sparse", blobs(shape))):
            yield _write(
                f"write labels, {name}",
                Path(folder),
                labels,
                shares(labels),
                goal=WRITE_LABELS_GOAL,
                times=LABEL_MAPS_WRITTEN,
            )
        yield _write("write image", Path(folder), image, "int16 CT", goal=WRITE_IMAGE_GOAL)


def _read(name: str, folder: Path, image: NDArray[np.int16]) -> sbs.Comparison:
    path = folder / "image.nii.gz"
    _write_sitk(path, image)

    def check() -> dict[str, Any]:
        for read in (_read_ours, _read_sitk, _read_nibabel):
            found = read(path)
            assert found.dtype == image.dtype and np.array_equal(found, image), f"{read.__name__}: voxels differ"
        return {"voxels": f"identical, {image.dtype}", "file": f"{_mb(path)} from SimpleITK"}

    return sbs.Comparison(
        name,
        f"{size(image.shape)}, {image.nbytes / 1e6:.0f} MB, .nii.gz in the page cache",
        [
            sbs.Way(
                sbs.OURS, partial(_read_ours, path), f"inflated by {'isal' if ISAL else 'zlib'}, checksum verified"
            ),
            sbs.Way(SIMPLEITK, partial(_read_sitk, path), "inflated by ITK's zlib"),
            sbs.Way(NIBABEL, partial(_read_nibabel, path), "inflated by Python's zlib"),
        ],
        check,
        [sbs.Goal(SIMPLEITK, READ_GOAL)],
    )


def _write(name: str, folder: Path, array: NDArray, content: str, *, goal: float, times: int = 1) -> sbs.Comparison:
    geometry = Geometry.from_parts(array.shape, spacing=SPACING)
    ways: dict[str, tuple[Path, Callable[[Path], None]]] = {
        sbs.OURS: (folder / "ours.nii.gz", lambda path: write_volume(path, array, geometry)),
        SIMPLEITK: (folder / "sitk.nii.gz", lambda path: _write_sitk(path, array)),
    }

    def check() -> dict[str, Any]:
        for way, (path, write) in ways.items():
            write(path)
            for read in (_read_ours, _read_sitk):
                assert np.array_equal(read(path), array), f"{way}: {read.__name__} reads other voxels"
        ours, theirs = (path.stat().st_size for path, _ in ways.values())
        return {
            "read back by both": "identical",
            "content": content,
            "size": f"{ours / 1e6:.2f} MB, {SIMPLEITK} {theirs / 1e6:.2f} MB ({ours / theirs:.2f} of it)",
        }

    wrote = {
        sbs.OURS: f".nii.gz, {f'isal level {ISAL_LEVEL}' if ISAL else f'zlib level {ZLIB_LEVEL}'}, synced and renamed",
        SIMPLEITK: ".nii.gz, its default level",
    }
    return sbs.Comparison(
        name,
        f"{size(array.shape)}, {array.nbytes / 1e6:.0f} MB, {f'{times} times' if times > 1 else 'once'}",
        [sbs.Way(way, partial(_again, times, write, path), wrote[way]) for way, (path, write) in ways.items()],
        check,
        [sbs.Goal(SIMPLEITK, goal)],
    )


def _again(times: int, write: Callable[[Path], None], path: Path) -> None:
    for _ in range(times):
        write(path)


def _read_ours(path: Path) -> NDArray:
    return read_channels([path]).array[0]


def _read_sitk(path: Path) -> NDArray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def _read_nibabel(path: Path) -> NDArray:
    return np.asarray(nibabel.load(path).dataobj).T


def _write_sitk(path: Path, array: NDArray) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(SPACING[::-1])
    sitk.WriteImage(image, str(path))


def _mb(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"


if __name__ == "__main__":
    sbs.main(__doc__, comparisons)
