"""Reading NIfTI: what nibabel reads in sound files, and a clear word on every unsound one."""

from __future__ import annotations

import gzip
import itertools
import resource
import struct
import time
import zlib

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from swinssl.imageio import voxel_stream
from swinssl.imageio.image_fault import ImageFault
from swinssl.imageio.nifti import read_header
from swinssl.imageio.reader import read_channels, read_geometry, read_label
from swinssl.imageio.volume import reversed_axes

SHAPE = (5, 7, 9)  # x, y, z
OBLIQUE = np.array([[0.7, 0.3, 0.1, -20], [-0.3, 0.9, 0.2, 11], [0.1, -0.4, 2.5, 7], [0, 0, 0, 1]])


@pytest.fixture(params=["isal", "zlib"])
def inflater(request, monkeypatch):
    """Both ways to inflate."""
    if request.param == "zlib":
        monkeypatch.setattr(voxel_stream, "_inflater_module", lambda: zlib)
    else:
        pytest.importorskip("isal")


def some(dtype=np.int16, shape=SHAPE):
    return np.random.default_rng(0).integers(0, 100, shape).astype(dtype)


def save(path, array, affine=OBLIQUE, header=nibabel.Nifti1Image, **fields):
    image = header(array, affine, dtype=array.dtype)
    for name, value in fields.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


def edit(path, at, layout, *values):
    """Overwrite bytes of an uncompressed header."""
    content = bytearray(path.read_bytes())
    struct.pack_into(layout, content, at, *values)
    path.write_bytes(content)
    return path


def fault(path):
    with pytest.raises(ImageFault) as found:
        read_label(path)
    text = str(found.value)
    assert text.startswith(f"{path}: ") and text.endswith(".") and len(found.value.remedy) > 10
    return found.value.kind


class TestSound:
    @pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.NII.GZ", "a.Nii"])
    @pytest.mark.parametrize("header", [nibabel.Nifti1Image, nibabel.Nifti2Image])
    def test_equals_nibabel_in_every_type(self, tmp_path, name, header):
        for dtype in ("u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"):
            array = some(dtype)
            plain = save(tmp_path / "a.nii", array, header=header)
            path = tmp_path / name
            path.write_bytes(gzip.compress(plain.read_bytes()) if name.lower().endswith("gz") else plain.read_bytes())
            volume = read_channels([path])
            assert volume.array.dtype == array.dtype and volume.array.dtype.isnative
            assert np.array_equal(volume.array[0], array.T)
            assert np.array_equal(volume.geometry.affine, reversed_axes(nibabel.load(plain).affine))
            assert np.array_equal(read_geometry(path).affine, volume.geometry.affine)

    def test_big_endian(self, tmp_path):
        image = nibabel.Nifti1Image(some(), OBLIQUE, nibabel.Nifti1Header(endianness=">"))
        image.set_data_dtype(np.int16)
        assert image.header.endianness == ">"
        nibabel.save(image, tmp_path / "a.nii.gz")
        volume = read_label(tmp_path / "a.nii.gz")
        assert volume.array.dtype == np.dtype("=i2") and np.array_equal(volume.array[0], some().T)

    def test_compressed_whatever_the_name_says(self, tmp_path):
        save(tmp_path / "a.nii", some())
        (tmp_path / "b.nii.gz").write_bytes((tmp_path / "a.nii").read_bytes())
        (tmp_path / "c.nii").write_bytes(gzip.compress((tmp_path / "a.nii").read_bytes()))
        for name in ("b.nii.gz", "c.nii"):
            assert np.array_equal(read_label(tmp_path / name).array[0], some().T)

    @pytest.mark.parametrize(("slope", "inter"), [(0, 5), (np.nan, 3), (np.inf, 3), (1, 0)])
    def test_no_scaling_leaves_integers_alone(self, tmp_path, slope, inter):
        path = edit(save(tmp_path / "a.nii", some()), 112, "<2f", slope, inter)
        found = read_label(path).array[0]
        assert found.dtype == np.int16 and np.array_equal(found, some().T)

    @pytest.mark.parametrize(("dtype", "becomes"), [("i2", "f4"), ("u1", "f4"), ("f4", "f4"), ("i4", "f8")])
    def test_scaling(self, tmp_path, dtype, becomes):
        path = edit(save(tmp_path / "a.nii", some(dtype)), 112, "<2f", 0.25, -1024)
        found = read_label(path).array[0]
        assert found.dtype == np.dtype(becomes)
        assert np.array_equal(found, nibabel.load(path).get_fdata().T)  # exact in these numbers

    def test_nan_and_infinity_stay(self, tmp_path):
        array = some("f4")
        array[1, 2, 3], array[2, 2, 2] = np.nan, -np.inf
        found = read_label(save(tmp_path / "a.nii.gz", array)).array[0]
        assert np.isnan(found[3, 2, 1]) and found[2, 2, 2] == -np.inf

    @pytest.mark.parametrize("extra", [(1,), (1, 1), (1, 1, 1, 1)])
    def test_dimensions_of_one_are_no_matter(self, tmp_path, extra):
        path = save(tmp_path / "a.nii.gz", some().reshape(*SHAPE, *extra))
        assert np.array_equal(read_label(path).array[0], some().T)

    @pytest.mark.parametrize(("unit", "factor"), [("meter", 1000.0), ("micron", 0.001), ("mm", 1.0), ("unknown", 1.0)])
    def test_lengths_become_mm(self, tmp_path, unit, factor):
        image = nibabel.Nifti1Image(some(), OBLIQUE)
        image.header.set_xyzt_units(unit)
        nibabel.save(image, tmp_path / "a.nii")
        expected = reversed_axes(image.header.get_sform())
        expected[:3] *= factor
        assert np.array_equal(read_geometry(tmp_path / "a.nii").affine, expected)
        assert read_header(tmp_path / "a.nii").mm_per_unit == factor

    def test_place_from_qform_and_from_nothing(self, tmp_path):
        rotation = np.linalg.qr(OBLIQUE[:3, :3])[0]
        affine = np.eye(4)
        affine[:3, :3] = rotation * [1, 2, 3]
        image = nibabel.Nifti1Image(some(), affine)
        image.set_sform(None, 0)
        image.set_qform(affine, 1)
        nibabel.save(image, tmp_path / "q.nii")
        assert np.allclose(read_geometry(tmp_path / "q.nii").affine, reversed_axes(affine), atol=1e-5)
        image.set_qform(affine, 0)
        nibabel.save(image, tmp_path / "n.nii")
        header = read_header(tmp_path / "n.nii")
        assert not header.placed and np.allclose(header.geometry.spacing, (3, 2, 1))
        assert np.array_equal(header.geometry.affine, reversed_axes(nibabel.load(tmp_path / "n.nii").affine))

    def test_disagreeing_forms_are_measured(self, tmp_path):
        image = nibabel.Nifti1Image(some(), np.diag([1.0, 2, 3, 1]))
        shifted = np.diag([1.0, 2, 3, 1])
        shifted[0, 3] = 4
        image.set_qform(shifted, 1)
        nibabel.save(image, tmp_path / "a.nii")
        header = read_header(tmp_path / "a.nii")
        assert header.forms_apart == pytest.approx(4) and header.geometry.origin == (0, 0, 0)

    def test_an_unused_broken_qform_is_no_matter(self, tmp_path):
        path = edit(save(tmp_path / "a.nii", some(), affine=np.eye(4)), 252, "<2h3f", 1, 2, 5, 5, 5)
        assert read_geometry(path).spacing == (1, 1, 1)
        assert fault(edit(path, 254, "<h", 0)) == "affine"

    @pytest.mark.parametrize("excess", [1e-6, 5e-4])
    def test_a_quaternion_that_rounding_made_longer_than_1_is_normalised(self, tmp_path, excess):
        turned = np.diag([-1.0, -2, 3, 1])
        image = nibabel.Nifti1Image(some(), turned)
        image.set_sform(None, 0)
        image.set_qform(turned, 1)
        nibabel.save(image, tmp_path / "a.nii")
        path = edit(tmp_path / "a.nii", 256, "<3f", 0, 0, 1 + excess)
        geometry = read_geometry(path)
        assert np.allclose(geometry.affine, reversed_axes(turned), atol=1e-6)
        direction = np.reshape(sitk.ReadImage(str(path)).GetDirection(), (3, 3))
        assert np.allclose(direction, np.eye(3), atol=2e-3)  # ITK's x and y run the other way
        assert fault(edit(path, 264, "<f", 1.1)) == "affine"

    def test_an_sform_without_sizes_takes_those_of_pixdim(self, tmp_path):
        """As ACDC is published; ITK reads it so."""
        right = np.diag([-1.3158, -1.3158, 10, 1])
        right[:3, 3] = 7, 8, 9
        image = nibabel.Nifti1Image(some(), right)
        nibabel.save(image, tmp_path / "a.nii")
        for qform_code in (0, 1):
            path = edit(tmp_path / "a.nii", 252, "<2h", qform_code, 1)
            path = edit(path, 280, "<12f", -1, 0, 0, 7, 0, -1, 0, 8, 0, 0, 1, 9)
            header = read_header(path)
            assert np.allclose(header.geometry.spacing, sitk.ReadImage(str(path)).GetSpacing()[::-1])
            assert np.allclose(header.geometry.affine, reversed_axes(right), atol=1e-6)
            (remark,) = (remark for remark in header.remarks if remark.kind == "sizes")
            assert "1 x 1 x 1 mm" in remark.message and "10 x 1.316 x 1.316 mm" in remark.message
            assert "pixdim is used" in remark.message

    def test_an_sform_with_sizes_stands_against_pixdim(self, tmp_path):
        path = edit(save(tmp_path / "a.nii", some(), affine=np.diag([2.0, 2, 5, 1])), 80, "<3f", 1, 1, 3)
        header = read_header(path)
        assert header.geometry.spacing == (5, 2, 2)
        (remark,) = header.remarks
        assert "5 x 2 x 2 mm" in remark.message and "3 x 1 x 1 mm" in remark.message
        assert "the sform is used" in remark.message

    def test_rounded_sizes_are_no_contradiction(self, tmp_path):
        path = save(tmp_path / "a.nii", some(), affine=np.diag([0.78125, 0.78125, 5, 1]))
        assert read_header(edit(path, 80, "<3f", 0.7812, 0.7812, 5)).remarks == ()

    def test_world_is_right_anterior_superior_listed_backwards(self, tmp_path):
        """nibabel's RAS+ coordinates of every corner."""
        path = save(tmp_path / "a.nii", some())
        geometry, affine = read_geometry(path), nibabel.load(path).affine
        for x, y, z in itertools.product((0, 4), (0, 6), (0, 8)):
            right, anterior, superior, _ = affine @ [x, y, z, 1]
            assert np.allclose(geometry.affine @ [z, y, x, 1], [superior, anterior, right, 1])

    def test_several_gzip_members_and_zero_padding(self, tmp_path, inflater):
        content = save(tmp_path / "a.nii", some()).read_bytes()
        path = tmp_path / "b.nii.gz"
        path.write_bytes(gzip.compress(content[:400]) + gzip.compress(content[400:]) + bytes(512))
        assert np.array_equal(read_label(path).array[0], some().T)
        (tmp_path / "c.nii").write_bytes(content + bytes(512))
        assert np.array_equal(read_label(tmp_path / "c.nii").array[0], some().T)

    def test_extensions_are_skipped_and_a_dicom_one_is_known(self, tmp_path):
        image = nibabel.Nifti1Image(some(), OBLIQUE)
        for code, names in ((6, False), (2, True)):
            image.header.extensions.append(nibabel.nifti1.Nifti1Extension(code, b"x" * 300))
            nibabel.save(image, tmp_path / "a.nii.gz")
            assert read_header(tmp_path / "a.nii.gz").names_patient == names
            assert np.array_equal(read_label(tmp_path / "a.nii.gz").array[0], some().T)


class TestUnsound:
    @pytest.mark.parametrize(
        ("damage", "kind"),
        [
            (lambda c: c[: len(c) // 2], "truncated"),
            (lambda c: c[:-6], "truncated"),  # voxels whole, checksum gone
            (lambda c: c[:10], "truncated"),
            (lambda c: c[:200] + bytes([c[200] ^ 16]) + c[201:], "corrupt"),
            (lambda c: c[:-6] + bytes([c[-6] ^ 1]) + c[-5:], "corrupt"),  # of the checksum itself
            (lambda c: c + b"garbage", "surplus"),
            (lambda c: c + gzip.compress(b"more voxels"), "surplus"),
            (lambda c: b"", "empty"),
            (lambda c: b"a text", "not_an_image"),
            (lambda c: gzip.compress(b"a longer text " * 99), "not_an_image"),
        ],
    )
    def test_compressed(self, tmp_path, inflater, damage, kind):
        path = tmp_path / "a.nii.gz"
        noise = np.random.default_rng(1).integers(0, 255, (20, 20, 20)).astype(np.uint8)
        save(path, noise)
        path.write_bytes(damage(path.read_bytes()))
        found = fault(path)
        assert found == kind or (kind == "corrupt" and found == "truncated")  # a bit may also end the stream early

    @pytest.mark.parametrize(
        ("damage", "kind"),
        [
            (lambda c: c[: len(c) // 2], "truncated"),
            (lambda c: c[:-1], "truncated"),
            (lambda c: c[:100], "truncated"),
            (lambda c: c + b"garbage", "surplus"),
            (lambda c: b"GIF89a" * 100, "not_an_image"),
        ],
    )
    def test_plain(self, tmp_path, damage, kind):
        path = save(tmp_path / "a.nii", some())
        path.write_bytes(damage(path.read_bytes()))
        assert fault(path) == kind

    @pytest.mark.parametrize(
        ("at", "layout", "values", "kind"),
        [
            (40, "<8h", (3, 5, 7, 0, 1, 1, 1, 1), "not_an_image"),
            (40, "<8h", (3, 5, -7, 9, 1, 1, 1, 1), "not_an_image"),
            (40, "<8h", (9, 5, 7, 9, 1, 1, 1, 1), "not_an_image"),
            (40, "<8h", (2, 5, 63, 1, 1, 1, 1, 1), "not_3d"),
            (40, "<8h", (3, 5, 63, 1, 1, 1, 1, 1), "not_3d"),
            (40, "<8h", (4, 5, 7, 3, 3, 1, 1, 1), "not_3d"),
            (40, "<8h", (5, 5, 7, 3, 1, 3, 1, 1), "not_3d"),
            (40, "<8h", (3, 5, 7, 5, 1, 1, 1, 1), "surplus"),
            (40, "<8h", (3, 32000, 32000, 1000, 1, 1, 1, 1), "too_large"),
            (70, "<2h", (128, 24), "voxel_type"),
            (70, "<2h", (32, 64), "voxel_type"),
            (70, "<2h", (999, 64), "voxel_type"),
            (108, "<f", (1e30,), "not_an_image"),
            (108, "<f", (float("nan"),), "not_an_image"),
            (116, "<f", (float("nan"),), "not_an_image"),
            (280, "<4f", (0, 0, 0, 0), "affine"),
            (280, "<4f", (float("nan"), 0, 0, 0), "affine"),
            (280, "<8f", (1, 1, 1, 0, 1, 1, 1, 0), "affine"),
            (344, "<4s", (b"ni1\0",), "not_an_image"),
        ],
    )
    def test_header(self, tmp_path, at, layout, values, kind):
        path = save(tmp_path / "a.nii", some())
        if at == 116:
            edit(path, 112, "<f", 2.0)
        assert fault(edit(path, at, layout, *values)) == kind

    def test_zero_pixel_size_without_sform(self, tmp_path):
        path = edit(save(tmp_path / "a.nii", some()), 252, "<2h", 0, 0)
        assert fault(edit(path, 80, "<3f", 0, 1, 1)) == "affine"

    def test_2d_is_refused_in_words(self, tmp_path):
        path = save(tmp_path / "a.nii.gz", some(shape=(64, 64)))
        with pytest.raises(ImageFault, match="swinssl segments 3D volumes"):
            read_label(path)

    def test_missing_and_a_folder(self, tmp_path):
        assert fault(tmp_path / "a.nii.gz") == "missing"
        (tmp_path / "b.nii").mkdir()
        assert fault(tmp_path / "b.nii") == "unreadable"

    def test_a_header_of_terabytes_takes_no_time_and_no_memory(self, tmp_path):
        path = save(tmp_path / "a.nii", some())
        edit(path, 40, "<8h", 3, 16000, 16000, 8000, 1, 1, 1, 1)
        path.with_suffix(".nii.gz").write_bytes(gzip.compress(path.read_bytes()))
        before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
        assert fault(path) == fault(path.with_suffix(".nii.gz")) == "too_large"
        assert time.monotonic() - started < 1
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000

    def test_bomb(self, tmp_path, monkeypatch):
        """2^30 zero voxels in a megabyte: refused by the header, unless the user allows it."""
        head = bytearray(save(tmp_path / "a.nii", some(np.uint8)).read_bytes()[:352])
        struct.pack_into("<8h", head, 40, 3, 1024, 1024, 1024, 1, 1, 1, 1)
        squeeze = zlib.compressobj(1, wbits=31)
        # The stream need not be whole: nothing behind the header may be looked at.
        path = tmp_path / "b.nii.gz"
        path.write_bytes(squeeze.compress(bytes(head) + bytes(2**24)) + squeeze.flush())
        started = time.monotonic()
        assert fault(path) == "too_large" and time.monotonic() - started < 1
        monkeypatch.setenv("SWINSSL_MAX_VOXELS", str(2**30))
        assert read_geometry(path).shape == (1024, 1024, 1024)

    def test_zeros_without_end_behind_the_voxels(self, tmp_path):
        content = save(tmp_path / "a.nii", some()).read_bytes()
        path = tmp_path / "b.nii.gz"
        path.write_bytes(gzip.compress(content + bytes(2**27), compresslevel=1))
        started = time.monotonic()
        assert fault(path) == "surplus" and time.monotonic() - started < 1

    @pytest.mark.parametrize(("limit", "refused"), [("314", True), ("315", False)])
    def test_limit_of_the_environment(self, tmp_path, monkeypatch, limit, refused):
        path = save(tmp_path / "a.nii.gz", some())  # 5 x 7 x 9 = 315
        monkeypatch.setenv("SWINSSL_MAX_VOXELS", limit)
        if refused:
            assert fault(path) == "too_large"
        else:
            assert read_label(path).array.size == 315

    def test_more_than_the_free_memory(self, tmp_path, monkeypatch):
        monkeypatch.setattr("swinssl.imageio.grid_rules.free_memory", lambda: 600)
        assert fault(save(tmp_path / "a.nii.gz", some())) == "too_large"  # 630 bytes


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_header_leads_to_anything_but_an_image_or_a_fault(tmp_path_factory, data):
    """Up to four bytes of the header are anything."""
    path = tmp_path_factory.mktemp("fuzz") / "a.nii"
    content = bytearray(save(path, some()).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, 351))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        volume = read_label(path)
    except ImageFault as found:
        assert str(path) in str(found)
    else:
        assert np.isfinite(volume.geometry.affine).all() and volume.array.size >= 8


class TestChannels:
    def test_are_stacked_in_the_smallest_common_type(self, tmp_path):
        paths = [save(tmp_path / "a.nii", some("u1")), save(tmp_path / "b.nii.gz", some("i2") - 50)]
        volume = read_channels(paths)
        assert volume.array.shape == (2, 9, 7, 5) and volume.array.dtype == np.int16
        assert np.array_equal(volume.array[1], some("i2").T - 50)

    def test_other_grids_are_refused(self, tmp_path):
        first = save(tmp_path / "a.nii", some())
        shape = save(tmp_path / "b.nii", some()[1:])
        moved = OBLIQUE.copy()
        moved[0, 3] += 0.8
        place = save(tmp_path / "c.nii", some(), affine=moved)
        for other, words in ((shape, "9 x 7 x 4 voxels"), (place, "at the worst corner")):
            with pytest.raises(ImageFault, match=words) as found:
                read_channels([first, other])
            assert found.value.kind == "grids" and found.value.path == other
        moved[0, 3] -= 0.79  # a hundredth of a millimetre is rounding
        save(place, some(), affine=moved)
        assert read_channels([first, place]).geometry.origin == read_geometry(first).origin
