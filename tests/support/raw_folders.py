"""Small raw data sets, sound as made; tests spoil them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from swinssl.imageio.volume import Geometry
from swinssl.imageio.writer import write_volume

SHAPE = (6, 12, 10)
GRID = Geometry.from_parts(SHAPE, spacing=(3.0, 1.0, 1.0), origin=(5, -7, 9))
LABELS = {"background": 0, "liver": 1, "tumour": 2}


def ct(seed: int = 0) -> NDArray[np.int16]:
    """Air round a noisy body, in HU."""
    image = np.full(SHAPE, -1000, np.int16)
    image[1:5, 2:10, 2:8] = np.random.default_rng(seed).normal(50, 30, (4, 8, 6)).astype(np.int16)
    image[2, 4, 4] = 900
    return image


def liver_and_tumour(seed: int = 0) -> NDArray[np.uint8]:
    """Both structures, a little elsewhere for each seed."""
    label = np.zeros(SHAPE, np.uint8)
    label[1:5, 3:9, 3:7] = 1
    label[2:4, 4:7, 3:6] = 2
    label[4, 9, 1 + seed % 8] = 1
    return label


def make_raw(
    folder: Path,
    *,
    cases: int = 3,
    channels: int = 1,
    labelled: bool = True,
    ending: str = ".nii.gz",
    numbered: bool = True,
    **description: object,
) -> Path:
    """nnU-Net v2's layout with `cases` CT cases; keys in `description` stand above the usual ones, None removes one."""
    for i in range(cases):
        for channel in range(channels):
            number = f"_{channel:04d}" if numbered else ""
            write_volume(folder / "imagesTr" / f"case_{i}{number}{ending}", ct(10 * i + channel), GRID)
        if labelled:
            write_volume(folder / "labelsTr" / f"case_{i}{ending}", liver_and_tumour(i), GRID)
    describe(folder, cases=cases, channels=channels, labelled=labelled, ending=ending, **description)
    return folder


def describe(
    folder: Path, *, cases: int = 3, channels: int = 1, labelled: bool = True, ending: str = ".nii.gz", **keys: object
) -> None:
    """Write dataset.json."""
    usual = {
        "channel_names": {str(i): "CT" for i in range(channels)},
        "labels": LABELS if labelled else {"background": 0},
        "numTraining": cases,
        "file_ending": ending,
    }
    content = {key: value for key, value in {**usual, **keys}.items() if value is not None}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(content))
