"""Which prediction belongs to which reference: by name, and on one grid."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from swinssl.core.errors import UserError
from swinssl.core.text import MOST, counted, listed
from swinssl.dataset.case import case_name, refuse_unusable
from swinssl.dataset.labels import whole_labels
from swinssl.imageio.formats import dicom_hint, images_in, known_endings
from swinssl.imageio.reader import read_geometry, read_label
from swinssl.imageio.same_grid import GridComparison, compare_grids
from swinssl.imageio.volume import Geometry, Volume

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pair:
    """A prediction and the reference of the same case."""

    case_id: str
    prediction: Path
    reference: Path

    def __str__(self) -> str:
        return self.case_id

    def read(self) -> tuple[NDArray, NDArray, Geometry]:
        """Both label maps, as (Z, Y, X) integers of the files' values, and their grid.

        A prediction in another storage order (flipped, axes exchanged) is brought into the reference's.

        Raises:
            UserError: a file cannot be read or has values that are no labels, or the two lie on different grids.
        """
        reference, prediction = read_label(self.reference), read_label(self.prediction)
        axes = self._compare(reference.geometry, prediction.geometry).axes
        reordered = Volume(axes.apply(prediction.array), reference.geometry)
        return _labels(self.reference, reference), _labels(self.prediction, reordered), reference.geometry

    def check(self) -> tuple[Geometry, str | None]:
        """The grid of the two, from their headers, and a remark where they differ by more than rounding.

        Raises:
            UserError: a header cannot be read, or they lie on different grids.
        """
        reference = read_geometry(self.reference)
        comparison = self._compare(reference, read_geometry(self.prediction))
        return reference, comparison.describe("its reference") if comparison.noticeable else None

    def _compare(self, reference: Geometry, prediction: Geometry) -> GridComparison:
        comparison = compare_grids(prediction, reference)
        if not comparison.same:
            raise UserError(
                f"{self.prediction}: {comparison.describe(f'its reference {self.reference}')}. Both must lie on one "
                "grid: predict on the image that the reference was drawn on, or resample the prediction onto the "
                "reference's grid."
            )
        return comparison


@dataclass(frozen=True)
class Pairing:
    """All cases, by rising id.

    Args:
        missing: cases with a reference and no prediction.
        extra: cases with a prediction and no reference.
    """

    pairs: tuple[Pair, ...]
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()

    def among(self, case_ids: Collection[str]) -> Pairing:
        """What concerns these cases alone."""
        return Pairing(
            tuple(pair for pair in self.pairs if pair.case_id in case_ids),
            tuple(case_id for case_id in self.missing if case_id in case_ids),
            tuple(case_id for case_id in self.extra if case_id in case_ids),
        )


def pair_up(predictions: Path, references: Path) -> Pairing:
    """Pair the label maps of two folders by their names without ending; or two files, whatever their names.

    Raises:
        UserError: one of the two does not exist, they are the same, or no case has both.
    """
    if predictions.resolve() == references.resolve():
        raise UserError(f"{predictions}: predictions and references are the same. Give two folders, or two files.")
    if predictions.is_file() and references.is_file():
        return Pairing((Pair(case_name(references), predictions, references),))
    predicted, drawn = label_maps(predictions), label_maps(references)
    both = sorted(predicted.keys() & drawn.keys())
    if not both:
        raise UserError(
            f"{predictions} and {references}: no case has both a prediction ({_named(predicted)}) and a reference "
            f"({_named(drawn)}). The files of a case have one name in both folders; or give two files."
        )
    # A single file asks for its own case only.
    missing = () if predictions.is_file() else sorted(drawn.keys() - predicted.keys())
    extra = () if references.is_file() else sorted(predicted.keys() - drawn.keys())
    return Pairing(tuple(Pair(case, predicted[case], drawn[case]) for case in both), tuple(missing), tuple(extra))


def check_pairs(pairs: Sequence[Pair]) -> list[Geometry]:
    """The grid of each pair, from the headers, before anything takes time; warns of pairs that differ slightly.

    Raises:
        UserError: names every pair with a fault.
    """
    grids, faults, remarks = [], [], {}
    for pair in pairs:
        try:
            grid, remark = pair.check()
        except UserError as fault:
            faults.append(str(fault))
            continue
        grids.append(grid)
        if remark is not None:
            remarks[pair.prediction] = remark
    raise_together(faults, len(pairs))
    for path, remark in itertools.islice(remarks.items(), 1):
        more = f", and {counted(len(remarks) - 1, 'other prediction')} likewise" if len(remarks) > 1 else ""
        logger.warning("%s %s%s; measured voxel by voxel, as one grid.", path, remark, more)
    return grids


def raise_together(faults: Sequence[str], cases: int) -> None:
    """Raise a UserError that names all faults, if there are any."""
    if len(faults) == 1:
        raise UserError(faults[0])
    if faults:
        shown = listed([f"\n  {fault}" for fault in faults], most=MOST, separator="")
        raise UserError(f"{len(faults)} of {cases} cases cannot be evaluated:{shown}")


def label_maps(path: Path) -> dict[str, Path]:
    """The image files of a folder (or the one file) by case id.

    Raises:
        UserError: there is no such folder, two files stand for one case, or a name cannot be stored.
    """
    if path.is_file():
        return {case_name(path): path}
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder. Give the folder with the label maps, or one of them.")
    found: dict[str, Path] = {}
    for file in images_in(path):
        case = case_name(file)
        if case in found:
            raise UserError(f"{path}: {found[case].name} and {file.name} are one case. Take one of them away.")
        found[case] = file
    refuse_unusable(sorted(found), source=path)
    if not found and (dicom := dicom_hint(path)) is not None:
        raise UserError(f"{path}: no label map that swinssl reads. {dicom}")
    if not found:
        inner = next((name for name in ("labelsTr", "labelsTs", "gt_segmentations") if (path / name).is_dir()), None)
        hint = f"Did you mean {path / inner}?" if inner else f"Label maps end with one of {', '.join(known_endings())}."
        raise UserError(f"{path}: no label map here. {hint}")
    return found


def _labels(path: Path, volume: Volume) -> NDArray:
    """The label values, as integers.

    Raises:
        UserError: a value is fractional, negative, or not finite.
    """
    array = volume.array[0]
    try:
        whole = array if array.dtype.kind in "bui" else whole_labels(array)
    except ValueError as error:
        raise UserError(f"{path}: {error}. Export the label map without interpolation.") from None
    if whole.size and whole.min() < 0:
        raise UserError(f"{path}: value {whole.min():g}; labels are 0 and above. Export the label map anew.")
    return whole.astype(np.min_scalar_type(int(whole.max(initial=0))), copy=False) if whole is not array else whole


def _named(files: dict[str, Path]) -> str:
    return f"{len(files)}, such as {next(iter(files.values())).name}"
