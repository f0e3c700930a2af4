"""Grids: distances, orientations, and the maps between them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from swinssl.imageio.formats import image_ending, required_ending, without_ending
from swinssl.imageio.volume import AxisMap, Geometry, Volume, reversed_axes

ORIENTATIONS = list(itertools.product(itertools.permutations(range(3)), itertools.product((False, True), repeat=3)))


def grid(origin=(0.0, 0.0, 0.0), spacing=(2.5, 1.0, 0.5)):
    return Geometry.from_parts((3, 4, 5), spacing=spacing, origin=origin)


def test_parts():
    geometry = grid(origin=(1, 2, 3))
    assert geometry.spacing == (2.5, 1, 0.5) and geometry.origin == (1, 2, 3)
    assert np.array_equal(geometry.direction, np.eye(3)) and geometry.voxel_volume == pytest.approx(1.25)


@pytest.mark.parametrize(
    ("other", "voxels"),
    [
        (grid(), 0),
        (grid(origin=(2.5, 0, 0)), 1),
        (grid(origin=(0, 0.3, 0)), 0.3),
        (grid(spacing=(2.5, 1.0, 0.55)), 0.4),  # 4 steps of 0.05 mm, in voxels of 0.5 mm
    ],
)
def test_corner_displacement(other, voxels):
    assert grid().corner_displacement(other) == pytest.approx(voxels)


@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS)
def test_canonical_undoes_every_storage_order(order, flips):
    array = np.arange(60).reshape(1, 3, 4, 5)
    stored_as = AxisMap(order, flips)
    stored = Volume(stored_as.apply(array), grid(origin=(7, 8, 9)).mapped(stored_as))
    back, axes = stored.canonical()
    assert np.array_equal(back.array, array)
    assert np.allclose(back.geometry.affine, grid(origin=(7, 8, 9)).affine)
    assert np.array_equal(axes.invert(back.array), stored.array)


def test_mapped_voxels_keep_their_place():
    geometry, axes = grid(origin=(7, 8, 9)), AxisMap((2, 0, 1), (True, False, True))
    places = np.stack(np.meshgrid(*(np.arange(n) for n in geometry.shape), indexing="ij"), axis=0)
    mapped = axes.apply(places)
    turned = geometry.mapped(axes)
    assert turned.shape == mapped.shape[1:]
    for index in itertools.product(*(range(n) for n in turned.shape)):
        source = mapped[(slice(None), *index)]
        assert np.allclose(turned.affine @ [*index, 1], geometry.affine @ [*source, 1])


def test_reversed_axes_is_its_own_inverse():
    affine = np.random.default_rng(0).normal(size=(4, 4))
    assert np.array_equal(reversed_axes(reversed_axes(affine)), affine)
    assert np.array_equal(reversed_axes(np.diag([1.0, 2, 3, 1])), np.diag([3.0, 2, 1, 1]))


def test_a_volume_fits_its_grid():
    with pytest.raises(ValueError, match="does not fit"):
        Volume(np.zeros((3, 4, 5)), grid())


@pytest.mark.parametrize(
    ("name", "ending", "stem"),
    [
        ("a.nii.gz", ".nii.gz", "a"),
        ("a.b.NII.GZ", ".nii.gz", "a.b"),
        ("a.nii", ".nii", "a"),
        ("folder/a.MHD", ".mhd", "a"),
        ("a.gz", None, "a.gz"),
        (".nii.gz", None, ".nii.gz"),
        ("a.png", None, "a.png"),
    ],
)
def test_endings(name, ending, stem):
    assert image_ending(name) == ending and without_ending(name) == stem
    if ending:
        assert required_ending(name) == ending
