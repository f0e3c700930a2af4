"""Writing: what is written is what is read, in the same place, and nothing else stands in the header."""

from __future__ import annotations

import gzip
import itertools

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from swinssl.core.errors import UserError
from swinssl.imageio import nifti
from swinssl.imageio.formats import known_endings
from swinssl.imageio.reader import read_geometry, read_label
from swinssl.imageio.volume import Geometry, reversed_axes
from swinssl.imageio.writer import write_volume

SHAPE = (4, 5, 6)
OBLIQUE = np.array([[0.7, 0.3, 0.1, -20], [-0.3, 0.9, 0.2, 11], [0.1, -0.4, 2.5, 7], [0, 0, 0, 1]])
ORIENTATIONS = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))


def some(dtype=np.uint8):
    return np.random.default_rng(0).integers(0, 100, SHAPE).astype(dtype)


def grid(order=(0, 1, 2), signs=(1, 1, 1)):
    affine = np.eye(4)
    affine[:3, :3] = (np.diag([2.5, 0.9, 0.7]) * signs)[:, list(order)]
    affine[:3, 3] = [12.3, -45.6, 78.9]
    return Geometry(SHAPE, affine)


def oblique():
    rotation = np.array([[2, 10, 11], [14, -5, 2], [-5, -10, 10]]) / 15
    return Geometry.from_parts(SHAPE, spacing=(2.5, 0.9, 0.7), origin=(1.1, 2.2, 3.3), direction=rotation)


@pytest.mark.parametrize("ending", known_endings())
@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "f4", "f8", ">i2"])
def test_voxels_and_type_come_back(tmp_path, ending, dtype):
    path = tmp_path / f"a{ending}"
    write_volume(path, some(dtype), oblique())
    found = read_label(path).array[0]
    assert found.dtype == np.dtype(dtype).newbyteorder("=") and np.array_equal(found, some(dtype))
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), some(dtype))
    assert {p.name for p in tmp_path.iterdir()} == {path.name, *(["a.zraw"] if ending == ".mhd" else [])}


@pytest.mark.parametrize(
    ("array", "becomes"),
    [
        (some() > 50, "u1"),
        (some("i8"), "u1"),
        (some("i8") - 50, "i1"),
        (some("u8") * 1000, "u4"),
        (some("f2"), "f4"),
    ],
)
def test_types_that_few_programs_read_are_not_written(tmp_path, array, becomes):
    write_volume(tmp_path / "a.nii", array, grid())
    found = read_label(tmp_path / "a.nii").array[0]
    assert found.dtype == np.dtype(becomes) and np.array_equal(found, array)


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_every_orientation_keeps_its_place(tmp_path, order, signs):
    expected = grid(order, signs)
    for ending in (".nii", ".nrrd", ".mha"):
        write_volume(tmp_path / f"a{ending}", some(), expected)
        found = read_geometry(tmp_path / f"a{ending}")
        assert np.allclose(found.affine, expected.affine, atol=1e-5)
    image = sitk.ReadImage(str(tmp_path / "a.nii"))  # an independent reader places each voxel there too
    for z, y, x in ((0, 0, 0), (3, 4, 5), (1, 0, 5)):
        left, posterior, superior = image.TransformIndexToPhysicalPoint((x, y, z))
        assert np.allclose(expected.affine @ [z, y, x, 1], [superior, -posterior, -left, 1], atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-3, 3, width=32), min_size=9, max_size=9),
    st.lists(st.floats(-500, 500, width=32), min_size=3, max_size=3),
)
def test_what_came_from_nifti_goes_back_to_the_bit(tmp_path_factory, matrix, origin):
    """Any affine that a file can hold, sheared ones too."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(matrix, (3, 3))
    affine[:3, 3] = origin
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    if edges.min() < 1e-3 or abs(np.linalg.det(affine[:3, :3] / edges)) < 1e-3:
        return
    folder = tmp_path_factory.mktemp("bits")
    nibabel.save(nibabel.Nifti1Image(some().T, affine), folder / "source.nii.gz")
    source = read_label(folder / "source.nii.gz")
    write_volume(folder / "copy.nii.gz", source.array[0], source.geometry)
    assert np.array_equal(read_geometry(folder / "copy.nii.gz").affine, source.geometry.affine)
    assert np.array_equal(nibabel.load(folder / "copy.nii.gz").affine, nibabel.load(folder / "source.nii.gz").affine)


class TestHeader:
    def test_orthogonal_grids_have_a_qform_too(self, tmp_path):
        write_volume(tmp_path / "a.nii.gz", some(), oblique())
        header = nibabel.load(tmp_path / "a.nii.gz").header
        assert header["sform_code"] == header["qform_code"] == 1
        assert np.allclose(header.get_qform(), header.get_sform(), atol=1e-5)
        assert header.get_xyzt_units()[0] == "mm" and np.allclose(header.get_zooms(), (0.7, 0.9, 2.5))

    @pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
    @pytest.mark.parametrize(("qform_code", "sform_code"), [(0, 0), (1, 0), (0, 2), (3, 4)])
    @pytest.mark.parametrize("unit", ["mm", "unknown", "meter"])
    def test_a_result_is_placed_by_the_fields_of_its_image(self, tmp_path, kind, qform_code, sform_code, unit):
        """Also where these contradict each other: a viewer that reads any of them lays the one over the other."""
        image = kind(some().T, np.diag([-1.5, 2, 3, 1]))
        image.header.set_xyzt_units(unit, "sec")
        shifted = np.diag([1.0, -1, 1, 1])
        shifted[:3, 3] = 0.1, 5, 7
        image.header.set_qform(shifted * [[1.25], [2], [3], [1]], qform_code)
        image.header["sform_code"] = sform_code
        nibabel.save(image, tmp_path / "image.nii.gz")
        source = read_label(tmp_path / "image.nii.gz")
        write_volume(tmp_path / "result.nii.gz", np.ones(SHAPE, np.uint8), source.geometry)
        expected, found = (nibabel.load(tmp_path / f"{name}.nii.gz").header for name in ("image", "result"))
        assert type(found) is type(expected)
        for field in ("qform_code", "sform_code", "xyzt_units", "srow_x", "srow_y", "srow_z", "qoffset_x", "qoffset_y"):
            assert np.array_equal(found[field], expected[field]), field
        for field in ("qoffset_z", "quatern_b", "quatern_c", "quatern_d"):
            assert np.array_equal(found[field], expected[field]), field
        assert np.array_equal(found["pixdim"][:4], expected["pixdim"][:4])
        assert np.array_equal(read_geometry(tmp_path / "result.nii.gz").affine, source.geometry.affine)

    def test_a_map_in_another_storage_order_is_placed_anew(self, tmp_path):
        nibabel.save(nibabel.Nifti1Image(some().T, np.diag([-1.5, 2, 3, 1])), tmp_path / "image.nii.gz")
        volume, _ = read_label(tmp_path / "image.nii.gz").canonical()
        write_volume(tmp_path / "a.nii.gz", volume.array[0], volume.geometry)
        assert np.array_equal(nibabel.load(tmp_path / "a.nii.gz").affine, reversed_axes(volume.geometry.affine))

    def test_sheared_grids_have_no_qform(self, tmp_path):
        write_volume(tmp_path / "a.nii", some(), Geometry(SHAPE, reversed_axes(OBLIQUE)))
        header = nibabel.load(tmp_path / "a.nii").header
        assert header["qform_code"] == 0 and np.allclose(header.get_sform(), OBLIQUE)
        assert np.allclose(header.get_zooms(), np.linalg.norm(OBLIQUE[:3, :3], axis=0))

    @pytest.mark.parametrize("ending", [".nrrd", ".mha", ".mhd"])
    def test_sheared_grids_elsewhere(self, tmp_path, ending):
        """An image that can be read is predicted in its own format."""
        sheared = Geometry(SHAPE, reversed_axes(OBLIQUE))
        write_volume(tmp_path / f"a{ending}", some(), sheared)
        found = read_label(tmp_path / f"a{ending}")
        assert np.array_equal(found.array[0], some())
        assert np.allclose(found.geometry.affine, sheared.affine, rtol=0, atol=1e-12)

    @pytest.mark.parametrize("ending", known_endings())
    def test_names_nobody(self, tmp_path, ending):
        """Neither the file's name nor the folder's nor a time, and no text at all in NIfTI."""
        path = tmp_path / f"DOE_JOHN{ending}"
        write_volume(path, some(), grid())
        content = gzip.decompress(path.read_bytes()) if ending == ".nii.gz" else path.read_bytes()
        head = content[:352] if ending.startswith(".nii") else content[:600]
        if ending != ".mhd":  # which has to name the file beside it
            assert b"DOE" not in content and b"DOE" not in path.read_bytes()
        if ending.startswith(".nii"):
            header = nibabel.load(path).header
            assert not any(header[name].tobytes().strip(b"\0") for name in ("descrip", "aux_file", "db_name"))
            assert not header.extensions and header["intent_name"].tobytes().strip(b"\0") == b""
        assert str(tmp_path).encode() not in head

    @pytest.mark.parametrize("ending", known_endings())
    def test_same_array_same_bytes(self, tmp_path, ending):
        paths = [tmp_path / name / f"a{ending}" for name in ("first", "second")]
        for path in paths:
            write_volume(path, some(), grid())
        assert paths[0].read_bytes() == paths[1].read_bytes()

    def test_more_voxels_than_nifti1_counts(self, tmp_path):
        long = np.zeros((2, 2, 40_000), np.uint8)
        geometry = Geometry.from_parts(long.shape, spacing=(1, 1, 1))
        write_volume(tmp_path / "a.nii.gz", long, geometry)
        assert isinstance(nibabel.load(tmp_path / "a.nii.gz"), nibabel.Nifti2Image)
        assert read_label(tmp_path / "a.nii.gz").geometry.shape == long.shape


def test_without_isal(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "isal", None)
    write_volume(tmp_path / "a.nii.gz", some(), grid())
    assert np.array_equal(read_label(tmp_path / "a.nii.gz").array[0], some())


def test_nothing_is_left_of_a_failed_write(tmp_path, monkeypatch):
    (tmp_path / "a.nii.gz").write_bytes(b"what was there")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nifti, "gzip_writer", full)
    with pytest.raises(OSError, match="No space"):
        write_volume(tmp_path / "a.nii.gz", some(), grid())
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"what was there"]


def test_wrong_arguments(tmp_path):
    with pytest.raises(UserError, match=r"a\.png.*\.nii\.gz"):
        write_volume(tmp_path / "a.png", some(), grid())
    with pytest.raises(ValueError, match="does not fit"):
        write_volume(tmp_path / "a.nii", some()[1:], grid())


def test_real_label_goes_through(shared_data, tmp_path):
    source = read_label(shared_data / "volumes" / "wholebody_ct_61classes.nii.gz")
    for ending in known_endings():
        write_volume(tmp_path / f"a{ending}", source.array[0], source.geometry)
        found = read_label(tmp_path / f"a{ending}")
        assert np.array_equal(found.array, source.array)
        assert source.geometry.corner_displacement(found.geometry) < 1e-6
