"""Images as a program holds them: read, written, and whatever else `TrainedModel.predict` takes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from swinssl.core.errors import UserError
from swinssl.core.geometry import Spacing
from swinssl.core.text import dimensions
from swinssl.imageio.in_memory import as_itk, as_nibabel, is_image, volume_of_array, volume_of_image
from swinssl.imageio.reader import header_contradictions, read_channels, read_geometry
from swinssl.imageio.volume import Geometry, Volume
from swinssl.imageio.writer import write_volume

PathLike: TypeAlias = str | os.PathLike[str]


class NibabelImage(Protocol):
    """An image of nibabel, such as `nibabel.load` gives."""

    @property
    def dataobj(self) -> Any: ...
    @property
    def affine(self) -> Any: ...


class SimpleITKImage(Protocol):
    """An image of SimpleITK, such as `SimpleITK.ReadImage` gives."""

    def GetDirection(self) -> Any: ...
    def GetSpacing(self) -> Any: ...


@dataclass(frozen=True, eq=False)
class OnGrid:
    """What lies on the grid of an image.

    Attributes:
        geometry: shape, affine, and of a NIfTI file the fields that place it.
    """

    geometry: Geometry

    @property
    def spacing(self) -> Spacing:
        """Distance of neighbouring voxels along (z, y, x) in mm."""
        return self.geometry.spacing

    @property
    def affine(self) -> NDArray[np.float64]:
        """(4, 4): maps the index (z, y, x, 1) of a voxel to its place (z, y, x, 1) in mm.

        World z grows to superior, y to anterior, x to the patient's right: NIfTI's axes in reversed order.
        """
        return self.geometry.affine.copy()


@dataclass(frozen=True, eq=False)
class Image(OnGrid):
    """An image or a label map on its grid.

    Attributes:
        array: (Z, Y, X), or (C, Z, Y, X) with C channels, in the storage order of its file.
        geometry: as of `OnGrid`.
        warnings: what is odd about the place that its header says.

    >>> import numpy, swinssl
    >>> image = swinssl.Image.from_array(numpy.zeros((4, 8, 8)), spacing=(2.5, 1, 1))
    >>> image.spacing
    (2.5, 1.0, 1.0)
    """

    array: NDArray[Any]
    warnings: tuple[str, ...] = ()

    @classmethod
    def from_array(
        cls, array: ArrayLike, *, spacing: Sequence[float] | None = None, affine: ArrayLike | None = None
    ) -> Image:
        """The image of an array (Z, Y, X) or (C, Z, Y, X).

        Args:
            spacing: (z, y, x) in mm. Alone, it means axes that point to superior, anterior and right.
            affine: (4, 4), as of `Image.affine`.

        Raises:
            UserError: neither is given, or they do not fit.
        """
        volume, warnings = volume_of_array(array, spacing=spacing, affine=affine, name="the array")
        return cls(volume.geometry, _spatial(volume.array, channels=np.ndim(array) == 4), warnings)

    @classmethod
    def from_image(cls, image: NibabelImage | SimpleITKImage) -> Image:
        """The image of one of nibabel or SimpleITK."""
        volume, warnings = volume_of_image(image, name=f"the {type(image).__name__}")
        return cls(volume.geometry, volume.array[0], warnings)

    def to_nibabel(self) -> Any:
        """A `nibabel.Nifti1Image` (X, Y, Z) of the array (Z, Y, X)."""
        return as_nibabel(_one_channel(self.array, "to_nibabel"), self.geometry)

    def to_simpleitk(self) -> Any:
        """A `SimpleITK.Image` of the array (Z, Y, X)."""
        return as_itk(_one_channel(self.array, "to_simpleitk"), self.geometry)


ImageLike: TypeAlias = PathLike | ArrayLike | Image | NibabelImage | SimpleITKImage


def read_image(path: PathLike | Sequence[PathLike]) -> Image:
    """Read an image or a label map: NIfTI, NRRD or MetaImage, to the last byte and with its checksum verified.

    Args:
        path: a file; or the files of one image, one per channel. Further channels are brought into the storage order
            of the first one.

    Returns:
        The image with the array (Z, Y, X) of a file, or (C, Z, Y, X) of a list of files. Its type is that of the file;
        scaled integers become float32, or float64 where they have more than 16 bits. NaN stays NaN.

    Raises:
        UserError: a file is missing, damaged, not 3D, or of another grid than the first one.
    """
    several = not isinstance(path, str | os.PathLike)
    paths = [Path(one) for one in path] if several else [Path(path)]  # type: ignore[union-attr, arg-type]
    if not paths:
        raise UserError("read_image: an empty list. Give at least one file.")
    volume = read_channels(paths)
    warnings = tuple(header_contradictions(paths).values())
    return Image(volume.geometry, _spatial(volume.array, channels=several), warnings)


def write_image(
    path: PathLike,
    array: ArrayLike,
    *,
    like: ImageLike | OnGrid | None = None,
    spacing: Sequence[float] | None = None,
    affine: ArrayLike | None = None,
    overwrite: bool = False,
) -> Path:
    """Write an image or a label map (Z, Y, X) as NIfTI, NRRD or MetaImage; the file appears whole or not at all.

    Args:
        path: of the file; its ending says the format.
        array: booleans become uint8, 64-bit integers the smallest type that holds them, float16 float32.
        like: what has the grid of the array: an `Image`, a `Prediction`, a path, or an image of nibabel or SimpleITK.
            A NIfTI file on the grid of another has the same fields in its header.
        spacing, affine: the grid, where there is no `like`; as of `Image.from_array`.
        overwrite: replace a file that exists.

    Returns:
        The path.

    Raises:
        UserError: the array does not fit the grid, no grid is given, the ending is unknown, or the file exists.
    """
    path = Path(path)
    if like is None:
        image = Image.from_array(array, spacing=spacing, affine=affine)
        voxels, geometry = image.array, image.geometry
    elif spacing is not None or affine is not None:
        raise UserError(f"{path}: like already says where the voxels lie. Leave out spacing and affine.")
    else:
        geometry = _grid_of(like)
        # The array's own place does not matter; its voxels are checked as those of any other.
        voxels = volume_of_array(array, spacing=None, affine=np.eye(4), name="the array")[0].array
        voxels = _spatial(voxels, channels=np.ndim(array) == 4)
    voxels = _one_channel(voxels, "write_image")
    if voxels.shape != geometry.shape:
        shape, grid = dimensions(voxels.shape), dimensions(geometry.shape)
        raise UserError(f"{path}: the array has {shape} voxels (z, y, x); the grid has {grid}. Give the grid's image.")
    if path.exists() and not overwrite:
        raise UserError(f"{path}: exists. Choose another name, or pass overwrite=True to replace it.")
    write_volume(path, voxels, geometry)
    return path


def input_volume(
    image: ImageLike | Sequence[ImageLike], *, spacing: Sequence[float] | None, affine: ArrayLike | None
) -> tuple[Volume, tuple[str, ...], str]:
    """The volume of whatever `predict` takes but paths, what is odd about its place, and its name in messages.

    Raises:
        UserError: the input cannot be used, or has a place of its own and is given another.
    """
    placed = isinstance(image, Image | Volume) or is_image(image)
    if isinstance(image, list | tuple) and image and all(map(is_image, image)):
        placed = True
    if placed and (spacing is not None or affine is not None):
        raise UserError(
            f"{type(image).__name__}: the image says where its voxels lie. Leave out spacing and affine, or pass its "
            "array."
        )
    if isinstance(image, Image):
        channels = image.array if image.array.ndim == 4 else image.array[None]
        return Volume(channels, image.geometry), image.warnings, "the image"
    if isinstance(image, Volume):
        return image, (), "the image"
    if is_image(image):
        return *volume_of_image(image, name=f"the {type(image).__name__}"), f"the {type(image).__name__}"
    if placed:
        return *_stacked(image), "the images"  # type: ignore[arg-type]
    array: Any = image
    return *volume_of_array(array, spacing=spacing, affine=affine, name="the array"), "the array"


def _stacked(images: Sequence[Any]) -> tuple[Volume, tuple[str, ...]]:
    """Images in memory, one per channel, on the grid and in the storage order of the first one."""
    from swinssl.imageio.same_grid import on_grid_of

    names = [f"{type(image).__name__} {number}" for number, image in enumerate(images)]
    volumes = [volume_of_image(image, name=name) for image, name in zip(images, names, strict=True)]
    geometry = volumes[0][0].geometry
    channels = [
        on_grid_of(volume, Path(name), reference=geometry, reference_path=Path(names[0])).array[0]
        for (volume, _), name in zip(volumes, names, strict=True)
    ]
    remarks = tuple(remark for _, remarks in volumes for remark in remarks)
    return Volume(np.stack(channels), geometry), remarks


def _grid_of(like: ImageLike | OnGrid) -> Geometry:
    if isinstance(like, OnGrid | Volume):
        return like.geometry
    if isinstance(like, str | os.PathLike):
        return read_geometry(Path(like))
    if is_image(like):
        image: Any = like
        return Image.from_image(image).geometry
    raise UserError(
        f"write_image: like is a {type(like).__name__}. Pass an Image, a Prediction, a path, or an image of nibabel or "
        "SimpleITK; for a bare array pass spacing= or affine= instead."
    )


def _spatial(array: NDArray, *, channels: bool) -> NDArray:
    """A (C, Z, Y, X) array with its axis of channels, or of the one channel without it."""
    return array if channels else array[0]


def _one_channel(array: NDArray, what: str) -> NDArray:
    if array.ndim == 4:
        raise UserError(
            f"{what}: the array has {len(array)} channels. Take one channel at a time: array[0], array[1] ..."
        )
    return array
