"""Small cases, and reports of them."""

from __future__ import annotations

import numpy as np

from swinssl.evaluation.report.html.content import Case, HtmlReport, Section, Table
from swinssl.imageio.volume import Geometry
from swinssl.imageio.writer import write_volume
from swinssl.metrics.structures import Structure

SHAPE = (20, 36, 40)
GRID = Geometry.from_parts(SHAPE, spacing=(3.0, 1.5, 1.5), origin=(-10.0, 20.0, 30.0))
ORGAN, TUMOUR = Structure("organ", (4,), "4"), Structure("tumour", (7,), "7")


def labels(shift=0):
    """A block of organ (4) with a tumour (7) in it."""
    array = np.zeros(SHAPE, np.uint8)
    array[6:14, 10:26, 10 + shift : 26 + shift] = 4
    array[8:11, 14:20, 14 + shift : 20 + shift] = 7
    return array


def image(seed=0):
    """Noise in HU, brighter where the organ is."""
    noise = np.random.default_rng(seed).normal(0, 40, SHAPE)
    return (noise + 100 * (labels() > 0)).astype(np.int16)


def made_case(folder, name="a", *, shifts=None, scores=None, task="task", **rest):
    """A case on disk: a prediction by model, moved by so many voxels."""
    shifts = {"shifted": 3, "exact": 0} if shifts is None else shifts
    write_volume(folder / f"{name}_image.nii.gz", image(), GRID)
    write_volume(folder / f"{name}_reference.nii.gz", labels(), GRID)
    for number, shift in enumerate(shifts.values()):
        write_volume(folder / f"{name}_{number}.nii.gz", labels(shift), GRID)
    predictions = {model: folder / f"{name}_{number}.nii.gz" for number, model in enumerate(shifts)}
    if scores is None:
        scores = {model: {"organ": 1 - 0.1 * shift, "tumour": 1 - 0.2 * shift} for model, shift in shifts.items()}
    paths = folder / f"{name}_image.nii.gz", folder / f"{name}_reference.nii.gz"
    return Case(task, name, *paths, predictions, scores, **{"structures": (ORGAN, TUMOUR), "ct": True, **rest})


TABLE = Table(
    "Dice",
    ["method", "Dice", "minutes"],
    [["b", 0.9, 9], ["a", None, 10], ["c", 0.35, 100], ["d", 1e-5, 8]],
    best={"Dice": "highest", "minutes": "lowest"},
)


def report_of(*cases, title="Report", tables=(TABLE,), figures=(), **rest):
    """With one section."""
    return HtmlReport(title, "subtitle", [Section("Section", ["words"], tables, figures, cases)], **rest)
