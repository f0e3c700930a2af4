"""Overlapping windows blended to labels, beside nnU-Net and MONAI: the cost of all that is not the network.

    python benchmarks/speed/sliding_window.py --out sliding_window.json

In an environment with the peers of benchmarks/requirements.txt. The network is a 1 x 1 x 1 convolution, and the time
that it takes by itself is taken off.
"""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import made_plans
import numpy as np
import side_by_side as sbs
import torch
from inputs import Shape, ct
from monai.inferers import sliding_window_inference
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from numpy.typing import NDArray
from torch import Tensor, nn

from swinssl.inference.predictor import Predictor
from swinssl.inference.sliding_window import SlidingWindow, window_starts

NNUNET, MONAI = "nnU-Net", "MONAI"
CONFIGURATION = "3d_fullres"
CPU = torch.device("cpu")
PATCH: Shape = (96, 96, 96)
OVERLAP = 0.5
# Two logits that are equal but for rounding may win either way.
ROUNDING_SHARE = 1e-5
LOGIT_TOLERANCE = 1e-5


def comparisons(quick: bool) -> Iterator[sbs.Comparison]:
    """Few structures in a large volume, many in a smaller one; in a small one a window is most of our memory."""
    few, many = ((160, 160, 160), (144, 96, 96)) if quick else ((300, 300, 300), (240, 120, 120))
    yield _windows("sliding window, 15 classes", few, classes=15, memory=None if quick else 0.35)
    yield _windows("sliding window, 105 classes", many, classes=105, memory=None if quick else 0.5)


def nnunet_labels(classes: int) -> dict[str, dict[str, int]]:
    """The same, as it stands in a dataset.json of nnU-Net."""
    return {"labels": {"background": 0, **{f"structure {value}": value for value in range(1, classes)}}}


def ours(network: nn.Module, classes: int) -> Predictor:
    """Our windows and decisions, in float32; the spacing is of no account."""
    plans = made_plans.plans_of(made_plans.labels_of(classes - 1), spacing=(1.0, 1.0, 1.0))
    return Predictor(SlidingWindow([network], PATCH, CPU, overlap=OVERLAP), plans)


def nnunet_plans(spacing: tuple[float, float, float]) -> PlansManager:
    """What nnU-Net's inference reads of plans, with its planner's defaults."""
    order = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    configuration = {
        "architecture": {},
        "patch_size": list(PATCH),
        "spacing": list(spacing),
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": order,
    }
    axes = [0, 1, 2]
    return PlansManager(
        {
            "transpose_forward": axes,
            "transpose_backward": axes,
            "label_manager": "LabelManager",
            "configurations": {CONFIGURATION: configuration},
        }
    )


def nnunet(network: nn.Module, classes: int, plans: PlansManager) -> nnUNetPredictor:
    """nnU-Net's predictor on the CPU: Gaussian, without mirroring, its importance map computed before."""
    with contextlib.redirect_stdout(io.StringIO()):  # says that it keeps nothing on a GPU
        predictor = nnUNetPredictor(
            tile_step_size=1 - OVERLAP,
            use_mirroring=False,
            perform_everything_on_device=False,
            device=CPU,
            allow_tqdm=False,
        )
    configuration = plans.get_configuration(CONFIGURATION)
    predictor.manual_initialization(network, plans, configuration, None, nnunet_labels(classes), "", None)
    compute_gaussian(PATCH, sigma_scale=1 / 8, value_scaling_factor=10, device=CPU)
    return predictor


def pointwise(channels: int, classes: int) -> nn.Module:
    """A 1 x 1 x 1 convolution that has run once."""
    torch.manual_seed(0)
    network = nn.Conv3d(channels, classes, 1).eval()
    with torch.no_grad():
        network(torch.zeros(1, channels, *PATCH))
    return network


def network_alone(network: nn.Module, image: Tensor) -> sbs.Way:
    """The network over as many windows as all ways take."""
    sizes = zip(image.shape[1:], PATCH, strict=True)
    starts = itertools.product(*(window_starts(size, edge, OVERLAP) for size, edge in sizes))
    places = [tuple(slice(a, a + edge) for a, edge in zip(start, PATCH, strict=True)) for start in starts]

    def run() -> None:
        with torch.no_grad():
            for place in places:
                network(image[(slice(None), *place)][None])

    return sbs.Way("the network alone", run)


def _windows(name: str, shape: Shape, *, classes: int, memory: float | None) -> sbs.Comparison:
    image = ct(shape).astype(np.float32)
    image = ((image - image.mean()) / image.std())[None]
    tensor = torch.from_numpy(image)
    network = pointwise(1, classes)
    predictor = ours(network, classes)
    run = partial(predictor.segment_on_grid, image)
    nnunets = partial(_nnunet, tensor, nnunet(network, classes, nnunet_plans((1.0, 1.0, 1.0))))
    monais = partial(_monai, tensor, network)

    def check() -> dict[str, Any]:
        own, tiled = run(), monais()
        share = float((own != tiled).mean())
        assert share <= ROUNDING_SHARE, f"{share:.1e} of the labels differ from MONAI's"
        apart = blending_apart()
        assert apart <= LOGIT_TOLERANCE, f"blended logits differ by {apart:.1e} of their range"
        return {
            "labels that differ from MONAI's": f"{share:.1e} ({int((own != tiled).sum())} of {own.size:,})",
            "from nnU-Net's, which adds up in float16": f"{float((own != nnunets()).mean()):.1e}",
            "blended logits of a network that depends on the place, largest difference from MONAI's": f"{apart:.1e}",
        }

    return sbs.Comparison(
        name,
        f"{' x '.join(map(str, shape))}, patch {' x '.join(map(str, PATCH))}, {predictor.window_count(shape)} windows",
        [sbs.Way(sbs.OURS, run), sbs.Way(NNUNET, nnunets), sbs.Way(MONAI, monais)],
        check,
        [sbs.Goal(NNUNET, 2.5, memory), sbs.Goal(MONAI, 1)],
        network_alone(network, tensor),
    )


def _nnunet(image: Tensor, predictor: nnUNetPredictor) -> NDArray:
    logits = predictor.predict_sliding_window_return_logits(image)
    return predictor.label_manager.convert_logits_to_segmentation(logits).numpy()


def _monai(image: Tensor, network: nn.Module) -> NDArray:
    with torch.no_grad():
        logits = sliding_window_inference(image[None], PATCH, 1, network, OVERLAP, mode="gaussian")
    return logits[0].argmax(0).numpy()


def blending_apart() -> float:
    """The largest difference of our logits from MONAI's where what a window says depends on where it lies.

    On a volume over which both lay the same windows, and with our weights for MONAI, whose smallest weight is 1e-3 of
    the largest.
    """
    shape = tuple(edge + edge // 2 for edge in PATCH)
    image = np.random.default_rng(0).standard_normal((1, *shape), np.float32)
    network = nn.Sequential(pointwise(1, 4), _Ramp()).eval()
    distances = [(torch.arange(edge, dtype=torch.float64) - (edge - 1) / 2) / (edge / 8) for edge in PATCH]
    z, y, x = (torch.exp(-0.5 * distance**2) for distance in distances)
    weights = (z[:, None, None] * y[:, None] * x).float()
    with torch.no_grad():
        theirs = sliding_window_inference(
            torch.from_numpy(image)[None], PATCH, 1, network, OVERLAP, mode="gaussian", roi_weight_map=weights
        )[0]
    apart = (ours(network, 4).windows.logits(image) - theirs).abs().max() / (theirs.max() - theirs.min())
    return float(apart)


class _Ramp(nn.Module):
    """Multiplies by another number at every voxel of the window."""

    def forward(self, logits: Tensor) -> Tensor:
        z, y, x = (torch.linspace(0, 1, edge) for edge in PATCH)
        return logits * (z[:, None, None] + 2 * y[:, None] + 3 * x)


if __name__ == "__main__":
    sbs.main(__doc__, comparisons)
