"""Results made by hand, and label maps written to folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from swinssl.evaluation.results import CaseResult, Evaluation
from swinssl.imageio.volume import Geometry
from swinssl.imageio.writer import write_volume
from swinssl.metrics.case_metrics import StructureMetrics, SurfaceScores
from swinssl.metrics.lesions import LesionCounts
from swinssl.metrics.overlap import Overlap
from swinssl.metrics.structures import Structure

ORGAN = Structure("organ", (1,), "1")
TUMOUR = Structure("tumour", (2,), "2", lesions=True)
SHAPE, SPACING = (8, 12, 14), (3.0, 1.5, 1.0)
GRID = Geometry.from_parts(SHAPE, spacing=SPACING, origin=(-5.0, 20.0, 7.0))


def metrics(tp, fp=0, fn=0, *, hd95=1.0, lesions=None):
    """Of a structure; distances where both maps have it."""
    surface = SurfaceScores(hd95, hd95 / 4, (0.5,)) if tp + fn and tp + fp else None
    return StructureMetrics(Overlap(tp, fp, fn, 1000 - tp - fp - fn), 0.01, surface, lesions and LesionCounts(*lesions))


def evaluation(*cases, structures=(ORGAN,), tolerances=(2.0,), **rest):
    """Cases a, b, c ... from dicts of metrics by structure."""
    results = tuple(
        CaseResult(case_id, Path(f"predicted/{case_id}.nii.gz"), Path(f"drawn/{case_id}.nii.gz"), found)
        for case_id, found in zip("abcdefghijklmnopqrstuvwxyz", cases, strict=False)
    )
    return Evaluation(tuple(structures), tuple(tolerances), results, **rest)


def organ_map(shift=0, tumour=True):
    """A block of organ, and a tumour in it."""
    label = np.zeros(SHAPE, np.uint8)
    label[2:6, 3:9, 3 + shift : 9 + shift] = 1
    if tumour:
        label[3:5, 5:7, 5 + shift : 8 + shift] = 2
    return label


def write_maps(folder, maps, *, ending=".nii.gz", geometry=GRID):
    """Write label maps by case id."""
    for case_id, array in maps.items():
        write_volume(folder / f"{case_id}{ending}", array, geometry)
    return folder


def write_description(folder, **changes):
    """Write a dataset.json for `organ_map`."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "organ": 1, "tumour": 2}, **changes}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder / "dataset.json"
