"""The changes of a patch's intensities, each drawn beforehand and applied as often as wanted.

Recipe: nnU-Net v2's (`nnUNetTrainer.get_training_transforms`), whose constants are meant for images of unit standard
deviation. Ours lie in [0, 1]: noise is therefore scaled by each channel's standard deviation over the patch. The
others need no translation: contrast and gamma are told by the patch's own mean and range, and brightness scales the
distance from zero, which is the lowest intensity.

No change writes into the image that it is given. Images are (C, Z, Y, X) float32.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from swinssl.core.rng import KeyedRng

# Beyond four standard deviations a Gaussian has 6e-5 of its weight.
BLUR_REACH = 4


class IntensityChange(Protocol):
    """A change of intensities whose parameters are drawn."""

    def apply(self, image: Tensor) -> Tensor:
        """The changed image."""
        ...


@dataclass(frozen=True)
class Noise:
    """y = x + sigma * std(x) * n, with n standard normal for each voxel.

    Args:
        sigma: in standard deviations of the channel.
        rng: the noise field is drawn from `rng("noise")`.
    """

    sigma: float
    rng: KeyedRng

    def apply(self, image: Tensor) -> Tensor:
        _, deviation = mean_and_std(image)
        field = _normal(self.rng("noise"), image.shape).to(image.device)
        return field.mul_(self.sigma * deviation).add_(image)


@dataclass(frozen=True)
class Blur:
    """A Gaussian blur; border voxels go on beyond the border.

    Args:
        sigmas: per channel (z, y, x) in voxels, or None for a channel that stays.
    """

    sigmas: tuple[tuple[float, float, float] | None, ...]

    def apply(self, image: Tensor) -> Tensor:
        channels = [c if s is None else _blurred(c, s) for c, s in zip(image, self.sigmas, strict=True)]
        return torch.stack(channels)


@dataclass(frozen=True)
class Brightness:
    """y = factor * x, a factor a channel."""

    factors: tuple[float, ...]

    def apply(self, image: Tensor) -> Tensor:
        return image * _per_channel(self.factors, image)


@dataclass(frozen=True)
class Contrast:
    """y = mean + factor * (x - mean), within the range that x had; a factor a channel."""

    factors: tuple[float, ...]

    def apply(self, image: Tensor) -> Tensor:
        factor = _per_channel(self.factors, image)
        mean = image.mean((1, 2, 3), keepdim=True)
        low, high = image.amin((1, 2, 3), keepdim=True), image.amax((1, 2, 3), keepdim=True)
        out = (image * factor).add_(mean * (1 - factor))
        # An eighth of the time of clamp_ with tensors.
        return torch.minimum(torch.maximum(out, low, out=out), high, out=out)


@dataclass(frozen=True)
class LowResolution:
    """Sampled down to the nearest voxel and up again by trilinear interpolation.

    Args:
        zooms: per channel, coarse over fine edge, or None for a channel that stays.
        kept_axis: the axis that is not sampled down, where the patch is treated slice by slice.
    """

    zooms: tuple[float | None, ...]
    kept_axis: int | None = None

    def apply(self, image: Tensor) -> Tensor:
        return torch.stack([c if z is None else self._coarse(c, z) for c, z in zip(image, self.zooms, strict=True)])

    def _coarse(self, channel: Tensor, zoom: float) -> Tensor:
        fine = tuple(channel.shape)
        coarse = [n if axis == self.kept_axis else max(1, round(n * zoom)) for axis, n in enumerate(fine)]
        small = F.interpolate(channel[None, None], coarse, mode="nearest-exact")
        return F.interpolate(small, fine, mode="trilinear", align_corners=False)[0, 0]


@dataclass(frozen=True)
class Gamma:
    """y = ((x - min) / (max - min)) ** gamma, brought back to the mean and standard deviation of x.

    Args:
        gammas: per channel.
        inverted: do so to -x and turn the result round: the bright end is stretched instead of the dark one.
    """

    gammas: tuple[float, ...]
    inverted: bool

    def apply(self, image: Tensor) -> Tensor:
        low, high = image.amin((1, 2, 3), keepdim=True), image.amax((1, 2, 3), keepdim=True)
        breadth = (high - low).clamp_min(1e-7)
        unit = (high - image) / breadth if self.inverted else (image - low) / breadth
        # Scaling back to [min, max] is left out: the mean and deviation are set below anyway.
        for channel, gamma in zip(unit, self.gammas, strict=True):
            channel.pow_(gamma)
        mean, deviation = mean_and_std(image)
        powered_mean, powered_deviation = mean_and_std(unit)
        gain = deviation / powered_deviation.clamp_min(1e-7)
        if self.inverted:
            gain = -gain
        return unit.sub_(powered_mean).mul_(gain).add_(mean)


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers, each the quantile of 16 random bits: of 65536 values, at most 4.3 from zero.

    A quarter of the time of `standard_normal`, and the same numbers for the same draws on every machine.
    """
    size = math.prod(shape)
    bits = rng.bit_generator.random_raw(-(-size // 4)).view(np.uint16)[:size]
    return _quantiles().index_select(0, torch.from_numpy(bits.astype(np.int32))).view(shape)


@functools.cache
def _quantiles() -> Tensor:
    from scipy.special import ndtri

    return torch.from_numpy(ndtri((np.arange(1 << 16) + 0.5) / (1 << 16)).astype(np.float32))


def mean_and_std(image: Tensor) -> tuple[Tensor, Tensor]:
    """Per channel, each (C, 1, 1, 1); the population's standard deviation. Ten times faster than `torch.std_mean`."""
    mean = image.mean((1, 2, 3), keepdim=True)
    deviation = torch.linalg.vector_norm(image - mean, dim=(1, 2, 3), keepdim=True) / image[0].numel() ** 0.5
    return mean, deviation


def _per_channel(values: tuple[float, ...], image: Tensor) -> Tensor:
    return torch.tensor(values, dtype=image.dtype, device=image.device).view(-1, 1, 1, 1)


def _blurred(channel: Tensor, sigmas: tuple[float, float, float]) -> Tensor:
    """One channel, axis by axis, as sums of shifted views; with so small a kernel a CPU is faster so."""
    for axis, sigma in enumerate(sigmas):
        reach = max(1, round(BLUR_REACH * sigma))
        weights = torch.exp(-0.5 * (torch.arange(reach + 1) / sigma) ** 2)
        centre, *side = (weights / (2 * weights.sum() - weights[0])).tolist()
        n = channel.shape[axis]
        beyond = torch.arange(-reach, n + reach, device=channel.device).clamp(0, n - 1)
        padded = channel.index_select(axis, beyond)
        channel = padded.narrow(axis, reach, n) * centre
        for shift, weight in enumerate(side, start=1):
            channel.add_(padded.narrow(axis, reach - shift, n), alpha=weight)
            channel.add_(padded.narrow(axis, reach + shift, n), alpha=weight)
    return channel
