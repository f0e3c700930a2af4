"""Augmentation of patches beside nnU-Net's: the recipe as a whole, then each change by itself.

    python benchmarks/speed/augmentation.py --out augmentation.json

In an environment with the peers of benchmarks/requirements.txt. Both sides do the same to the same patches: what
`--augmentation default` draws, with nnU-Net's probabilities, is imposed on the transforms of nnU-Net's own trainer.
Arrays lie in memory; the recipe includes cutting out what is needed, on nnU-Net's side its larger initial patch.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import side_by_side as sbs
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from batchgeneratorsv2.transforms.spatial import spatial as theirs_of_space
from inputs import Shape, blobs, ct, organs, size
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from numpy.typing import NDArray
from torch import Tensor

from swinssl.core.rng import KeyedRng
from swinssl.training.augmentation.intensity import (
    Blur,
    Brightness,
    Contrast,
    Gamma,
    IntensityChange,
    LowResolution,
    Noise,
)
from swinssl.training.augmentation.pipeline import AUGMENTATIONS as RECIPE
from swinssl.training.augmentation.pipeline import Augmentation, apply, draw_augmentation
from swinssl.training.augmentation.spatial import SpatialChange

NNUNET = "nnU-Net"
PATCH: Shape = (96, 96, 96)
AXES = (0, 1, 2)
VOLUME: Shape = (300, 300, 300)
# nnUNetTrainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size.
ROTATION = (-math.radians(30), math.radians(30))
INITIAL: Shape = tuple(get_patch_size(PATCH, ROTATION, ROTATION, ROTATION, (0.85, 1.25)).tolist())
# No rotated and zoomed patch reaches beyond this: what is compared lies on both sides in the image.
ROOMY: Shape = (234, 234, 234)
WINDOW_HU = (-1000, 1000)
SEEDS = 200
# How often each change would be made.
EXPECTED = {
    "spatial": 1 - (1 - RECIPE["rotation"].probability) * (1 - RECIPE["zoom"].probability),
    "noise": RECIPE["noise"].probability,
    "blur": RECIPE["blur"].probability * RECIPE["blur"].parameters["per_channel"],
    "brightness": RECIPE["brightness"].probability,
    "contrast": RECIPE["contrast"].probability,
    "low resolution": RECIPE["low resolution"].probability * RECIPE["low resolution"].parameters["per_channel"],
    "gamma, inverted": RECIPE["inverted gamma"].probability,
    "gamma": RECIPE["gamma"].probability,
}
RECIPE_GOAL, CHANGE_GOAL = 4.0, 0.95
DIFFERING_LABELS = 1e-5
# Of intensities in [0, 1].
IMAGE_TOLERANCE, ONE_CHANGE_TOLERANCE = 1e-3, 1e-4
# Their kernel ends at three standard deviations, ours at four.
BLUR_TOLERANCE, BLUR_BORDER = 1e-2, 8


@dataclass(frozen=True, eq=False)
class Source:
    """What patches are cut from: (1, Z, Y, X) intensities in [0, 1] and (Z, Y, X) labels."""

    image: NDArray[np.float32]
    label: NDArray[np.uint8]


@dataclass(frozen=True)
class Sample:
    """A patch: where it starts in the source, and what is done to it."""

    start: Shape
    drawn: Augmentation


class NnUNet:
    """nnU-Net's training transforms, made to do what was drawn for ours."""

    def __init__(self) -> None:
        self.pipeline = nnUNetTrainer.get_training_transforms(PATCH, ROTATION, None, AXES, False)
        self.spatial, *others, self.mirror, _ = self.pipeline.transforms
        self.others = dict(zip((name for name in EXPECTED if name != "spatial"), others, strict=True))
        patch = torch.rand(1, *PATCH)
        for sigma in np.linspace(
            *RECIPE["blur"].parameters["sigmas"], 11
        ):  # it times two ways for each kernel, once in a training
            self.change(patch, Blur(((sigma,) * 3,)))
        self.turn(SpatialChange(tuple(map(tuple, np.eye(3))), PATCH), patch, patch.short())  # makes its grid, once

    def __call__(self, source: Source, sample: Sample, size: Shape) -> tuple[Tensor, Tensor]:
        """A sample, as nnU-Net's data loader makes it from a box of `size`."""
        box = [[where.start, where.stop] for where in _box(sample, size)]
        image = torch.from_numpy(crop_and_pad_nd(source.image, box, 0)).float()
        label = crop_and_pad_nd(source.label[None], box, -1, cast_cropped_to=np.int16)
        self._impose_place(sample.drawn.spatial, sample.drawn.mirrored)
        for other in self.others.values():
            other.apply_probability = 0.0
        for change in sample.drawn.intensity:
            self.others[_name(change)].apply_probability = 1.0
            self._impose(change)
        out = self.pipeline(image=image, segmentation=torch.from_numpy(label).to(torch.int16))
        return out["image"], out["segmentation"]

    def change(self, image: Tensor, change: IntensityChange) -> Tensor:
        """The image, changed in its place."""
        self._impose(change)
        return self.others[_name(change)].transform(image=image)["image"]

    def turn(self, change: SpatialChange, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """A patch out of image and label."""
        self._impose_place(change)
        out = self.spatial(image=image, segmentation=label)
        return out["image"], out["segmentation"]

    def _impose_place(self, change: SpatialChange | None, mirrored: Sequence[int] = ()) -> None:
        self.spatial.p_rotation = self.spatial.p_scaling = 0.0 if change is None else 1.0
        if change is not None:
            theirs_of_space.create_affine_matrix_3d = lambda angles, scales: np.array(change.matrix)
        self.mirror.get_parameters = lambda **_: {"axes": list(mirrored)}

    def _impose(self, change: IntensityChange) -> None:
        transform = self.others[_name(change)].transform
        transform.p_per_channel = 1.0
        match change:
            case Noise(sigma=sigma):
                transform.noise_variance = sigma
            case Blur(sigmas=(None,)) | LowResolution(zooms=(None,)):
                transform.p_per_channel = 0.0
            case Blur(sigmas=(sigmas,)):
                transform.blur_sigma = lambda shape, dim: sigmas[dim - 1]
            case Brightness(factors=(factor,)):
                transform.multiplier_range = factor
            case Contrast(factors=(factor,)):
                transform.contrast_range = factor
            case LowResolution(zooms=(zoom,)):
                transform.scale = zoom
            case Gamma(gammas=(gamma,)):
                transform.gamma = gamma


def comparisons(quick: bool) -> Iterator[sbs.Comparison]:
    """The recipe with many labels and with few, then each change."""
    torch.set_grad_enabled(False)
    nnunet = NnUNet()
    image = ((np.clip(ct(VOLUME), *WINDOW_HU) - WINDOW_HU[0]) / np.ptp(WINDOW_HU)).astype(np.float32)[None]
    many, few = Source(image, organs(VOLUME)), Source(image, blobs(VOLUME, classes=2, share=0.1))
    samples = _samples(8 if quick else 24)
    yield _recipe("recipe, 15 labels", nnunet, many, samples, goals=[sbs.Goal(NNUNET, RECIPE_GOAL)])
    yield _recipe("recipe, 2 labels", nnunet, few, samples, goals=[])
    turned = [one for one in _samples(30, nearest=False) if one.drawn.spatial][: 3 if quick else 10]
    yield _spatial("spatial, 15 labels", nnunet, many, turned)
    yield _spatial("spatial, 2 labels", nnunet, few, turned)
    patch = torch.from_numpy(_cut(many.image, _box(turned[0], PATCH)))
    for name, changes in _changes(40 if quick else 120).items():
        yield _intensity(name, nnunet, patch, changes)
    label = torch.from_numpy(_cut(many.label, _box(turned[0], PATCH)))
    yield _mirror(nnunet, patch, label, 200 if quick else 600)


def _samples(count: int, *, nearest: bool = True) -> list[Sample]:
    """Samples with the seed that makes each change nearly as often as is expected of so many."""

    def drawn(seed: int) -> list[Augmentation]:
        return [
            draw_augmentation(
                KeyedRng(seed, 0, index), patch_size=PATCH, channels=1, mirror_axes=AXES, spacing=(1.0, 1.0, 1.0)
            )
            for index in range(count)
        ]

    def surprise(seed: int) -> float:
        counts = _counts(drawn(seed))
        return sum((counts[name] - count * p) ** 2 / (count * p) for name, p in EXPECTED.items())

    place = np.random.default_rng(0)
    reach = [(whole - box) // 2 for whole, box in zip(VOLUME, ROOMY, strict=True)]
    middle = [(whole - patch) // 2 for whole, patch in zip(VOLUME, PATCH, strict=True)]
    chosen = min(range(SEEDS), key=surprise) if nearest else 0
    starts = [[m + int(place.integers(-r, r + 1)) for m, r in zip(middle, reach, strict=True)] for _ in range(count)]
    return [Sample((z, y, x), one) for (z, y, x), one in zip(starts, drawn(chosen), strict=True)]


def _counts(drawn: Sequence[Augmentation]) -> Counter[str]:
    """How often each change is really made."""
    made = [_name(change) for one in drawn for change in one.intensity if _is_made(change)]
    return Counter([*made, *("spatial" for one in drawn if one.spatial)])


def _is_made(change: IntensityChange) -> bool:
    return not (isinstance(change, Blur | LowResolution) and None in (*vars(change).values(),)[0])


def _name(change: IntensityChange) -> str:
    if isinstance(change, Gamma):
        return "gamma, inverted" if change.inverted else "gamma"
    return "low resolution" if isinstance(change, LowResolution) else type(change).__name__.lower()


def _recipe(
    name: str, nnunet: NnUNet, source: Source, samples: Sequence[Sample], *, goals: Sequence[sbs.Goal]
) -> sbs.Comparison:
    theirs = partial(nnunet, source, size=INITIAL)

    def check() -> dict[str, Any]:
        differing, apart = 0, []
        for sample in samples:
            (image, label), (their_image, their_label) = _ours(source, sample), nnunet(source, sample, ROOMY)
            differing += int((label != their_label[0]).sum())
            if not any(isinstance(change, Noise | Blur) for change in sample.drawn.intensity):
                apart.append(float((image - their_image).abs().max()))
        share = differing / (len(samples) * math.prod(PATCH))
        assert share <= DIFFERING_LABELS, f"{share:.1e} of the labels differ"
        assert max(apart) <= IMAGE_TOLERANCE, f"images are {max(apart):.1e} apart"
        counts = _counts([sample.drawn for sample in samples])
        labels = [len(np.unique(_cut(source.label, _box(sample, INITIAL)))) for sample in samples]
        return {
            "changes, the same on both sides (expected)": ", ".join(
                f"{kind} {counts[kind]} ({len(samples) * p:.1f})" for kind, p in EXPECTED.items()
            ),
            "labels in a patch, background included": f"{np.mean(labels):.1f} on average",
            "differing labels": f"{share:.1e} of the voxels",
            "largest difference of intensities in [0, 1]": f"{max(apart):.1e}, in {len(apart)} without noise or blur",
        }

    return sbs.Comparison(
        name,
        f"{len(samples)} patches of {size(PATCH)}, cut from memory; nnU-Net's from {size(INITIAL)}",
        [
            sbs.Way(sbs.OURS, partial(_each, partial(_ours, source), samples)),
            sbs.Way(NNUNET, partial(_each, theirs, samples)),
        ],
        check,
        goals,
    )


def _ours(source: Source, sample: Sample) -> tuple[Tensor, Tensor]:
    box = _box(sample, sample.drawn.read_size)
    return apply(sample.drawn, torch.from_numpy(_cut(source.image, box)), torch.from_numpy(_cut(source.label, box)))


def _spatial(name: str, nnunet: NnUNet, source: Source, samples: Sequence[Sample]) -> sbs.Comparison:
    def cut(sample: Sample, size: Shape) -> tuple[SpatialChange, Tensor, Tensor]:
        assert sample.drawn.spatial is not None
        box = _box(sample, size)
        image, label = torch.from_numpy(_cut(source.image, box)), torch.from_numpy(_cut(source.label, box))
        return sample.drawn.spatial, image, label

    ours = [cut(sample, sample.drawn.read_size) for sample in samples]
    theirs = [(change, image, label[None].short()) for change, image, label in (cut(one, INITIAL) for one in samples)]

    def check() -> dict[str, Any]:
        differing, apart = 0, 0.0
        for change, image, label in ours:
            (turned, turned_label), out = change.warp(image, label), nnunet.turn(change, image, label[None].short())
            differing += int((turned_label != out[1][0]).sum())
            apart = max(apart, float((turned - out[0]).abs().max()))
        share = differing / (len(samples) * math.prod(PATCH))
        assert share <= DIFFERING_LABELS, f"{share:.1e} of the labels differ"
        assert apart <= IMAGE_TOLERANCE, f"images are {apart:.1e} apart"
        return {
            "differing labels on one grid": f"{share:.1e} of the voxels",
            "largest difference of intensities in [0, 1]": f"{apart:.1e}",
            "labels in a patch, background included": f"{np.mean([len(label.unique()) for *_, label in theirs]):.1f}",
        }

    return sbs.Comparison(
        name,
        f"{len(samples)} patches of {size(PATCH)}; nnU-Net's from {size(INITIAL)}",
        [
            sbs.Way(sbs.OURS, partial(_each, lambda one: one[0].warp(*one[1:]), ours)),
            sbs.Way(NNUNET, partial(_each, lambda one: nnunet.turn(*one), theirs)),
        ],
        check,
        [sbs.Goal(NNUNET, CHANGE_GOAL)],
    )


def _changes(count: int) -> dict[str, list[IntensityChange]]:
    """So many of each, from all over the range that it is drawn from."""

    def along(bounds: tuple[float, float]) -> list[float]:
        return np.linspace(*bounds, count).tolist()

    return {
        "noise": [
            Noise(sigma, KeyedRng(0, 0, index))
            for index, sigma in enumerate(along(RECIPE["noise"].parameters["sigmas"]))
        ],
        "blur": [Blur(((sigma,) * 3,)) for sigma in along(RECIPE["blur"].parameters["sigmas"])],
        "brightness": [Brightness((factor,)) for factor in along(RECIPE["brightness"].parameters["factors"])],
        "contrast": [Contrast((factor,)) for factor in along(RECIPE["contrast"].parameters["factors"])],
        "low resolution": [LowResolution((zoom,)) for zoom in along(RECIPE["low resolution"].parameters["zooms"])],
        "gamma": [Gamma((gamma,), inverted=False) for gamma in along(RECIPE["gamma"].parameters["gammas"])],
        "gamma, inverted": [Gamma((gamma,), inverted=True) for gamma in along(RECIPE["gamma"].parameters["gammas"])],
    }


def _intensity(name: str, nnunet: NnUNet, patch: Tensor, changes: Sequence[IntensityChange]) -> sbs.Comparison:
    """Theirs changes a patch in its place, ours makes another: the copy that theirs needs counts for neither."""

    def check() -> dict[str, Any]:
        pairs = [(change.apply(patch.clone()), nnunet.change(patch.clone(), change)) for change in changes]
        if name == "noise":
            ours, theirs = ((pairs[-1][side] - patch).std().item() for side in (0, 1))
            ours /= patch.std().item()
            return {"deviation of the strongest noise": f"{ours:.4f} of the patch's, theirs {theirs:.4f}"}
        border = BLUR_BORDER if name == "blur" else 0
        inside = (slice(None), *(slice(border, n - border) for n in PATCH))
        apart = max(float((ours - theirs)[inside].abs().max()) for ours, theirs in pairs)
        limit = BLUR_TOLERANCE if name == "blur" else ONE_CHANGE_TOLERANCE
        assert apart <= limit, f"images are {apart:.1e} apart"
        where = f", {border} voxels from the border" if border else ""
        return {"largest difference of intensities in [0, 1]": f"{apart:.1e}{where}"}

    return sbs.Comparison(
        name,
        f"{len(changes)} patches of {size(PATCH)}",
        [
            sbs.Way(sbs.OURS, partial(_each, lambda change: change.apply(patch.clone()), changes)),
            sbs.Way(NNUNET, partial(_each, lambda change: nnunet.change(patch.clone(), change), changes)),
        ],
        check,
        [sbs.Goal(NNUNET, CHANGE_GOAL)],
        sbs.Way("copy", partial(_each, lambda _: patch.clone(), changes)),
    )


def _mirror(nnunet: NnUNet, patch: Tensor, label: Tensor, count: int) -> sbs.Comparison:
    drawn, their_label = Augmentation(PATCH, mirrored=AXES), label[None].short()

    def theirs() -> tuple[Tensor, Tensor]:
        out = nnunet.mirror.apply({"image": patch, "segmentation": their_label}, axes=list(AXES))
        return out["image"], out["segmentation"]

    def check() -> dict[str, Any]:
        (image, codes), (their_image, their_codes) = apply(drawn, patch, label), theirs()
        assert torch.equal(image, their_image) and torch.equal(codes, their_codes[0].to(torch.uint8)), "outputs differ"
        return {"identical": True}

    return sbs.Comparison(
        "mirror",
        f"{count} patches of {size(PATCH)}, all three axes, image and label",
        [
            sbs.Way(sbs.OURS, partial(_each, lambda _: apply(drawn, patch, label), range(count))),
            sbs.Way(NNUNET, partial(_each, lambda _: theirs(), range(count))),
        ],
        check,
        [sbs.Goal(NNUNET, CHANGE_GOAL)],
    )


def _each(do: Callable[[Any], Any], items: Sequence[Any]) -> None:
    for item in items:
        do(item)


def _box(sample: Sample, size: Shape) -> tuple[slice, ...]:
    """The box of `size` with the patch's centre."""
    first = [s - (n - p) // 2 for s, n, p in zip(sample.start, size, PATCH, strict=True)]
    return tuple(slice(f, f + n) for f, n in zip(first, size, strict=True))


def _cut(array: NDArray, box: tuple[slice, ...]) -> NDArray:
    return array[..., *box].copy()


if __name__ == "__main__":
    sbs.main(__doc__, comparisons)
