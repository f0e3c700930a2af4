"""Resampling of images and label maps to another grid over the same extent, with nnU-Net's rules and numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from swinssl.core.geometry import Shape, Spacing
from swinssl.preprocessing.axis_operator import apply_along, apply_to_planes, nearest_places
from swinssl.preprocessing.label_vote import vote

# Spacings that differ by more than this factor make the coarse axis a stack of slices rather than a third dimension.
ANISOTROPY = 3.0
# Slices resampled in plane at once: bounds the memory between the two in-plane products.
SLICES_AT_ONCE = 16


def resampled_shape(shape: Shape, spacing: Spacing, new_spacing: Spacing) -> Shape:
    """Voxels of the same extent at another spacing (mm): rounded, at least one."""
    z, y, x = (max(1, round(old / new * n)) for n, old, new in zip(shape, spacing, new_spacing, strict=True))
    return z, y, x


def separate_z_axis(spacing: Spacing, new_spacing: Spacing, *, force: bool | None = None) -> int | None:
    """The axis that is resampled separately from the other two, or None.

    If the current spacings, or otherwise the new ones, differ by more than a factor of 3, it is their coarsest axis; if
    two or three axes are equally coarse, there is none.

    Args:
        spacing: mm (z, y, x) of the current grid.
        new_spacing: mm of the new grid.
        force: True takes the coarsest axis of the current spacing whatever the factor; False never separates.

    Source: nnU-Net v2, determine_do_sep_z_and_axis.
    """
    if force is False:
        return None
    if force or max(spacing) / min(spacing) > ANISOTROPY:
        anisotropic = spacing
    elif max(new_spacing) / min(new_spacing) > ANISOTROPY:
        anisotropic = new_spacing
    else:
        return None
    coarsest = [axis for axis, value in enumerate(anisotropic) if value == max(anisotropic)]
    return coarsest[0] if len(coarsest) == 1 else None


class Channel(Protocol):
    """(Z, Y, X) float32, read a few planes of the first axis at a time: an array, or computed on the fly."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, places: slice | NDArray[np.int64], /) -> NDArray[np.float32]: ...


def resample_image(
    channels: Sequence[Channel] | NDArray[np.float32],
    new_shape: Shape,
    *,
    order: int = 3,
    separate_z_axis: int | None = None,
    order_z: int = 0,
) -> NDArray[np.float32]:
    """Resample an image with splines, each channel separately.

    The result stays within the range of its channel or, with a separate axis, of its slice. With `order_z` above 0,
    interpolation along that axis comes after clipping; with 0 the order does not matter.

    Args:
        channels: finite, all of the same shape; as an array (C, Z, Y, X).
        new_shape: (z, y, x) voxels.
        order: of the spline, 0, 1 or 3.
        separate_z_axis: array axis (0 z, 1 y, 2 x) that is resampled separately with `order_z`.

    Returns:
        (C, *new_shape) float32, equal to skimage's `resize(mode="edge", anti_aliasing=False)` to float32 rounding.
    """
    _check_orders(order, order_z, allowed=(0, 1, 3))
    out = np.empty((len(channels), *new_shape), np.float32)
    for channel, result in zip(channels, out, strict=True):
        if separate_z_axis is None:
            _resample_channel(channel, order, out=result)
        elif separate_z_axis == 0:
            _resample_stack(channel, order, order_z, out=result)
        else:
            moved = np.moveaxis(channel[:], separate_z_axis, 0)
            stack = np.empty((new_shape[separate_z_axis], *_without(new_shape, separate_z_axis)), np.float32)
            _resample_stack(moved, order, order_z, out=stack)
            result[...] = np.moveaxis(stack, 0, separate_z_axis)
    return out


def resample_label(
    codes: NDArray, new_shape: Shape, *, order: int = 1, separate_z_axis: int | None = None, order_z: int = 0
) -> NDArray:
    """Resample a label map: the nearest label (order 0), or the label with the largest linear weight (order 1).

    Args:
        codes: (Z, Y, X) unsigned integers.
        new_shape, separate_z_axis: as for `resample_image`.

    Returns:
        `new_shape`, of the type of `codes`.
    """
    _check_orders(order, order_z, allowed=(0, 1))
    if codes.shape == tuple(new_shape):
        return codes
    if separate_z_axis is None:
        return _resample_codes(codes, new_shape, order)
    axis = separate_z_axis
    # Slices are independent in plane, so they may be selected along the axis first if that leaves fewer of them.
    if order_z == 0 and new_shape[axis] < codes.shape[axis]:
        codes = np.take(codes, nearest_places(codes.shape[axis], new_shape[axis]), axis=axis)
    in_plane = _resample_codes(codes, _with(new_shape, axis, codes.shape[axis]), order)
    return _resample_codes(in_plane, new_shape, order_z)


def _resample_channel(channel: Channel, order: int, *, out: NDArray[np.float32]) -> None:
    """Resample to the shape of `out`, clipped to the range of the channel."""
    low, high = np.inf, -np.inf

    def in_plane() -> Iterator[NDArray[np.float32]]:
        nonlocal low, high
        for start in range(0, channel.shape[0], SLICES_AT_ONCE):
            part = channel[start : start + SLICES_AT_ONCE]
            low, high = min(low, float(part.min())), max(high, float(part.max()))
            for axis in _in_plane_axes(part.shape, out.shape[1:]):
                part = apply_along(part, axis, out.shape[axis], order=order)
            yield part

    apply_to_planes(in_plane(), channel.shape[0], order=order, out=out)
    if order > 1 and channel.shape != out.shape:
        np.clip(out, low, high, out=out)


def _resample_stack(stack: Channel, order: int, order_z: int, *, out: NDArray[np.float32]) -> None:
    """Resample each slice (the first axis) in plane, then along the first axis, to the shape of `out`."""
    slices = stack.shape[0]
    chosen = nearest_places(slices, len(out)) if order_z == 0 and len(out) < slices else np.arange(slices)

    def in_plane() -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(chosen), SLICES_AT_ONCE):
            part = stack[chosen[start : start + SLICES_AT_ONCE]]
            resampled = _resample_planes(part, out.shape[1:], order)
            if order > 1 and resampled is not part:
                low, high = part.min(axis=(1, 2), keepdims=True), part.max(axis=(1, 2), keepdims=True)
                np.clip(resampled, low, high, out=resampled)
            yield resampled

    apply_to_planes(in_plane(), len(chosen), order=order_z, out=out)


def _resample_planes(part: NDArray[np.float32], plane: tuple[int, ...], order: int) -> NDArray[np.float32]:
    """The last two axes of a few slices resampled, without clipping; the array itself if nothing changes."""
    for axis in _in_plane_axes(part.shape, plane):
        part = apply_along(part, axis, plane[axis - 1], order=order)
    return part


def _in_plane_axes(shape: tuple[int, ...], plane: tuple[int, ...]) -> list[int]:
    """The axis that shrinks more goes first, so that the second product is the smaller."""
    return sorted((1, 2), key=lambda axis: plane[axis - 1] / shape[axis])


def _resample_codes(codes: NDArray, new_shape: Shape, order: int) -> NDArray:
    if codes.shape == tuple(new_shape):
        return codes
    if order == 1:
        return vote(codes, new_shape)
    for axis, (n, m) in enumerate(zip(codes.shape, new_shape, strict=True)):
        if n != m:
            codes = np.take(codes, nearest_places(n, m), axis=axis)
    return codes


def _without(shape: Shape, axis: int) -> tuple[int, ...]:
    return tuple(n for i, n in enumerate(shape) if i != axis)


def _with(shape: Shape, axis: int, size: int) -> Shape:
    z, y, x = (size if i == axis else n for i, n in enumerate(shape))
    return z, y, x


def _check_orders(*orders: int, allowed: tuple[int, ...]) -> None:
    for order in orders:
        if order not in allowed:
            raise ValueError(f"spline order {order}; expected one of {allowed}")
