"""A case inside a page: where its voxels lie, what it holds, how small it gets."""

from __future__ import annotations

import base64
import gzip
import math

import nibabel
import numpy as np
import pytest
from support.made_reports import GRID, SHAPE, image, labels, made_case

from swinssl.evaluation.report.html.embedded_case import embed_case
from swinssl.evaluation.report.pictures.shown_case import CT_WINDOW
from swinssl.imageio.reader import read_channels
from swinssl.imageio.volume import Geometry
from swinssl.imageio.writer import write_volume

PLENTY = 10**7


def volume(encoded, folder):
    path = folder / "embedded.nii.gz"
    path.write_bytes(base64.b64decode(encoded))
    return read_channels([path])


def world(geometry, index):
    return (geometry.affine @ [*index, 1.0])[:3]


def test_labels_are_coded_in_order_and_lie_where_they_lay(tmp_path):
    embedded = embed_case(made_case(tmp_path), ["shifted", "exact"], budget=PLENTY)
    reference, shifted = (volume(e, tmp_path) for e in (embedded.reference, embedded.predictions["shifted"]))
    assert embedded.labels == ["organ", "tumour"] and embedded.notes == []
    assert embedded.predictions["exact"] == embedded.reference
    for found, wanted in ((reference, labels()), (shifted, labels(3))):
        for code, value in ((1, 4), (2, 7)):
            corners = [np.argwhere(a == v).min(axis=0) for a, v in ((found.array[0], code), (wanted, value))]
            np.testing.assert_allclose(world(found.geometry, corners[0]), world(GRID, corners[1]), atol=1e-4)
        assert (found.array > 0).sum() == (wanted > 0).sum()


def test_the_image_is_windowed_and_cropped_with_a_margin(tmp_path):
    embedded = embed_case(made_case(tmp_path), ["shifted"], budget=PLENTY)
    grey = volume(embedded.image, tmp_path)
    # 15 mm are 5 planes and 10 rows; the other way the image ends before.
    assert grey.geometry.shape == (18, 36, 39)
    assert grey.array.dtype == np.uint8
    low, high = CT_WINDOW
    first = np.round((world(grey.geometry, (0, 0, 0)) - world(GRID, (0, 0, 0))) / GRID.spacing).astype(int)
    wanted = ((image().astype(float) - low) / (high - low) * 255).clip(0, 255)
    z, y, x = (slice(s, s + n) for s, n in zip(first, grey.geometry.shape, strict=True))
    np.testing.assert_allclose(grey.array[0], wanted[z, y, x], atol=0.51)


def test_focus_is_where_maps_differ(tmp_path):
    case = made_case(tmp_path, shifts={"m": 0})
    wrong = labels()
    wrong[13, 25, 12] = 0
    write_volume(case.predictions["m"], wrong, GRID)
    embedded = embed_case(case, ["m"], budget=PLENTY)
    x, y, z = embedded.focus
    reference, prediction = (volume(e, tmp_path).array[0] for e in (embedded.reference, embedded.predictions["m"]))
    assert np.argwhere(reference != prediction).tolist() == [[z, y, x]]


def test_a_case_that_is_too_large_becomes_coarser_and_says_so(tmp_path):
    case = made_case(tmp_path)
    full = embed_case(case, ["shifted"], budget=PLENTY)
    budget = full.size // 3
    coarse = embed_case(case, ["shifted"], budget=budget)
    assert coarse.size <= budget and len(coarse.notes) == 1 and "coarser" in coarse.notes[0]
    fine, found = volume(full.reference, tmp_path), volume(coarse.reference, tmp_path)
    factors = np.round(np.array(found.geometry.spacing) / GRID.spacing).astype(int)
    assert " x ".join(map(str, factors)) in coarse.notes[0]
    # The finest directions first, and the block of organ stays in its place: its centre moves by under a coarse voxel.
    assert factors[1] > 1 and factors[2] > 1
    assert volume(coarse.image, tmp_path).geometry.shape == found.geometry.shape
    centres = [world(v.geometry, np.argwhere(v.array[0] > 0).mean(axis=0)) for v in (fine, found)]
    assert np.all(np.abs(centres[0] - centres[1]) < np.array(found.geometry.spacing) / 2)


def test_what_cannot_be_made_to_fit_is_said(tmp_path):
    embedded = embed_case(made_case(tmp_path), ["shifted"], budget=300)
    assert not embedded.image and embedded.size == 0 and "does not fit" in embedded.notes[-1]


def test_thin_structures_survive_being_made_coarser(tmp_path):
    case = made_case(tmp_path, shifts={})
    thin = np.zeros(SHAPE, np.uint8)
    thin[4:16, 10:30:2, 20] = 4
    thin[4:16, 11:30:2, 20] = 4
    write_volume(case.reference, thin, GRID)
    coarse = embed_case(case, [], budget=embed_case(case, [], budget=PLENTY).size // 3)
    assert "coarser" in coarse.notes[0] and volume(coarse.reference, tmp_path).array.any()


def test_nothing_of_a_header_comes_along(tmp_path):
    case = made_case(tmp_path, shifts={"m": 0})
    for path in (case.image, case.reference, case.predictions["m"]):
        named = nibabel.load(path)
        named.header["descrip"], named.header["aux_file"] = b"DOE^JANE 1950", b"MRN 123"
        named.header["db_name"] = b"JANE"
        named.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"Jane Doe"))
        nibabel.save(nibabel.Nifti1Image(np.asarray(named.dataobj), named.affine, named.header), path)
        assert b"Jane" in gzip.decompress(path.read_bytes())
    embedded = embed_case(case, ["m"], budget=PLENTY)
    for encoded in (embedded.image, embedded.reference, embedded.predictions["m"]):
        content = gzip.decompress(base64.b64decode(encoded))
        # 348 bytes of header, 4 that say that no more follows, then voxels, which may be any bytes.
        assert len(content) == 352 + math.prod(volume(encoded, tmp_path).geometry.shape)
        assert not any(word in content[:352].upper() for word in (b"JANE", b"DOE", b"MRN"))


def test_maps_in_another_order_of_voxels_are_brought_to_the_reference(tmp_path):
    case = made_case(tmp_path, shifts={"m": 0})
    affine = GRID.affine.copy()
    affine[:3, 3] = world(GRID, (SHAPE[0] - 1, 0, 0))
    affine[:3, 0] *= -1
    write_volume(case.predictions["m"], labels()[::-1], Geometry(SHAPE, affine))
    embedded = embed_case(case, ["m"], budget=PLENTY)
    assert embedded.notes == [] and embedded.predictions["m"] == embedded.reference


@pytest.mark.parametrize("fault", ["missing", "elsewhere"])
def test_without_an_image_labels_are_shown_on_black(tmp_path, fault):
    case = made_case(tmp_path, shifts={"m": 0})
    case.image.unlink()
    if fault == "elsewhere":
        write_volume(case.image, image(), Geometry.from_parts(SHAPE, spacing=GRID.spacing))
    embedded = embed_case(case, ["m"], budget=PLENTY)
    assert embedded.notes == ["No image: its file cannot be read or lies on another grid than the reference."]
    assert not volume(embedded.image, tmp_path).array.any() and volume(embedded.reference, tmp_path).array.any()


def test_without_a_reference_there_is_nothing_to_show(tmp_path):
    case = made_case(tmp_path)
    case.reference.unlink()
    embedded = embed_case(case, ["shifted"], budget=PLENTY)
    assert embedded.size == 0 and embedded.notes[0].startswith("Not shown: the reference of case a cannot be read")


def test_empty_maps_show_the_whole_image(tmp_path):
    case = made_case(tmp_path, shifts={})
    write_volume(case.reference, np.zeros(SHAPE, np.uint8), GRID)
    embedded = embed_case(case, [], budget=PLENTY)
    assert volume(embedded.image, tmp_path).geometry.shape == SHAPE and embedded.labels == []
