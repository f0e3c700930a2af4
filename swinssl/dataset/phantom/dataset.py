"""Abdominal CTs made by code, for the demo and for tests: no patient, no download, the same on every run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage

from swinssl.core import files
from swinssl.core.geometry import Shape, Spacing
from swinssl.core.rng import generator
from swinssl.core.terminal import track
from swinssl.dataset.phantom.anatomy import LABELS, Abdomen
from swinssl.dataset.phantom.space import BentSpace, smooth_field
from swinssl.imageio.volume import AxisMap, Geometry, Volume

# Of so many cases in a row the last has no tumour.
TUMOUR_FREE_EVERY = 5
# Field of view in mm along (z, y, x).
FIELD_LOW, FIELD_HIGH = (175.0, 235.0, 305.0), (215.0, 265.0, 340.0)
LEAST_HU = -1024
# Storage orders that scanners and converters leave behind: the axis codes of the NIfTI file, and how they come about.
ORIENTATIONS = {
    "RAS": AxisMap((0, 1, 2), (False, False, False)),
    "LPS": AxisMap((0, 1, 2), (False, True, True)),
    "LAS": AxisMap((0, 1, 2), (False, False, True)),
    "RPI": AxisMap((0, 1, 2), (True, True, False)),
    "PIR": AxisMap((2, 0, 1), (False, True, True)),
}
MOST_TILT_DEGREES = 4.0


def phantom_case(seed: int, index: int) -> tuple[Volume, Volume]:
    """One patient's abdomen and its label map; a pure function of its arguments.

    Size, fat, organs, contrast phase, spacing, field of view, storage order and noise differ from case to case, and
    an elastic deformation bends everything. Labels: `phantom_anatomy.LABELS`. The patient's left kidney lies at
    negative world x. Every fifth case has no tumour.

    Args:
        index: number of the case.

    Returns:
        Image (1, Z, Y, X) int16 in HU and label (1, Z, Y, X) uint8 on one grid; about 55 x 100 x 125 voxels of
        4 x 2.5 x 2.5 mm, stored in one of several orders.
    """
    draws = generator(seed, "phantom grid", sample=index)
    spacing, shape = _grid(draws)
    anatomy_draws = generator(seed, "phantom anatomy", sample=index)
    space = BentSpace(shape, spacing, bend=anatomy_draws.uniform(3, 6), draws=anatomy_draws)
    # Slices are thicker than pixels, and so are their blurred edges.
    edge = 0.4 * spacing[0] + 0.6 * spacing[2]
    abdomen = Abdomen(space, edge=edge, phase=draws.uniform(1, 2), draws=anatomy_draws)
    painted = abdomen.paint(tumour=index % TUMOUR_FREE_EVERY != TUMOUR_FREE_EVERY - 1)
    hu = _scanned(painted.hu, spacing, generator(seed, "phantom noise", sample=index))
    upright = Geometry.from_parts(
        shape,
        spacing=spacing,
        origin=_origin(shape, spacing, draws),
        direction=_tilt(draws) if draws.random() < 1 / 3 else None,
    )
    axes = ORIENTATIONS[str(draws.choice(list(ORIENTATIONS)))]
    geometry = upright.mapped(axes)
    image, label = (np.ascontiguousarray(axes.apply(array))[None] for array in (hu, painted.label))
    return Volume(image, geometry), Volume(label, geometry)


def write_phantom_dataset(
    folder: Path, *, cases: int, test_cases: int, seed: int, shuffle_labels: bool = False
) -> None:
    """Write a raw data set in nnU-Net v2's layout: imagesTr, labelsTr, imagesTs, labelsTs and dataset.json.

    dataset.json comes last: a folder that has one is whole.

    Args:
        folder: made if it is missing; files of the same names are replaced.
        cases: for training; the test cases are numbered on from them.
        shuffle_labels: exchange the structures of each training case at random, so that nothing can be learnt.
    """
    from swinssl.imageio.writer import write_volume

    folder = Path(folder)
    for index in track(range(cases + test_cases), "making phantoms"):
        part, name = ("Tr" if index < cases else "Ts"), f"phantom_{index:03d}"
        image, label = phantom_case(seed, index)
        if shuffle_labels and part == "Tr":
            label = _shuffled(label, generator(seed, "phantom shuffled labels", sample=index))
        write_volume(folder / f"images{part}" / f"{name}_0000.nii.gz", image.array[0], image.geometry)
        write_volume(folder / f"labels{part}" / f"{name}.nii.gz", label.array[0], label.geometry)
    description = {
        "name": "Phantom abdomen",
        "description": f"Abdominal CTs made by code (seed {seed}), no patients",
        "licence": "Apache-2.0",
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, **LABELS},
        "numTraining": cases,
        "file_ending": ".nii.gz",
    }
    files.write_json(folder / "dataset.json", description)


def _shuffled(label: Volume, draws: np.random.Generator) -> Volume:
    """The label map with its structures' values exchanged."""
    values = np.array([0, *draws.permutation([*LABELS.values()])], np.uint8)
    return Volume(values[label.array], label.geometry)


def _grid(draws: np.random.Generator) -> tuple[Spacing, Shape]:
    """Spacing in mm and shape for a field of view that holds the trunk."""
    in_plane, slices = draws.uniform(2.3, 2.9), draws.choice([3.0, 3.5, 4.0, 5.0])
    field = draws.uniform(FIELD_LOW, FIELD_HIGH)
    spacing = (float(slices), float(round(in_plane, 3)), float(round(in_plane, 3)))
    z, y, x = (round(mm / step) for mm, step in zip(field, spacing, strict=True))
    return spacing, (z, y, x)


def _scanned(hu: np.ndarray, spacing: Spacing, draws: np.random.Generator) -> np.ndarray:
    """What a scanner makes of the HU: noise with a grain, stronger deep inside, and shading by hardened rays."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in hu.shape[1:]), indexing="ij", sparse=True)
    depth = np.exp(-3 * (np.square(y) + np.square(x)))
    inside = np.clip((hu + 1000) / 900, 0, 1)
    grain = ndimage.gaussian_filter(draws.standard_normal(hu.shape, dtype=np.float32), (0, 0.6, 0.6))
    noise = draws.uniform(7, 14) * grain / grain.std() * (0.5 + depth)
    shading = 5 * smooth_field(hu.shape, modes=3, draws=draws) - draws.uniform(4, 14) * depth
    return np.clip(np.rint(hu + noise * (0.5 + 0.5 * inside) + shading * inside), LEAST_HU, 3071).astype(np.int16)


def _origin(shape: Shape, spacing: Spacing, draws: np.random.Generator) -> Spacing:
    """World place of the first voxel: the trunk's middle near x = y = 0, z counted from the top of the table."""
    middle = (draws.uniform(-900, -200), draws.uniform(-25, 25), draws.uniform(-12, 12))
    z, y, x = (m - (n - 1) / 2 * step for m, n, step in zip(middle, shape, spacing, strict=True))
    return float(z), float(y), float(x)


def _tilt(draws: np.random.Generator) -> np.ndarray:
    """(3, 3) a small rotation: the patient lay askew."""
    turns = np.eye(3)
    for axis, degrees in enumerate(draws.uniform(-MOST_TILT_DEGREES, MOST_TILT_DEGREES, 3)):
        angle = np.deg2rad(degrees)
        turn = np.eye(3)
        i, j = [k for k in range(3) if k != axis]
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        turns = turns @ turn
    return turns
