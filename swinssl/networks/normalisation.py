"""The normalisation layers of the decoder: batch norm that agrees over ranks on any backend, and instance norm."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from swinssl.core.devices import several_ranks, sum_over_ranks


class BatchNorm(nn.BatchNorm3d):
    """Batch norm whose statistics are those of the whole batch, over all ranks.

    torch's SyncBatchNorm refuses CPU tensors; here the sums are all-reduced, which every backend can.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not several_ranks():
            # One value a channel has no variance: normalising it would erase it (and torch refuses).
            if self.training and x.numel() == x.shape[1]:
                return _affine(x, self.weight, self.bias)
            return super().forward(x)
        axes = (0, 2, 3, 4)
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        count = torch.tensor([values.numel() / values.shape[1]], device=x.device)
        sums = sum_over_ranks(torch.cat([values.sum(axes), count]))
        number, shape = sums[-1], (1, -1, 1, 1, 1)
        mean = sums[:-1] / number
        # Squares of what is left of the mean: the mean of squares less the square of the mean loses most digits where
        # values differ little.
        centred = values - mean.view(shape)
        variance = sum_over_ranks((centred * centred).sum(axes)) / number
        with torch.no_grad():
            share = 0.1 if self.momentum is None else self.momentum
            unbiased = variance * number / (number - 1).clamp_min(1.0)
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)  # type: ignore[union-attr]
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)  # type: ignore[union-attr]
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        normalised = centred * torch.rsqrt(variance.view(shape) + self.eps)
        return _affine(normalised, self.weight, self.bias).to(x.dtype)


class InstanceNorm(nn.InstanceNorm3d):
    """Instance norm with scale and offset that leaves a map of one voxel as it is (a 32^3 patch has one at 1/32)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        if x[0, 0].numel() == 1:
            return _affine(x, self.weight, self.bias)
        return super().forward(x)


def make_norm(kind: str, channels: int) -> nn.Module:
    """The layer of `NetworkPlan.norm` for maps of `channels` channels."""
    return BatchNorm(channels) if kind == "batch" else InstanceNorm(channels)


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    if weight is None or bias is None:
        return x
    return x * weight.view(1, -1, 1, 1, 1) + bias.view(1, -1, 1, 1, 1)
