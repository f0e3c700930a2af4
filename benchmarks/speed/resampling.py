"""Resampling of images and label maps beside nnU-Net's: same numbers, less time.

    python benchmarks/speed/resampling.py --out resampling.json

In an environment with the peers of benchmarks/requirements.txt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import side_by_side as sbs
from inputs import Shape, blobs, ct, organs, shares, size
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
from numpy.typing import NDArray

from swinssl.core.geometry import Spacing
from swinssl.preprocessing.resample import resample_image, resample_label, resampled_shape, separate_z_axis

NNUNET = "nnU-Net"
# Of float32 in the range of the image.
IMAGE_TOLERANCE = 1e-5


def comparisons(quick: bool) -> Iterator[sbs.Comparison]:
    """Image, image with a separate axis, labels sparse and dense, labels with a separate axis."""
    shape: Shape = (40, 192, 192) if quick else (40, 384, 384)
    image = ct(shape)[None].astype(np.float32)
    even, thick = ((2.0, 0.8, 0.8), (1.5, 1.0, 1.0)), ((4.0, 0.8, 0.8), (3.3, 1.0, 1.0))
    yield _image("resample image", image, *even, goal=15)
    yield _image("resample image, separate z", image, *thick, goal=10)
    for name, labels in (("sparse", blobs(shape)), ("dense", organs(shape))):
        yield _labels(f"resample labels, {name}", labels, *even, goal=20)
        yield _labels(f"resample labels, {name}, separate z", labels, *thick, goal=10)


def _image(name: str, image: NDArray, old: Spacing, new: Spacing, *, goal: float) -> sbs.Comparison:
    shape = resampled_shape(image.shape[1:], old, new)
    apart = separate_z_axis(old, new)
    ours = partial(resample_image, image, shape, separate_z_axis=apart)
    theirs = _nnunet(image, shape, old, new, is_seg=False, order=3)

    def check() -> dict[str, Any]:
        ours(), theirs()
        apart = float(np.abs(ours() - theirs()).max() / np.ptp(image))
        assert apart <= IMAGE_TOLERANCE, f"largest difference {apart:.1e} of the range"
        return {"largest difference, of the image's range": f"{apart:.1e}"}

    return sbs.Comparison(
        name,
        f"{size(image.shape[1:])} -> {size(shape)}, order 3, float32",
        [sbs.Way(sbs.OURS, ours), sbs.Way(NNUNET, theirs)],
        check,
        [sbs.Goal(NNUNET, goal)],
    )


def _labels(name: str, labels: NDArray, old: Spacing, new: Spacing, *, goal: float) -> sbs.Comparison:
    shape = resampled_shape(labels.shape, old, new)
    ours = partial(resample_label, labels, shape, separate_z_axis=separate_z_axis(old, new))
    theirs = _nnunet(labels[None].astype(np.int16), shape, old, new, is_seg=True, order=1)

    def check() -> dict[str, Any]:
        differing = int((ours() != theirs()[0]).sum())
        assert differing == 0, f"{differing} voxels differ"
        return {"differing voxels": f"0 of {np.prod(shape):,}", "labels": shares(labels)}

    return sbs.Comparison(
        name,
        f"{size(labels.shape)} -> {size(shape)}, order 1",
        [sbs.Way(sbs.OURS, ours), sbs.Way(NNUNET, theirs)],
        check,
        [sbs.Goal(NNUNET, goal)],
    )


def _nnunet(
    array: NDArray, shape: Shape, old: Spacing, new: Spacing, *, is_seg: bool, order: int
) -> Callable[[], NDArray]:
    return partial(
        resample_data_or_seg_to_shape,
        array,
        shape,
        list(old),
        list(new),
        is_seg=is_seg,
        order=order,
        order_z=0,
        force_separate_z=None,
    )


if __name__ == "__main__":
    sbs.main(__doc__, comparisons)
