"""An encoder's tensors for other input channels or another window than they were trained for."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from swinssl.networks.checkpoints.encoder_file import FIRST_KERNEL

BIAS_TABLE = "attn.relative_position_bias_table"


def adapt(tensors: dict[str, Tensor], *, in_channels: int, window: int) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """An encoder's tensors for so many image channels and such a window, and the names of those that are not as before.

    Args:
        tensors: by our names; what is no first kernel (C, in, 2, 2, 2) or table of (2w - 1)**3 rows stays as it is.
    """
    changed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name == FIRST_KERNEL and tensor.ndim == 5 and tensor.shape[1] not in (0, in_channels):
            changed[name] = with_channels(tensor, in_channels)
        elif name.endswith(BIAS_TABLE) and window_of(tensor) not in (0, window):
            changed[name] = with_window(tensor, window)
    return tensors | changed, tuple(changed)


def with_channels(kernel: Tensor, channels: int) -> Tensor:
    """The first kernel for another number of input channels; the answer to equal channels stays the same.

    Args:
        kernel: (C, in, 2, 2, 2).

    Returns:
        (C, channels, 2, 2, 2): the sum over the inputs, divided among the channels.

    Source: spec networks_and_methods 3.2.
    """
    return kernel.sum(1, keepdim=True).repeat(1, channels, 1, 1, 1) / channels


def with_window(table: Tensor, window: int) -> Tensor:
    """A table of relative position biases for another window edge, by trilinear interpolation over the offsets.

    The bias at offset zero and those at the extreme offsets keep their values.

    Args:
        table: ((2w - 1)**3, heads), rows in the order of the offsets (z, y, x).
        window: the new w.

    Returns:
        ((2 * window - 1)**3, heads).

    Source: spec networks_and_methods 3.2.
    """
    there, here = 2 * window_of(table) - 1, 2 * window - 1
    if there == here:
        return table
    volume = table.T.reshape(1, -1, there, there, there)
    resized = F.interpolate(volume, size=(here,) * 3, mode="trilinear", align_corners=True)
    return resized.reshape(table.shape[1], -1).T.contiguous()


def window_of(table: Tensor) -> int:
    """The window edge w that a table of (2w - 1)**3 rows was made for; 0 where there is none."""
    rows = table.shape[0] if table.ndim == 2 else 0
    edge = round(rows ** (1 / 3))
    return (edge + 1) // 2 if edge**3 == rows and edge % 2 == 1 else 0
