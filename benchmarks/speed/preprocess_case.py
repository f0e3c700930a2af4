"""Preprocessing of one case, from NIfTI files to the store, beside nnU-Net's: same numbers, less time.

    python benchmarks/speed/preprocess_case.py --out preprocess_case.json

In an environment with the peers of benchmarks/requirements.txt. Both read, crop, normalise (z-score), resample (orders
3 and 1), find the voxels of each class and write. Into our own store the gain is in part that of a smaller format and
a faster codec; into nnU-Net's store, written by nnU-Net's own function, it is that of the computation alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import side_by_side as sbs
from inputs import Shape, blobs, ct, mr, shares
from made_plans import labels_of, plans_of
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from numpy.typing import NDArray

from swinssl.core import files
from swinssl.core.geometry import Spacing
from swinssl.dataset.raw_dataset import RawDataset
from swinssl.imageio.reader import read_channels, read_label
from swinssl.imageio.volume import Geometry
from swinssl.imageio.writer import write_volume
from swinssl.preprocessing.plans import Intensity, Plans
from swinssl.preprocessing.prepared_volume import PreparedVolume, prepare
from swinssl.preprocessing.preprocess import preprocess_dataset
from swinssl.preprocessing.resample import separate_z_axis
from swinssl.preprocessing.store import PreprocessedCase

NNUNET = "nnU-Net"
OURS_INTO_NNUNET = "swinssl, nnU-Net's store"
CASE = "case"
CLASSES = 15
LABELS = labels_of(CLASSES)
PATCH: Shape = (96, 96, 96)
# Of float32 before storage, in standard deviations of the image.
IMAGE_TOLERANCE = 1e-5
# What nnU-Net keeps of a class: so many voxels, or this share of them.
LOCATIONS, LOCATIONS_SHARE = 10_000, 0.01
OURS_WROTE = "float16 + uint8, LZ4 level 1, locations, SHA-256"
NNUNET_WROTE = "float32 + int16, LZ4HC level 5, locations"


@dataclass(frozen=True)
class _Case:
    """What is preprocessed, and how.

    Args:
        scratch: an own folder; the first check writes the case there, in a child, so that this process stays small.
        draw: makes the channels and the label map.
        spacing: mm (z, y, x) of the files.
        target: mm wanted.
        inside_mask: the z-score is taken over the non-zero voxels and the holes they enclose.
    """

    name: str
    scratch: Path
    shape: Shape
    draw: Callable[[Shape], tuple[list[NDArray], NDArray]]
    channels: tuple[str, ...]
    spacing: Spacing
    target: Spacing
    inside_mask: bool = False

    @property
    def raw(self) -> Path:
        """The raw data set of this one case."""
        return self.scratch / "Dataset001_Case"

    @property
    def images(self) -> list[Path]:
        """One file a channel."""
        return [self.raw / "imagesTr" / f"{CASE}_{channel:04d}.nii.gz" for channel in range(len(self.channels))]

    @property
    def label(self) -> Path:
        """The label map's file."""
        return self.raw / "labelsTr" / f"{CASE}.nii.gz"

    @property
    def description(self) -> dict[str, Any]:
        """dataset.json."""
        return {
            "channel_names": {str(index): name for index, name in enumerate(self.channels)},
            "labels": {"background": 0, **{name: code for code, name in enumerate(LABELS.names, start=1)}},
            "numTraining": 1,
            "file_ending": ".nii.gz",
        }

    def write(self) -> None:
        """Write the raw data set, if it is not there."""
        if self.raw.is_dir():
            return
        channels, label = self.draw(self.shape)
        geometry = Geometry.from_parts(self.shape, spacing=self.spacing)
        for path, array in zip([*self.images, self.label], [*channels, label], strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_volume(path, array, geometry)
        files.write_json(self.raw / "dataset.json", self.description)

    def __str__(self) -> str:
        apart = separate_z_axis(self.spacing, self.target)
        return (
            f"{'+'.join(self.channels)} {' x '.join(map(str, self.shape))} at {_mm(self.spacing)} -> {_mm(self.target)}"
            f"{'' if apart is None else ', separate z'}{', inside mask' if self.inside_mask else ''}"
        )


def comparisons(quick: bool) -> Iterator[sbs.Comparison]:
    """A CT whose slices are resampled apart, a CT in three dimensions, and an MR of two channels with its mask."""
    ct_shape: Shape = (80, 256, 256) if quick else (200, 512, 512)
    mr_shape: Shape = (60, 160, 160) if quick else (160, 320, 320)
    with tempfile.TemporaryDirectory(prefix="preprocess_case_") as scratch:

        def case(name: str, *what: Any, inside_mask: bool = False) -> _Case:
            return _Case(name, Path(scratch) / name, *what, inside_mask=inside_mask)

        yield from _comparisons(case("CT separate z", ct_shape, _ct, ("CT",), (2.5, 0.8, 0.8), (1.5, 1.0, 1.0)))
        if not quick:
            yield from _comparisons(case("CT even", ct_shape, _ct, ("CT",), (2.0, 0.8, 0.8), (1.5, 1.0, 1.0)))
        yield from _comparisons(
            case("MR two channels", mr_shape, _mr, ("T1", "T2"), (1.2, 0.75, 0.75), (1.0, 1.0, 1.0), inside_mask=True)
        )


def in_half(image: NDArray) -> NDArray[np.float16]:
    """Float16 by numpy, with what is below its normal numbers at 0."""
    return np.where(np.abs(image) < np.finfo(np.float16).smallest_normal, 0, image).astype(np.float16)


def _ct(shape: Shape) -> tuple[list[NDArray], NDArray]:
    return [ct(shape)], blobs(shape, classes=CLASSES)


def _mr(shape: Shape) -> tuple[list[NDArray], NDArray]:
    """Two contrasts of one body, zero around it and in holes inside it; labels lie within."""
    first = np.rint(mr(shape)).astype(np.int16)
    second = np.where(first > 0, np.rint(np.sqrt(np.maximum(mr(shape, seed=1), 0)) * 20), 0).astype(np.int16)
    return [first, second], np.where(first > 0, blobs(shape, classes=CLASSES, share=0.1), 0).astype(np.uint8)


def _comparisons(case: _Case) -> Iterator[sbs.Comparison]:
    plans = _plans(case)
    theirs = _nnunet(case)

    def prepared() -> PreparedVolume:
        return prepare(read_channels(case.images), plans, label=read_label(case.label))

    def ours(folder: Path) -> None:
        """What `swinssl_preprocess` does, in this process."""
        report = preprocess_dataset(RawDataset.load(case.raw), plans, folder, workers=0)
        assert report.cases[0].status == "done", report.cases[0].message

    def ours_into_nnunet(folder: Path) -> None:
        volume = prepared()
        assert volume.label is not None
        seg = volume.label.astype(np.int16)
        seg[volume.label == LABELS.outside_code] = -1
        sizes = {}
        for ending, array in (("", volume.image), ("_seg", seg[None])):
            sizes[f"blocks{ending}"], sizes[f"chunks{ending}"] = comp_blosc2_params(array.shape, PATCH, array.itemsize)
        properties = {"spacing": case.spacing, "class_locations": _class_locations(volume.label)}
        nnUNetDatasetBlosc2.save_case(volume.image, seg[None], properties, str(folder / CASE), **sizes)

    def reference() -> tuple[NDArray, NDArray, dict[str, Any]]:
        """nnU-Net's arrays, which its store keeps exactly; the raw case is written where it is not yet."""
        case.write()
        done = case.scratch / "reference"
        if not done.is_dir():
            done.mkdir()
            theirs(done)
        return _stored(done)

    def check_ours() -> dict[str, Any]:
        image, seg, _ = reference()
        volume = prepared()
        found = _equal(volume.image, volume.label, image, seg)
        folder = _folder(case)
        ours(folder)
        stored = PreprocessedCase.open(folder, CASE)
        assert np.array_equal(stored.image(), in_half(volume.image)), "the store is not the image in float16"
        assert np.array_equal(stored.label(), volume.label), "the store's labels are not those that were prepared"
        return found

    def check_into_nnunet() -> dict[str, Any]:
        image, seg, _ = reference()
        folder = _folder(case)
        ours_into_nnunet(folder)
        own, own_seg, properties = _stored(folder)
        for code, places in properties["class_locations"].items():
            assert (own_seg[tuple(places.T)] == code).all(), f"locations of {code} are not where it is"
        return _equal(own[:], np.where(own_seg < 0, LABELS.outside_code, own_seg), image, seg)

    peer = sbs.Way(NNUNET, lambda: theirs(_folder(case)), NNUNET_WROTE)
    yield sbs.Comparison(
        f"preprocess {case.name}, our store",
        str(case),
        [sbs.Way(sbs.OURS, lambda: ours(_folder(case)), OURS_WROTE), peer],
        check_ours,
        [sbs.Goal(NNUNET, 12, memory=0.2)],
    )
    yield sbs.Comparison(
        f"preprocess {case.name}, nnU-Net's store",
        str(case),
        [sbs.Way(OURS_INTO_NNUNET, lambda: ours_into_nnunet(_folder(case)), NNUNET_WROTE), peer],
        check_into_nnunet,
        [sbs.Goal(NNUNET, 5)],
    )


def _equal(image: NDArray, label: NDArray | None, theirs: NDArray, seg: NDArray) -> dict[str, Any]:
    """Ours against nnU-Net's before storage; voxels outside the mask are background on both sides."""
    assert label is not None
    assert image.shape == theirs.shape, f"{image.shape} voxels, {NNUNET} {theirs.shape}"
    apart = float(np.abs(image - theirs).max())
    assert apart <= IMAGE_TOLERANCE, f"largest difference {apart:.1e} sd"
    own = np.where(label == LABELS.outside_code, 0, label)
    differing = int((own != np.maximum(seg, 0)).sum())
    assert differing == 0, f"{differing} voxels of {seg.size:,} have another label"
    outside = int(((label == LABELS.outside_code) != (seg < 0)).sum())
    return {
        "image, largest difference before storage": f"{apart:.1e} sd",
        "differing labels": f"0 of {seg.size:,}; {shares(own)}",
        "outside the mask": f"{np.mean(seg < 0):.1%}, differing in {outside} voxels",
        "stored, channels and voxels": " x ".join(map(str, image.shape)),
    }


def _stored(folder: Path) -> tuple[NDArray, NDArray, dict[str, Any]]:
    """Image (C, Z, Y, X), label (Z, Y, X) and properties from nnU-Net's store."""
    blosc2.set_nthreads(1)
    image, seg, _, properties = nnUNetDatasetBlosc2(str(folder), [CASE]).load_case(CASE)
    found = {code: where[:, 1:] for code, where in properties["class_locations"].items()}
    return image[:], seg[:][0], {**properties, "class_locations": found}


def _class_locations(label: NDArray) -> dict[int, NDArray]:
    """Voxels (0, z, y, x) of each class, drawn as many as nnU-Net does and in its form."""
    flat = label.reshape(-1)
    foreground = np.flatnonzero((flat > 0) & (flat <= CLASSES))
    codes = flat[foreground]
    draws = np.random.default_rng(0)
    out = {}
    for code in range(1, CLASSES + 1):
        own = foreground[codes == code]
        kept = min(len(own), max(LOCATIONS, int(np.ceil(LOCATIONS_SHARE * len(own)))))
        places = np.unravel_index(draws.choice(own, kept, replace=False), label.shape)
        out[code] = np.stack([np.zeros_like(places[0]), *places], axis=1)
    return out


def _plans(case: _Case) -> Plans:
    return plans_of(
        LABELS,
        spacing=case.target,
        channel_names=case.channels,
        intensity=(Intensity(scheme="zscore", inside_mask=case.inside_mask),) * len(case.channels),
        crop_to_nonzero=True,
    )


def _nnunet(case: _Case) -> Callable[[Path], None]:
    """nnU-Net's default preprocessing into a folder, with the rules that its planner writes into plans."""
    resampling = {"order_z": 0, "force_separate_z": None}
    function = "resample_data_or_seg_to_shape"
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "patch_size": list(PATCH),
        "spacing": list(case.target),
        "normalization_schemes": ["ZScoreNormalization"] * len(case.channels),
        "use_mask_for_norm": [case.inside_mask] * len(case.channels),
        "resampling_fn_data": function,
        "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, **resampling},
        "resampling_fn_seg": function,
        "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, **resampling},
        "architecture": {},
    }
    manager = PlansManager(
        {
            "dataset_name": case.raw.name,
            "plans_name": "nnUNetPlans",
            "image_reader_writer": "SimpleITKIO",
            "label_manager": "LabelManager",
            "transpose_forward": [0, 1, 2],
            "transpose_backward": [0, 1, 2],
            "foreground_intensity_properties_per_channel": {str(i): {} for i in range(len(case.channels))},
            "configurations": {"3d_fullres": configuration},
        }
    )
    chosen: ConfigurationManager = manager.get_configuration("3d_fullres")
    # It looks classes and functions up by their names and keeps them: once here rather than in every measured run.
    _ = manager.image_reader_writer_class, manager.label_manager_class
    _ = chosen.resampling_fn_data, chosen.resampling_fn_seg
    preprocessor = DefaultPreprocessor(verbose=False)
    images = [str(path) for path in case.images]

    def run(folder: Path) -> None:
        preprocessor.run_case_save(
            str(folder / CASE), images, str(case.label), manager, chosen, dataset_json=case.description
        )

    return run


def _folder(case: _Case) -> Path:
    return Path(tempfile.mkdtemp(dir=case.scratch))


def _mm(spacing: Spacing) -> str:
    return f"{' x '.join(f'{value:g}' for value in spacing)} mm"


if __name__ == "__main__":
    sbs.main(__doc__, comparisons)
