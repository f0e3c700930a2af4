"""From an image on the plan's grid to a label map on the file's: windows and export together, beside nnU-Net.

    python benchmarks/speed/end_to_end.py --out end_to_end.json

In an environment with the peers of benchmarks/requirements.txt. The network is a 1 x 1 x 1 convolution, and the time
that it takes by itself is taken off. What our way costs by itself is measured on a volume whose logits nnU-Net would
need 40 GB for.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import side_by_side as sbs
import torch
import torch.nn.functional as F
from export import mixed_cells, nnunets_export, nnunets_properties, source_grid
from inputs import Shape, organs
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from numpy.typing import NDArray
from scipy import ndimage
from sliding_window import NNUNET, ROUNDING_SHARE, network_alone, nnunet, nnunet_plans, ours, pointwise
from torch import Tensor, nn

from swinssl.inference.predictor import Predictor
from swinssl.inference.source_grid import SourceGrid

SPACING = (1.5, 1.5, 1.5)
# Channels of the image: enough that between two structures there is seldom a third.
CHANNELS = 8
NOISE = 0.05


def comparisons(quick: bool) -> Iterator[sbs.Comparison]:
    """All structures of a whole-body model in a small volume, and by ourselves in a large one."""
    if quick:
        yield _both("end to end, 30 classes", (96, 128, 128), (120, 170, 170), classes=30, memory=None)
        return
    yield _both("end to end, 105 classes", (160, 160, 160), (200, 213, 213), classes=105)
    yield _both("end to end, 105 classes in a large volume", (300, 300, 300), (375, 400, 400), classes=105, alone=True)


def _both(
    name: str, shape: Shape, source: Shape, *, classes: int, alone: bool = False, memory: float | None = 0.5
) -> sbs.Comparison:
    codes = np.random.default_rng(0).standard_normal((classes, CHANNELS), np.float32)
    image, network = _image(shape, codes), _nearest(codes)
    tensor, back, predictor = torch.from_numpy(image), source_grid(shape, source, SPACING), ours(network, classes)
    run = partial(_ours, predictor, image, back)
    plans = nnunet_plans(SPACING)
    theirs = partial(_nnunet, tensor, nnunet(network, classes, plans), plans, nnunets_properties(back), classes)

    def check() -> dict[str, Any]:
        own, wanted = run(), _expected(tensor, network, source)
        share = float((own != wanted).mean())
        assert share <= ROUNDING_SHARE, f"{share:.1e} of the voxels differ from trilinear interpolation of all logits"
        found = {
            "cells with different structures": f"{mixed_cells(own):.1%} of the label map's",
            "voxels that differ from trilinear interpolation of all logits": f"{share:.1e}",
        }
        return found if alone else {**found, "from nnU-Net": f"{float((own != theirs()).mean()):.1e}"}

    ways = [sbs.Way(sbs.OURS, run), sbs.Way(NNUNET, theirs)]
    return sbs.Comparison(
        name,
        f"{' x '.join(map(str, shape))} -> {' x '.join(map(str, source))}, {predictor.window_count(shape)} windows",
        ways[:1] if alone else ways,
        check,
        [] if alone else [sbs.Goal(NNUNET, 2.5, memory)],
        network_alone(network, tensor),
    )


def _image(shape: Shape, codes: NDArray[np.float32]) -> NDArray[np.float32]:
    """(C, *shape): each structure's code where it lies, smooth across borders, with a little noise."""
    labels, draws = organs(shape, classes=min(60, len(codes) - 1)), np.random.default_rng(1)
    out = np.empty((CHANNELS, *shape), np.float32)
    for own, code in zip(out, codes.T, strict=True):
        ndimage.gaussian_filter(code[labels], 1, output=own)
        own += NOISE * draws.standard_normal(shape, np.float32)
    return out


def _nearest(codes: NDArray[np.float32]) -> nn.Module:
    """A 1 x 1 x 1 convolution whose largest logit is that of the nearest code."""
    network = pointwise(CHANNELS, len(codes))
    own = torch.from_numpy(codes)
    network.load_state_dict({"weight": 2 * own[:, :, None, None, None], "bias": -own.square().sum(1)})
    return network


def _expected(image: Tensor, network: nn.Module, source: Shape) -> NDArray:
    """The class whose logit is the largest when all are interpolated.

    The network is linear in every voxel and so is interpolation: the image can be interpolated in their place.
    """
    finer = F.interpolate(image[None], source, mode="trilinear")
    with torch.no_grad():
        return np.stack([network(finer[:, :, z : z + 1])[0, :, 0].argmax(0).byte().numpy() for z in range(source[0])])


def _ours(predictor: Predictor, image: NDArray, back: SourceGrid) -> NDArray:
    return predictor.segment(image, back).label_map


def _nnunet(
    image: Tensor, predictor: nnUNetPredictor, plans: PlansManager, properties: dict[str, Any], classes: int
) -> NDArray:
    return nnunets_export(predictor.predict_sliding_window_return_logits(image), plans, properties, classes)


if __name__ == "__main__":
    sbs.main(__doc__, comparisons)
