"""Phantom abdomens: reproducible, anatomically where they belong, different from case to case, and a valid data set."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import ndimage

from swinssl.dataset.phantom.anatomy import LABELS
from swinssl.dataset.phantom.dataset import ORIENTATIONS, phantom_case, write_phantom_dataset
from swinssl.dataset.phantom.space import BentSpace, blended, in_one_piece, smooth_field

CASES = 10


@pytest.fixture(scope="module")
def cases():
    """Image, label and its geometry of ten patients."""
    return [phantom_case(3, index) for index in range(CASES)]


def world_centre(volume, value):
    """Mean world place (z, y, x) of a label in mm."""
    index = np.argwhere(volume.array[0] == value).mean(0)
    return (volume.geometry.affine @ [*index, 1.0])[:3]


def test_a_case_is_a_function_of_seed_and_index(cases):
    image, label = phantom_case(3, 4)
    np.testing.assert_array_equal(image.array, cases[4][0].array)
    np.testing.assert_array_equal(label.array, cases[4][1].array)
    np.testing.assert_array_equal(image.geometry.affine, cases[4][0].geometry.affine)
    other_seed, other_index = phantom_case(4, 4)[0], cases[5][0]
    for other in (other_seed, other_index):
        assert other.array.shape != image.array.shape or not np.array_equal(other.array, image.array)


def test_image_and_label_share_a_small_grid_in_hu(cases):
    for image, label in cases:
        assert image.array.dtype == np.int16 and label.array.dtype == np.uint8
        assert image.geometry is label.geometry
        assert image.array.shape[0] == 1 and image.array.size < 1_000_000
        assert -1024 <= image.array.min() < -950 and image.array.max() < 1000


def test_every_organ_is_there_in_one_piece_and_of_plausible_volume(cases):
    volumes_ml = {"liver": (300, 1100), "spleen": (8, 150), "kidney_left": (60, 200), "kidney_right": (60, 200)}
    for _, label in cases:
        for name, (low, high) in volumes_ml.items():
            mask = label.array[0] == LABELS[name]
            assert low < mask.sum() * label.geometry.voxel_volume / 1000 < high, name
            assert ndimage.label(mask, np.ones((3, 3, 3)))[1] == 1, name


def test_four_of_five_have_one_tumour_inside_the_liver(cases):
    having = [(label.array == LABELS["liver_tumour"]).any() for _, label in cases]
    assert having == [index % 5 != 4 for index in range(CASES)]
    for _, label in cases:
        tumour, liver = (label.array[0] == LABELS[name] for name in ("liver_tumour", "liver"))
        assert ndimage.label(tumour)[1] <= 1
        assert ndimage.label(tumour | liver, np.ones((3, 3, 3)))[1] == 1
        around = ndimage.binary_dilation(tumour) & ~tumour
        # A tumour may reach the liver's surface, but most of what touches it is liver.
        assert not around.any() or (liver & around).sum() > 0.7 * around.sum()


def test_left_is_the_patient_s_left_and_up_is_up(cases):
    for _, label in cases:
        place = {name: world_centre(label, LABELS[name]) for name in LABELS if name != "liver_tumour"}
        assert place["kidney_left"][2] < -20 and place["kidney_right"][2] > 20
        assert place["spleen"][2] < -20 and place["liver"][2] > 20
        assert place["liver"][0] > place["kidney_right"][0]
        assert place["liver"][1] > place["kidney_right"][1]


def test_tissues_have_their_hu(cases):
    for image, label in cases:
        hu = {
            name: np.median(image.array[label.array == value])
            for name, value in LABELS.items()
            if name != "liver_tumour"
        }
        assert 35 < hu["liver"] < 125 and 30 < hu["spleen"] < 140
        assert all(15 < hu[kidney] < 200 for kidney in ("kidney_left", "kidney_right"))
        values = image.array
        assert (values < -940).mean() > 0.1, "air around the patient"
        assert ((values > -150) & (values < -60)).mean() > 0.03, "fat"
        assert (values > 250).mean() > 0.001, "bone"


def test_a_tumour_is_darker_than_the_liver_but_not_by_much(cases):
    for image, label in cases:
        tumour, liver = (image.array[label.array == LABELS[name]] for name in ("liver_tumour", "liver"))
        if tumour.size:
            assert 5 < np.median(liver) - np.median(tumour) < 80


def test_contrast_phase_noise_and_size_differ_between_cases(cases):
    livers = [image.array[label.array == LABELS["liver"]] for image, label in cases]
    medians = [np.median(values) for values in livers]
    assert max(medians) - min(medians) > 20
    assert max(values.std() for values in livers) > 1.3 * min(values.std() for values in livers)
    sizes = [values.size * label.geometry.voxel_volume for values, (_, label) in zip(livers, cases, strict=True)]
    assert max(sizes) > 1.2 * min(sizes)


def test_grids_differ_in_shape_spacing_and_storage_order(cases):
    geometries = [image.geometry for image, _ in cases]
    assert len({g.shape for g in geometries}) > CASES // 2
    assert len({g.spacing for g in geometries}) > CASES // 2
    assert len({g.canonical_map() for g in geometries}) >= 3
    tilted = [g for g in geometries if np.count_nonzero(np.abs(g.affine[:3, :3]) > 1e-9) > 3]
    assert 0 < len(tilted) < CASES


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_storage_orders_are_those_that_nibabel_names(codes):
    import nibabel

    from swinssl.imageio.volume import Geometry, reversed_axes

    stored = Geometry.from_parts((4, 5, 6), spacing=(3.0, 2.0, 1.0)).mapped(ORIENTATIONS[codes])
    assert "".join(nibabel.aff2axcodes(reversed_axes(stored.affine))) == codes


class TestDataset:
    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory):
        folder = tmp_path_factory.mktemp("phantoms") / "Dataset900_Phantom"
        write_phantom_dataset(folder, cases=2, test_cases=1, seed=3)
        return folder

    def test_it_has_nnunet_s_layout(self, folder):
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        assert files == [
            "dataset.json",
            "imagesTr/phantom_000_0000.nii.gz",
            "imagesTr/phantom_001_0000.nii.gz",
            "imagesTs/phantom_002_0000.nii.gz",
            "labelsTr/phantom_000.nii.gz",
            "labelsTr/phantom_001.nii.gz",
            "labelsTs/phantom_002.nii.gz",
        ]
        description = json.loads((folder / "dataset.json").read_text())
        assert description["labels"] == {"background": 0, **LABELS}
        assert description["numTraining"] == 2 and description["channel_names"] == {"0": "CT"}

    def test_what_is_read_is_what_was_made(self, folder, cases):
        import nibabel

        for name, volume in (("imagesTs/phantom_002_0000", cases[2][0]), ("labelsTs/phantom_002", cases[2][1])):
            read = nibabel.load(folder / f"{name}.nii.gz")
            np.testing.assert_array_equal(np.asarray(read.dataobj).T, volume.array[0])
            order = [2, 1, 0, 3]
            np.testing.assert_allclose(read.affine[np.ix_(order, order)], volume.geometry.affine, atol=1e-4)

    def test_the_check_finds_neither_error_nor_warning(self, folder):
        from swinssl.dataset.checks.dataset_check import check_dataset

        found = check_dataset(folder, workers=0).findings
        assert [str(finding) for finding in found if finding.severity != "note"] == []

    def test_left_and_right_are_known_to_be_sides(self, folder):
        from swinssl.dataset.raw_dataset import RawDataset

        labels = RawDataset.load(folder).labels
        assert labels.laterality
        assert dict(zip(labels.names, labels.tumour_like, strict=True))["liver_tumour"]


class TestSpace:
    def straight(self):
        return BentSpace((31, 41, 51), (2.0, 1.0, 1.5), bend=0.0, draws=np.random.default_rng(0))

    def test_an_ellipsoid_has_its_volume_and_its_surface_is_at_distance_zero(self):
        space = self.straight()
        distance = space.ellipsoid((4.0, -2.0, 3.0), (15.0, 12.0, 20.0))
        assert (distance < 0).sum() * 3.0 == pytest.approx(4 / 3 * np.pi * 15 * 12 * 20, rel=0.02)
        sphere = space.ellipsoid((0.0, 0.0, 0.0), (10.0,) * 3)
        exact = np.sqrt(space.z**2 + space.y**2 + space.x**2) - 10
        np.testing.assert_allclose(sphere, exact, atol=1e-3)

    def test_a_box_is_a_view_of_the_voxels_around_a_point(self):
        space = self.straight()
        box = space.box((0.0, 5.0, -6.0), 8.0)
        part = space[box]
        inside = space.ellipsoid((0.0, 5.0, -6.0), (8.0,) * 3) < 0
        assert inside.sum() == (part.ellipsoid((0.0, 5.0, -6.0), (8.0,) * 3) < 0).sum()
        assert np.shares_memory(part.z, space.z) and part.shape == part.z.shape < space.shape

    def test_bending_moves_points_by_what_was_asked(self):
        bent = BentSpace((31, 41, 51), (2.0, 1.0, 1.5), bend=4.0, draws=np.random.default_rng(0))
        moved = bent.x - self.straight().x
        assert np.sqrt(np.mean(moved**2)) == pytest.approx(4.0, rel=1e-3)

    def test_a_smooth_field_is_normed_and_smooth(self):
        field = smooth_field((40, 50, 60), modes=4, draws=np.random.default_rng(0))
        assert field.dtype == np.float32 and np.mean(field**2) == pytest.approx(1.0, rel=1e-3)
        # The fastest of four modes has three half-waves over the axis: its steps have a root mean square of 3 pi / n.
        for axis, n in enumerate(field.shape):
            assert np.sqrt(np.mean(np.diff(field, axis=axis) ** 2)) < 3 * np.pi / n

    def test_blending_joins_shapes_without_a_crease(self):
        a, b = np.float32([-3, 1, 8, 2]), np.float32([9, 1, -3, 30])
        joined = blended(a, b, over=4)
        np.testing.assert_allclose(joined, [-3, 0, -3, 2])  # far apart: the nearer; equal: over / 4 deeper

    def test_only_the_largest_piece_stays(self):
        distance = np.float32([[[-1, -1, 2, -3, 2]]])
        np.testing.assert_array_equal(in_one_piece(distance), [[[-1, -1, 2, 3, 2]]])
