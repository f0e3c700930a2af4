"""The picture of what an encoder learns: the image, what was painted, which tokens are alike, main components."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swinssl.core.pictures import new_figure, save_figure
from swinssl.core.rng import KeyedRng

if TYPE_CHECKING:
    from swinssl.ssl.pretext_task import PretextTask

SAMPLES = 3
# A step that no run reaches, so that the picture's crops are its own, and always the same ones.
PICTURE_STEP = 2**40


def draw_picture(task: PretextTask, path: Path, *, seed: int, title: str) -> None:
    """Write `path` (PNG): a row for each of three crops, the middle axial slice of each.

    Columns: the image as the network sees it, what it painted where the method paints, cosine similarity of the tokens
    at 1/8 with the middle one, and their first three principal components as red, green and blue.
    """
    rows = [_row(task, KeyedRng(seed, PICTURE_STEP, sample)) for sample in range(SAMPLES)]
    columns = list(rows[0])
    figure = new_figure(2.4 * len(columns), 2.5 * len(rows) + 0.4)
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    for i, row in enumerate(rows):
        for j, name in enumerate(columns):
            _show(axes[i][j], row[name], signed=name.startswith("similarity"))
            if i == 0:
                axes[i][j].set_title(name, fontsize=9)
    figure.suptitle(title, fontsize=10)
    save_figure(figure, path, dots_per_inch=100)


@torch.no_grad()
def _row(task: PretextTask, rng: KeyedRng) -> Mapping[str, NDArray]:
    device = next(task.network.parameters()).device
    prepared = task.load(rng)
    batch = task.views([prepared], [rng], device)
    whole = type(batch)(batch.tensors, batch.samples, None)
    was_training = task.network.training
    task.network.eval()
    try:
        reconstructed = task.method.reconstructed(task.network, whole)
        stage3 = whole.encode_unmasked(task.best_network).stage3[0].float().cpu().numpy()
    finally:
        task.network.train(was_training)
    slices = {"image": _middle(whole.rows("images"))}
    slices |= {name: _middle(volume) for name, volume in reconstructed.items()}
    return {**slices, "similarity with the middle": _similarity(stage3), "components": _components(stage3)}


def _middle(volumes: Tensor) -> NDArray:
    """The middle axial slice of the first volume's first channel."""
    return volumes[0, 0, volumes.shape[2] // 2].float().cpu().numpy()


def _similarity(stage3: NDArray) -> NDArray:
    """(Y, X) cosine similarity of the tokens of the middle slice with the middle token, their mean taken off."""
    centred = stage3 - stage3.mean(axis=(1, 2, 3), keepdims=True)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=0, keepdims=True), 1e-9)
    z, y, x = (n // 2 for n in unit.shape[1:])
    return np.einsum("cyx,c->yx", unit[:, z], unit[:, z, y, x])


def _components(stage3: NDArray) -> NDArray:
    """(Y, X, 3) first three principal components of all tokens, at the middle slice, each scaled to [0, 1]."""
    rows = stage3.reshape(len(stage3), -1).T
    rows = rows - rows.mean(axis=0)
    _, _, directions = np.linalg.svd(rows, full_matrices=False)
    # A component's sign means nothing: its largest weight is made positive, so that pictures of a run can be compared.
    largest = directions[np.arange(3), np.abs(directions[:3]).argmax(axis=1)]
    scores = rows @ (directions[:3] * np.sign(largest)[:, None]).T
    low, high = np.percentile(scores, [2, 98], axis=0)
    scaled = np.clip((scores - low) / np.maximum(high - low, 1e-9), 0, 1).reshape(*stage3.shape[1:], 3)
    return scaled[stage3.shape[1] // 2]


def _show(axes: Any, image: NDArray, *, signed: bool) -> None:
    limits = {"vmin": -1, "vmax": 1, "cmap": "coolwarm"} if signed else {"vmin": 0, "vmax": 1, "cmap": "gray"}
    # Stored rows run to anterior and columns to the patient's right; shown from the feet, anterior up.
    axes.imshow(image[::-1, ::-1], interpolation="nearest", **limits)
    axes.set_axis_off()
