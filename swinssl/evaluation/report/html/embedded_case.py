"""A case small enough to lie inside a page: cropped, windowed, made coarser by whole factors, compressed, base64.

What is written into the page is made anew: voxels and their place. Nothing of the files' headers goes along.
"""

from __future__ import annotations

import base64
import gzip
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from swinssl.core.errors import UserError
from swinssl.core.geometry import Shape
from swinssl.evaluation.report.html.content import Case
from swinssl.evaluation.report.pictures.shown_case import box_around, canonical_map, image_on, window_of
from swinssl.imageio.image_fault import ImageFault
from swinssl.imageio.volume import Geometry
from swinssl.imageio.writer import write_volume
from swinssl.metrics.structures import Structure

# A voxel this many times as long shows no organ any more.
COARSEST = 8
LEVEL = 6


@dataclass(frozen=True)
class EmbeddedCase:
    """What the viewer shows of a case.

    Args:
        image, reference, predictions: .nii.gz files in base64, on one grid; the image in 256 greys.
        labels: what the values 1, 2, ... of the maps are called.
        focus: voxel (x, y, z) in the three planes where maps differ most from the reference.
        notes: what was done to it or could not be, in sentences.
    """

    image: str = ""
    reference: str = ""
    predictions: Mapping[str, str] = field(default_factory=dict)
    labels: Sequence[str] = ()
    focus: Sequence[int] = (0, 0, 0)
    notes: Sequence[str] = ()

    @property
    def size(self) -> int:
        """Bytes in the page."""
        return len(self.image) + len(self.reference) + sum(map(len, self.predictions.values()))


def embed_case(case: Case, models: Sequence[str], *, budget: int) -> EmbeddedCase:
    """Read a case and make it fit.

    Args:
        models: those of the report; which of them has no map here is said in a note.
        budget: bytes in the page. A case that cannot be made so small has no volumes and a note that says so.
    """
    try:
        maps, grid, notes = _maps(case, models)
    except UserError as error:
        return EmbeddedCase(notes=[f"Not shown: the reference of case {case.case} {_reason(error)}."])
    image, grey_notes = _grey_image(case, grid)
    notes += grey_notes
    present = sorted(int(value) for value in set().union(*(np.unique(array) for array in maps.values())) - {0})
    codes = {name: _coded(array, present) for name, array in maps.items()}
    either = np.logical_or.reduce([array > 0 for array in codes.values()])
    box = box_around(either, grid.spacing) if either.any() else (slice(None),) * 3
    cropped = {name: array[box] for name, array in codes.items()}
    image, grid = image[box], _cropped(grid, box)
    fitting = _fitted(image, cropped, grid, budget)
    if fitting is None:
        return EmbeddedCase(notes=[*notes, f"Not shown: it does not fit into {budget / 1e6:.1f} MB."])
    factors, coarse, encoded = fitting
    if max(factors) > 1:
        z, y, x = factors
        notes.append(f"Shown {z} x {y} x {x} (z, y, x) times coarser than it was measured, to keep this file small.")
    labels = [_name(value, case.structures) for value in present]
    predictions = {model: encoded[model] for model in maps if model != _REFERENCE}
    return EmbeddedCase(encoded[_IMAGE], encoded[_REFERENCE], predictions, labels, _focus(coarse), notes)


# Keys that no model can have.
_IMAGE, _REFERENCE = "\0image", "\0reference"


def _maps(case: Case, models: Sequence[str]) -> tuple[dict[str, NDArray], Geometry, list[str]]:
    """The reference and the predictions, canonical, and what is missing in words."""
    reference, grid = canonical_map(case.case, case.reference, case.reference)
    maps, notes = {_REFERENCE: reference}, []
    for model in models:
        path = case.predictions.get(model)
        if path is None or not path.is_file():
            notes.append(f"{model}: no prediction of this case.")
            continue
        try:
            maps[model], _ = canonical_map(case.case, path, case.reference)
        except UserError as error:
            notes.append(f"{model}: the prediction {_reason(error)}.")
    return maps, grid, notes


def _reason(error: UserError) -> str:
    """Without the path: a report is given to others."""
    if isinstance(error, ImageFault):
        return f"cannot be read ({error.found})"
    return "has values that are no labels, or lies on another grid than it should"


def _grey_image(case: Case, grid: Geometry) -> tuple[NDArray[np.uint8], list[str]]:
    try:
        image = image_on(grid, case.image).astype(np.float32)
    except UserError:
        note = "No image: its file cannot be read or lies on another grid than the reference."
        return np.zeros(grid.shape, np.uint8), [note]
    image = np.nan_to_num(image)
    low, high = window_of(image, ct=case.ct)
    scaled = (image - low) * (255 / max(high - low, 1e-6))
    return np.rint(scaled.clip(0, 255)).astype(np.uint8), []


def _coded(array: NDArray, present: Sequence[int]) -> NDArray[np.uint8]:
    """Values as 1, 2, ...; more than 255 share the last one, which no viewer could tell apart anyway."""
    codes = np.searchsorted(np.asarray(present), array) + 1
    return np.where(array == 0, 0, codes.clip(max=255)).astype(np.uint8)


def _name(value: int, structures: Sequence[Structure]) -> str:
    """Of the smallest structure with this value: a region's parts have names of their own."""
    holding = [structure for structure in structures if value in structure.values]
    return min(holding, key=lambda one: len(one.values)).name if holding else f"label {value}"


def _cropped(grid: Geometry, box: Sequence[slice]) -> Geometry:
    starts, stops = zip(*(part.indices(n)[:2] for part, n in zip(box, grid.shape, strict=True)), strict=True)
    affine = grid.affine.copy()
    affine[:3, 3] = (grid.affine @ np.array([*starts, 1.0]))[:3]
    z, y, x = (stop - start for start, stop in zip(starts, stops, strict=True))
    return Geometry((z, y, x), affine)


# --- making it fit


def _fitted(
    image: NDArray[np.uint8], maps: Mapping[str, NDArray[np.uint8]], grid: Geometry, budget: int
) -> tuple[Shape, dict[str, NDArray[np.uint8]], dict[str, str]] | None:
    """The finest factors (z, y, x) at which all fits, with the maps and the files; None if none does."""
    factors = [1, 1, 1]
    while True:
        z, y, x = factors
        coarse, own = {_IMAGE: _mean(image, (z, y, x))}, _coarser(grid, (z, y, x))
        coarse |= {name: _most_frequent(array, (z, y, x)) for name, array in maps.items()}
        encoded = {name: _file(array, own) for name, array in coarse.items()}
        size = sum(map(len, encoded.values()))
        if size <= budget:
            return (z, y, x), {name: coarse[name] for name in maps}, encoded
        # Bytes fall about as voxels do, so that steps which are surely too small are not tried.
        while size > budget:
            lengths = [mm * factor for mm, factor in zip(grid.spacing, factors, strict=True)]
            finest = lengths.index(min(lengths))
            size = int(size * factors[finest] / (factors[finest] + 1))
            factors[finest] += 1
        if max(factors) > COARSEST:
            return None


def _coarser(grid: Geometry, factors: Shape) -> Geometry:
    """The grid of blocks: a block's centre lies between its first and last voxel."""
    affine = grid.affine.copy()
    affine[:3, 3] = (grid.affine @ np.array([*((factor - 1) / 2 for factor in factors), 1.0]))[:3]
    affine[:3, :3] *= np.asarray(factors)
    z, y, x = (-(-n // factor) for n, factor in zip(grid.shape, factors, strict=True))
    return Geometry((z, y, x), affine)


def _blocks(array: NDArray, factors: Shape) -> NDArray:
    """(Z, Y, X, voxels of a block); the last blocks repeat the border."""
    padded = np.pad(array, [(0, -n % factor) for n, factor in zip(array.shape, factors, strict=True)], mode="edge")
    z, y, x = factors
    shape = [n // factor for n, factor in zip(padded.shape, factors, strict=True)]
    split = padded.reshape(shape[0], z, shape[1], y, shape[2], x)
    return split.transpose(0, 2, 4, 1, 3, 5).reshape(*shape, z * y * x)


def _mean(array: NDArray[np.uint8], factors: Shape) -> NDArray[np.uint8]:
    return array if max(factors) == 1 else np.rint(_blocks(array, factors).mean(axis=-1)).astype(np.uint8)


def _most_frequent(array: NDArray[np.uint8], factors: Shape) -> NDArray[np.uint8]:
    """The value that most voxels of a block have; of equals a structure rather than background: thin ones stay."""
    if max(factors) == 1:
        return array
    blocks = _blocks(array, factors)
    best, most = np.zeros(blocks.shape[:3], np.uint8), (blocks == 0).sum(axis=-1)
    for code in np.unique(array[array > 0]):
        count = (blocks == code).sum(axis=-1)
        wins = (count >= most) & (count > 0)
        best[wins], most[wins] = code, count[wins]
    return best


def _file(array: NDArray[np.uint8], grid: Geometry) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "volume.nii"
        write_volume(path, array, grid)
        return base64.b64encode(gzip.compress(path.read_bytes(), LEVEL, mtime=0)).decode("ascii")


def _focus(maps: Mapping[str, NDArray[np.uint8]]) -> list[int]:
    """In each direction the plane where predictions differ most from the reference; its largest where none does."""
    reference = maps[_REFERENCE]
    differing = np.sum([maps[name] != reference for name in maps], axis=0)
    if not differing.any():
        differing = reference > 0
    z, y, x = (int(differing.sum(axis=tuple({0, 1, 2} - {axis})).argmax()) for axis in range(3))
    return [x, y, z]
