"""The preprocessed store beside nnU-Net's blosc2 files: writing a case, and reading patches from it at random.

    python benchmarks/speed/store.py --out store.json

In an environment with the peers of benchmarks/requirements.txt. nnU-Net's chunks, blocks, codec and filters are those
that its preprocessing takes for this patch size. Writing ours includes finding the voxels of each class and the files'
hashes; nnU-Net is given the locations that it keeps, and has no hashes. The page cache is warm.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import side_by_side as sbs
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from inputs import Shape, blobs, ct, organs, shares, size
from made_plans import labels_of
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2
from numpy.typing import NDArray

from swinssl.imageio.volume import Geometry
from swinssl.preprocessing.case_properties import CaseProperties
from swinssl.preprocessing.resample import resample_image
from swinssl.preprocessing.store import LOCATIONS, PreprocessedCase, case_folder, write_case

NNUNET = "nnU-Net"
CASE = "case"
CLASSES = 15
LABELS = labels_of(CLASSES)
SPACING = (1.5, 1.0, 1.0)
PATCH: Shape = (96, 96, 96)
PATCHES = 24
SIZE_GOAL = 0.6
OURS_WROTE = "float16 + uint8, LZ4 level 1, locations, SHA-256"
NNUNET_WROTE = "float32 + int16, LZ4HC level 5, locations"


def comparisons(quick: bool) -> Iterator[sbs.Comparison]:
    """Writing with a sparse label map and with a dense one, then reading patches of the dense."""
    shape: Shape = (96, 256, 256) if quick else (150, 448, 448)
    image = _resampled_ct(shape)
    with tempfile.TemporaryDirectory(prefix="store_") as scratch:
        for name, labels in (("sparse", blobs(shape)), ("dense", organs(shape))):
            yield _write(f"write case, {name} labels", image, labels, Path(scratch))
        yield _read("read patches", image, labels, Path(scratch))


def _resampled_ct(shape: Shape) -> NDArray[np.float32]:
    """A CT as preprocessing leaves it: resampled, so that its values are no longer whole numbers, and z-scored."""
    z, y, x = shape
    source = ct((round(z * 0.6), round(y * 1.25), round(x * 1.25)))[None]
    return resample_image(((source - source.mean()) / source.std()).astype(np.float32), shape)


def _write(name: str, image: NDArray, labels: NDArray, scratch: Path) -> sbs.Comparison:
    ours, theirs = _writer(image, labels), _nnunet_writer(image, labels)

    def check() -> dict[str, Any]:
        here, there = _folder(scratch), _folder(scratch)
        ours(here), theirs(there)
        mine, peer = _megabytes(here), _megabytes(there)
        locations = (case_folder(here, CASE) / LOCATIONS).stat().st_size / 1e6
        share = mine / peer
        return {
            **_same_as_written(here, there, image, labels),
            "labels": shares(labels),
            "MB": f"{mine:.1f} (locations {locations:.1f}), {NNUNET} {peer:.1f}",
            "size": f"{share:.2f} of {NNUNET}'s; goal {SIZE_GOAL:g}: {'reached' if share <= SIZE_GOAL else 'missed'}",
        }

    return sbs.Comparison(
        name,
        f"{size(image.shape[1:])}, CT",
        [
            sbs.Way(sbs.OURS, lambda: ours(_folder(scratch)), OURS_WROTE),
            sbs.Way(NNUNET, lambda: theirs(_folder(scratch)), NNUNET_WROTE),
        ],
        check,
        [sbs.Goal(NNUNET, 5)],
    )


def _read(name: str, image: NDArray, labels: NDArray, scratch: Path) -> sbs.Comparison:
    here, there = _folder(scratch), _folder(scratch)
    draws = np.random.default_rng(0)
    highest = np.array(image.shape[1:]) - PATCH + 1
    corners = [draws.integers(0, highest) for _ in range(PATCHES)]

    def ours() -> Iterator[tuple[NDArray, NDArray]]:
        case = PreprocessedCase.open(here, CASE)  # once: training keeps its cases open
        for corner in corners:
            z, y, x = (slice(start, start + size) for start, size in zip(corner, PATCH, strict=True))
            yield case.image((z, y, x)), case.label((z, y, x))

    def theirs() -> Iterator[tuple[NDArray, NDArray]]:
        """As nnUNetDataLoader.generate_train_batch does."""
        cases = nnUNetDatasetBlosc2(str(there), [CASE])
        for corner in corners:
            data, seg, _, _ = cases.load_case(CASE)
            box = [[start, start + size] for start, size in zip(corner, PATCH, strict=True)]
            yield crop_and_pad_nd(data, box, 0), crop_and_pad_nd(seg, box, -1, cast_cropped_to=np.int16)

    def check() -> dict[str, Any]:
        _writer(image, labels)(here), _nnunet_writer(image, labels)(there)
        found = _same_as_written(here, there, image, labels)
        for (mine, own), (peer, other) in zip(ours(), theirs(), strict=True):
            assert np.array_equal(mine, peer.astype(np.float16)), "a patch of the image differs"
            assert np.array_equal(own, other[0]), "a patch of the labels differs"
        return {**found, "patches": f"all {PATCHES} equal, the image after rounding to float16"}

    return sbs.Comparison(
        name,
        f"{PATCHES} x {size(PATCH)} with labels from {size(image.shape[1:])}",
        [sbs.Way(sbs.OURS, partial(_exhaust, ours)), sbs.Way(NNUNET, partial(_exhaust, theirs))],
        check,
        [sbs.Goal(NNUNET, 1.2)],
    )


def _same_as_written(here: Path, there: Path, image: NDArray, labels: NDArray) -> dict[str, Any]:
    """What is read back whole is what was given."""
    case = PreprocessedCase.open(here, CASE)
    back = case.image()
    assert np.array_equal(back, image.astype(np.float16)), "ours is not the image rounded to float16"
    assert np.array_equal(case.label(), labels), "our labels differ"
    assert case.is_intact(), "our hashes do not fit"
    for code in range(1, CLASSES + 1):
        assert (labels.reshape(-1)[case.locations(code)] == code).all(), f"our locations of {code} are not where it is"
    data, seg, _, _ = nnUNetDatasetBlosc2(str(there), [CASE]).load_case(CASE)
    assert np.array_equal(data[:], image), f"{NNUNET}'s image differs"
    assert np.array_equal(seg[:][0], labels), f"{NNUNET}'s labels differ"
    apart = float(np.abs(back - image).max())
    return {"read back": f"ours within {apart:.1e} sd (float16), labels equal; {NNUNET} exact"}


def _writer(image: NDArray, labels: NDArray) -> Callable[[Path], None]:
    shape: Shape = image.shape[1:]
    properties = CaseProperties(
        case_id=CASE,
        source_shape=shape,
        source_affine=tuple(map(tuple, Geometry.from_parts(shape, spacing=SPACING).affine.tolist())),
        crop=((0, shape[0]), (0, shape[1]), (0, shape[2])),
        cropped_spacing=SPACING,
        shape=shape,
        spacing=SPACING,
        annotated=True,
    )
    return lambda folder: write_case(folder, properties, image=image, label=labels, labels=LABELS)


def _nnunet_writer(image: NDArray, labels: NDArray) -> Callable[[Path], None]:
    seg = labels[None].astype(np.int16)
    found = DefaultPreprocessor._sample_foreground_locations(seg, list(range(1, CLASSES + 1)))
    properties = {"spacing": SPACING, "class_locations": found}
    blocks, chunks = comp_blosc2_params(image.shape, PATCH, image.itemsize)
    blocks_seg, chunks_seg = comp_blosc2_params(seg.shape, PATCH, seg.itemsize)
    sizes = {"chunks": chunks, "blocks": blocks, "chunks_seg": chunks_seg, "blocks_seg": blocks_seg}
    return lambda folder: nnUNetDatasetBlosc2.save_case(image, seg, properties, str(folder / CASE), **sizes)


def _exhaust(read: Callable[[], Iterator[Any]]) -> None:
    for _ in read():
        pass


def _folder(scratch: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=scratch))


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


if __name__ == "__main__":
    sbs.main(__doc__, comparisons)
