"""Reading NRRD and MetaImage: SimpleITK's voxels and places in sound files, a clear word on every unsound one."""

from __future__ import annotations

import gzip
import os
import re

import numpy as np
import pytest
import SimpleITK as sitk

from swinssl.core.errors import UserError
from swinssl.imageio.image_fault import ImageFault
from swinssl.imageio.reader import read_geometry, read_label

SHAPE = (4, 5, 6)  # z, y, x
# A rotation about all three axes, from quaternion (1, 2, 3, 4) / sqrt(30).
ROTATION = np.array([[2, 10, 11], [14, -5, 2], [-5, -10, 10]]) / 15
NOISE = np.random.default_rng(0).normal(size=(20, 20, 20)).astype(np.float32)
NRRD = """NRRD0004
type: {type}
dimension: {dimension}
sizes: {sizes}
{more}encoding: {encoding}

"""


def some(dtype=np.int16):
    return np.random.default_rng(0).integers(0, 100, SHAPE).astype(dtype)


def save(path, array, *, compress=True, direction=ROTATION):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.7, 1.1, 2.5))
    image.SetOrigin((-10, 20, 30.123456789))
    image.SetDirection(direction.ravel().tolist())
    sitk.WriteImage(image, str(path), compress)
    return path


def text_nrrd(path, *, type="short", sizes="6 5 4", more="endian: little\n", encoding="raw", content=b""):
    head = NRRD.format(type=type, dimension=len(sizes.split()), sizes=sizes, more=more, encoding=encoding)
    path.write_bytes(head.encode() + content)
    return path


def fault(path):
    with pytest.raises(ImageFault) as found:
        read_label(path)
    assert str(found.value).startswith(f"{found.value.path}: ") and str(found.value).endswith(".")
    return found.value.kind


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.mhd", "a.NRRD"])
@pytest.mark.parametrize("compress", [True, False])
def test_equals_simpleitk(tmp_path, name, compress):
    for dtype in ("u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"):
        array = some(dtype)
        path = save(tmp_path / name, array, compress=compress)
        volume = read_label(path)
        assert volume.array.dtype == array.dtype and np.array_equal(volume.array[0], array)
        image = sitk.ReadImage(str(path))
        for z, y, x in ((0, 0, 0), (3, 4, 5), (1, 0, 5)):
            left, posterior, superior = image.TransformIndexToPhysicalPoint((x, y, z))
            place = volume.geometry.affine @ [z, y, x, 1]
            assert np.allclose(place, [superior, -posterior, -left, 1], atol=1e-9)
        assert np.array_equal(read_geometry(path).affine, volume.geometry.affine)


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_nan_stays(tmp_path, name):
    array = some("f4")
    array[1, 2, 3] = np.nan
    assert np.isnan(read_label(save(tmp_path / name, array)).array[0, 1, 2, 3])


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (lambda c: c[: -len(c) // 3], "truncated"),
        (lambda c: c[:-3], "truncated"),
        (lambda c: c + b"garbage", "surplus"),
        (lambda c: b"", "empty"),
        (lambda c: b"no image" * 9, "not_an_image"),
    ],
)
def test_damaged(tmp_path, capfd, name, compress, damage, kind):
    path = save(tmp_path / name, NOISE, compress=compress)
    path.write_bytes(damage(path.read_bytes()))
    assert fault(path) == kind
    assert capfd.readouterr().err == ""  # the libraries below do not complain beside us


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_no_flipped_bit_goes_unseen(tmp_path, name):
    content = save(tmp_path / name, NOISE).read_bytes()
    voxels = len(content) - 3000  # behind the header
    for place in range(len(content) - voxels, len(content), voxels // 20):
        damaged = bytearray(content)
        damaged[place] ^= 4
        (tmp_path / name).write_bytes(damaged)
        assert fault(tmp_path / name) in ("corrupt", "truncated", "surplus")


class TestHeaders:
    def test_big_endian_and_lines_of_dos(self, tmp_path):
        path = text_nrrd(tmp_path / "a.nrrd", more="endian: big\n", content=some(">i2").tobytes())
        assert np.array_equal(read_label(path).array[0], some())
        head, _, voxels = path.read_bytes().partition(b"\n\n")
        path.write_bytes(head.replace(b"\n", b"\r\n") + b"\r\n\r\n" + voxels)
        assert np.array_equal(read_label(path).array[0], some())

    def test_voxels_in_a_file_beside(self, tmp_path):
        (tmp_path / "v.raw.gz").write_bytes(gzip.compress(some().tobytes()))
        more = "endian: little\ndata file: v.raw.gz\n"
        path = text_nrrd(tmp_path / "a.nrrd", encoding="gzip", more=more)
        assert np.array_equal(read_label(path).array[0], some())
        (tmp_path / "v.raw.gz").unlink()
        with pytest.raises(ImageFault, match=r"v\.raw\.gz: no such file"):
            read_label(path)

    def test_text_voxels_are_left_to_simpleitk(self, tmp_path):
        text = " ".join(map(str, some().ravel()))
        path = text_nrrd(tmp_path / "a.nrrd", encoding="ascii", more="", content=text.encode())
        assert np.array_equal(read_label(path).array[0], some())

    def test_space_right_anterior_superior(self, tmp_path):
        more = (
            "endian: little\nspace: right-anterior-superior\nspace origin: (1,2,3)\n"
            "space directions: (0.5,0,0) (0,1.5,0) (0,0,2.5)\n"
        )
        geometry = read_geometry(text_nrrd(tmp_path / "a.nrrd", more=more))
        assert np.array_equal(geometry.affine[:3, :3], np.diag([2.5, 1.5, 0.5])) and geometry.origin == (3, 2, 1)

    def test_sheared(self, tmp_path):
        more = "endian: little\nspace dimension: 3\nspace directions: (1,0,0) (0.5,2,0) (0,0,3)\n"
        path = text_nrrd(tmp_path / "a.nrrd", more=more, content=some().tobytes())
        volume = read_label(path)
        assert volume.geometry.affine[2, 1] == pytest.approx(-0.5) and np.array_equal(volume.array[0], some())

    @pytest.mark.parametrize(
        ("change", "kind"),
        [
            ({"sizes": "6 5"}, "not_3d"),
            ({"sizes": "6 5 1"}, "not_3d"),
            ({"sizes": "6 5 4 3", "more": "endian: little\nkinds: domain domain domain list\n"}, "not_3d"),
            ({"sizes": "60000 60000 60000"}, "too_large"),
            ({"type": "block", "more": "block size: 4\n"}, "voxel_type"),
            ({"sizes": "6 5 x"}, "not_an_image"),
            ({"more": "endian: little\nspace dimension: 3\nspace directions: (1,0,0) (0,0,0) (0,0,3)\n"}, "affine"),
        ],
    )
    def test_what_cannot_be(self, tmp_path, change, kind):
        found = fault(text_nrrd(tmp_path / "a.nrrd", **{"content": some().tobytes(), **change}))
        assert found == kind or (kind == "voxel_type" and found == "not_an_image")

    def test_colour_is_refused(self, tmp_path):
        sitk.WriteImage(
            sitk.GetImageFromArray(np.zeros((4, 5, 6, 3), np.uint8), isVector=True), str(tmp_path / "a.mha")
        )
        assert fault(tmp_path / "a.mha") == "not_3d"

    @pytest.mark.parametrize(
        ("key", "value", "kind"),
        [
            ("ElementSpacing", "0.7 0 2.5", "affine"),
            ("DimSize", "6 5 9", "truncated"),
            ("DimSize", "6 5 3", "surplus"),
            ("DimSize", "60000 60000 4000", "too_large"),
        ],
    )
    def test_metaimage(self, tmp_path, key, value, kind):
        path = save(tmp_path / "a.mha", some(), compress=False, direction=np.eye(3))
        path.write_bytes(re.sub(rf"{key} = [^\n]*".encode(), f"{key} = {value}".encode(), path.read_bytes()))
        assert fault(path) == kind

    def test_metaimage_with_its_voxels_at_the_end_of_a_file(self, tmp_path):
        path = save(tmp_path / "a.mhd", some(), compress=False)
        (tmp_path / "a.raw").write_bytes(b"another program's header" + some().tobytes())
        text = path.read_text().replace("ElementDataFile", "HeaderSize = -1\nElementDataFile")
        path.write_text(text)
        assert np.array_equal(read_label(path).array[0], some())

    @pytest.mark.parametrize("binary", ["True", "False"])
    @pytest.mark.parametrize(
        "named", ["../voxels.raw", "{folder}/voxels.raw", "LIST\n../voxels.raw", "v%03d.raw 0 3 1"]
    )
    def test_a_header_reads_one_file_in_its_own_folder(self, tmp_path, named, binary):
        (tmp_path / "voxels.raw").write_bytes(some().tobytes())
        (tmp_path / "inner").mkdir()
        path = save(tmp_path / "inner" / "a.mhd", some(), compress=False)
        text = path.read_text().replace("a.raw", named.format(folder=tmp_path))
        path.write_text(text.replace("BinaryData = True", f"BinaryData = {binary}"))
        assert fault(path) == "not_an_image"
        more = f"endian: little\ndata file: {named.format(folder=tmp_path)}\n"
        assert fault(text_nrrd(tmp_path / "inner" / "a.nrrd", more=more)) == "not_an_image"

    def test_voxels_in_a_folder_below(self, tmp_path):
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "v.raw").write_bytes(some().tobytes())
        path = text_nrrd(tmp_path / "a.nrrd", more="endian: little\ndata file: data/v.raw\n")
        assert np.array_equal(read_label(path).array[0], some())

    @pytest.mark.parametrize(
        "make", [lambda p: os.mkfifo(p), lambda p: p.symlink_to("/dev/zero"), lambda p: p.symlink_to(p.name)]
    )
    def test_special_files(self, tmp_path, make):
        path = save(tmp_path / "a.mhd", some(), compress=False)
        (tmp_path / "a.raw").unlink()
        make(tmp_path / "a.raw")
        assert fault(path) == "unreadable"
        for name in ("b.mha", "b.nrrd", "b.nii", "b.nii.gz"):
            make(tmp_path / name)
            assert fault(tmp_path / name) == "unreadable"

    def test_another_ending(self, tmp_path):
        with pytest.raises(UserError, match=r"\.nii\.gz.*Convert"):
            read_label(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_no_header_leads_to_anything_but_an_image_or_a_fault(tmp_path, name):
    """A byte of the header is another one."""
    content = save(tmp_path / name, some(), compress=False).read_bytes()
    header = len(content) - some().nbytes
    draw = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(content)
        damaged[draw.integers(header)] = draw.choice(list(b"0123456789 :=-.\nxA\xff"))
        (tmp_path / name).write_bytes(damaged)
        try:
            volume = read_label(tmp_path / name)
        except ImageFault as found:
            assert str(tmp_path) in str(found)
        else:
            assert np.isfinite(volume.geometry.affine).all() and volume.array.size >= 8


def test_real_nrrd(shared_data):
    folder = shared_data / "volumes"
    image, label = read_label(folder / "lung1_image.nrrd"), read_label(folder / "lung1_label.nrrd")
    assert image.array.shape == (1, 48, 512, 512) and image.array.dtype == np.int16
    assert (label.array != 0).sum() == 837  # its documentation says so
    assert label.geometry.corner_displacement(image.geometry) == 0
