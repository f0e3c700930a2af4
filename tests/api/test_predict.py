"""`load_model(...).predict(...)` gives the label map that swinssl_predict writes, voxel for voxel, from any input."""

from __future__ import annotations

import signal
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from support.made_models import make_plans, smooth_noise, write_model

import swinssl
from swinssl.imageio.reader import read_label
from swinssl.inference.model_archive import export_model
from swinssl.inference.postprocessing import Postprocessing, Trial
from swinssl.inference.trained_model import TrainedModel as ModelFolder
from swinssl.preprocessing.plans import Intensity

pytestmark = pytest.mark.filterwarnings("ignore::swinssl.api.model.InputWarning")

# x, y, z to RAS: rotated by 20 degrees about z and 10 about x, 1 x 1.2 x 2.6 mm.
TURNED = nibabel.affines.from_matvec(
    nibabel.eulerangles.euler2mat(z=np.pi / 9, x=np.pi / 18) @ np.diag([1, 1.2, 2.6]), [-30, 12, 40]
)
AFFINES = {
    "RAS": np.diag([1, 1.2, 2.6, 1]),
    "LPS": np.diag([-1, -1.2, 2.6, 1]),
    "oblique": TURNED,
    "axes exchanged": TURNED[:, [2, 0, 1, 3]],
    "flipped and exchanged": TURNED[:, [1, 2, 0, 3]] @ np.diag([-1, 1, -1, 1]),
}
SHAPE_XYZ = (20, 18, 14)


def scan(seed=0, dtype=np.float32):
    """(X, Y, Z), so that no two axes have one length."""
    values = smooth_noise(SHAPE_XYZ, seed=seed)
    return values if dtype == np.float32 else np.round(values * 200).astype(dtype)


def postprocessing(model, *structures):
    """Post-processing that the weights of the model were measured with."""
    trial = Trial(structures=structures, before=0.5, after=0.9, better=3, worse=0, cases=3)
    folds = ModelFolder.open(model).sha256
    Postprocessing(least_gain=0.01, applied=(trial,), fold_sha256=folds).write(model)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Two folds, and post-processing that keeps the largest component of both structures."""
    folder = write_model(
        tmp_path_factory.mktemp("one") / "model", make_plans(spacing=(2, 1, 1), mirror_axes=(2,)), folds=(0, 1)
    )
    postprocessing(folder, "liver")
    return folder


@pytest.fixture(scope="module")
def two_channels(tmp_path_factory):
    intensity = (Intensity(scheme="none"), Intensity(scheme="percentile", low=5, high=95))
    plans = make_plans(channels=2, intensity=intensity, spacing=(2, 1, 1))
    return write_model(tmp_path_factory.mktemp("two") / "model", plans)


@pytest.fixture
def command(typed, tmp_path):
    """The label map that swinssl_predict writes for these files."""

    def run(model, *images, flags=()):
        inputs = [argument for image in images for argument in ("-i", image)]
        out = tmp_path / "by_command.nii.gz"
        done = typed("predict", *inputs, "-o", out, "-m", model, "--device", "cpu", "--overwrite", *flags)
        assert done.code == 0, done.err
        return read_label(out)

    return run


def load(model, **options):
    return swinssl.load_model(model, device="cpu", **options)


def same(prediction, by_command):
    np.testing.assert_array_equal(prediction.labels, by_command.array[0])
    assert prediction.labels.dtype == by_command.array.dtype
    np.testing.assert_allclose(prediction.affine, by_command.geometry.affine, atol=1e-5)
    assert len(np.unique(prediction.labels)) > 1  # else any two maps were equal
    return True


class TestEqualToTheCommand:
    @pytest.mark.parametrize("orientation", AFFINES)
    @pytest.mark.parametrize("dtype", [np.float32, np.int16])
    def test_every_kind_of_input_in_any_storage_order(self, model, command, tmp_path, orientation, dtype):
        affine, path = AFFINES[orientation], tmp_path / "a.nii.gz"
        nibabel.save(nibabel.Nifti1Image(scan(dtype=dtype), affine), path)
        expected, loaded = command(model, path), load(model)
        image = swinssl.read_image(path)
        assert same(loaded.predict(path), expected)
        assert same(loaded.predict(str(path)), expected)
        assert same(loaded.predict([path]), expected)
        assert same(loaded.predict(image), expected)
        assert same(loaded.predict(image.array, affine=image.affine), expected)
        assert same(loaded.predict(image.array[None].astype(np.float64), affine=image.affine), expected)
        assert same(loaded.predict(nibabel.load(path)), expected)
        assert same(loaded.predict(nibabel.Nifti1Image(scan(dtype=dtype), affine)), expected)

    @pytest.mark.parametrize("orientation", AFFINES)
    def test_an_image_of_simpleitk(self, model, command, tmp_path, orientation):
        nibabel.save(nibabel.Nifti1Image(scan(), AFFINES[orientation]), tmp_path / "a.nii.gz")
        image, path = sitk.ReadImage(str(tmp_path / "a.nii.gz")), tmp_path / "a.nrrd"
        sitk.WriteImage(image, str(path))
        assert same(load(model).predict(image), command(model, path))

    def test_an_array_with_a_spacing_is_the_file_of_that_spacing(self, model, command, tmp_path):
        path = tmp_path / "a.nii.gz"
        nibabel.save(nibabel.Nifti1Image(scan(), AFFINES["RAS"]), path)
        assert same(load(model).predict(scan().T, spacing=(2.6, 1.2, 1.0)), command(model, path))

    @pytest.mark.parametrize("orientation", ["RAS", "flipped and exchanged"])
    def test_two_channels_of_which_one_is_stored_otherwise(self, two_channels, command, tmp_path, orientation):
        affine = AFFINES[orientation]
        first, second = nibabel.Nifti1Image(scan(0), affine), nibabel.Nifti1Image(scan(1), affine)
        second = second.as_reoriented(np.array([[2, 1], [0, -1], [1, 1]]))
        paths = [tmp_path / "a_0000.nii.gz", tmp_path / "a_0001.nii.gz"]
        for image, path in zip((first, second), paths, strict=True):
            nibabel.save(image, path)
        expected, loaded = command(two_channels, *paths), load(two_channels)
        image = swinssl.read_image(paths)
        assert image.array.shape == (2, *SHAPE_XYZ[::-1])
        assert same(loaded.predict(paths), expected)
        assert same(loaded.predict(image), expected)
        assert same(loaded.predict(image.array, affine=image.affine), expected)
        assert same(loaded.predict([first, second]), expected)
        pair = [sitk.ReadImage(str(path)) for path in paths]
        np.testing.assert_array_equal(loaded.predict(pair).labels.shape, expected.array.shape[1:])

    def test_scaled_integers_of_a_file_and_of_nibabel(self, model, command, tmp_path):
        path = tmp_path / "a.nii.gz"
        image = nibabel.Nifti1Image(scan(dtype=np.int16), TURNED)
        image.header.set_slope_inter(0.013, 0.37)
        nibabel.save(image, path)
        assert swinssl.read_image(path).array.dtype == np.float32
        assert same(load(model).predict(nibabel.load(path)), command(model, path))

    def test_post_processing_changes_something_and_can_be_left_out(self, model, command, tmp_path):
        path = tmp_path / "a.nii.gz"
        nibabel.save(nibabel.Nifti1Image(scan(), TURNED), path)
        cleaned, raw = load(model), load(model, postprocessing=False)
        assert cleaned.postprocessing == (("liver",),) and raw.postprocessing == ()
        assert (cleaned.predict(path).labels != raw.predict(path).labels).any()
        assert same(cleaned.predict(path), command(model, path))
        assert same(raw.predict(path), command(model, path, flags=["--no-postprocessing"]))

    @pytest.mark.parametrize("folds", [None, 1, "0", ["1", 0]])
    def test_folds(self, model, command, tmp_path, folds):
        path = tmp_path / "a.nii.gz"
        nibabel.save(nibabel.Nifti1Image(scan(), TURNED), path)
        several = folds if isinstance(folds, list) else [folds]
        flags = [] if folds is None else ["--folds", ",".join(map(str, several))]
        loaded = load(model, folds=folds)
        assert loaded.folds == (("0", "1") if folds is None else tuple(map(str, several)))
        assert same(loaded.predict(path), command(model, path, flags=flags))

    def test_options_and_probabilities(self, model, command, tmp_path):
        path = tmp_path / "a.nii.gz"
        nibabel.save(nibabel.Nifti1Image(scan(), TURNED), path)
        flags = ["--tta", "--overlap", "0.3", "--save-probabilities", "--precision", "fp32"]
        expected = command(model, path, flags=flags)
        prediction = load(model, tta=True, overlap=0.3, precision="fp32").predict(path, probabilities=True)
        assert same(prediction, expected)
        stored = np.load(tmp_path / "by_command.npz")["probabilities"]
        np.testing.assert_array_equal(prediction.probabilities, stored)
        assert load(model).predict(path).probabilities is None

    def test_a_fold_folder_and_an_archive(self, model, command, tmp_path):
        path = tmp_path / "a.nii.gz"
        nibabel.save(nibabel.Nifti1Image(scan(), TURNED), path)
        archive = tmp_path / "model.zip"
        export_model(ModelFolder.open(model), archive)
        assert same(load(archive).predict(path), command(model, path))
        assert same(load(archive, folds=1).predict(path), command(model, path, flags=["--folds", "1"]))
        assert same(load(model / "fold_1").predict(path), command(model, path, flags=["--folds", "1"]))
        assert load(archive).folder == archive

    def test_the_saved_file_is_the_command_s_to_the_byte(self, model, command, tmp_path):
        path = tmp_path / "a.nii.gz"
        image = nibabel.Nifti1Image(scan(), TURNED)
        image.set_qform(AFFINES["RAS"], 1)  # contradicts the sform: both are kept
        nibabel.save(image, path)
        command(model, path)
        written = load(model).predict(nibabel.load(path)).save(tmp_path / "mine.nii.gz")
        assert written.read_bytes() == (tmp_path / "by_command.nii.gz").read_bytes()
        again = swinssl.write_image(tmp_path / "again.nii.gz", read_label(written).array[0], like=path)
        assert again.read_bytes() == written.read_bytes()

    def test_as_images_of_others(self, model, tmp_path):
        path = tmp_path / "a.nii.gz"
        nibabel.save(nibabel.Nifti1Image(scan(), TURNED), path)
        prediction = load(model).predict(path)
        assert prediction.to_nibabel().shape == SHAPE_XYZ
        np.testing.assert_array_equal(np.asarray(prediction.to_nibabel().dataobj), prediction.labels.T)
        np.testing.assert_allclose(prediction.to_nibabel().affine, TURNED, atol=1e-5)
        image = prediction.to_simpleitk()
        np.testing.assert_allclose(image.GetOrigin(), sitk.ReadImage(str(path)).GetOrigin(), atol=1e-4)
        np.testing.assert_allclose(image.GetDirection(), sitk.ReadImage(str(path)).GetDirection(), atol=1e-5)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), prediction.labels)


class TestWhatItSays:
    def test_volumes_and_progress(self, model):
        seen = []
        prediction = load(model).predict(scan().T, spacing=(2, 1, 1), progress=lambda *counts: seen.append(counts))
        voxels = np.count_nonzero(prediction.labels == 1)
        assert prediction.volumes_ml["liver"] == pytest.approx(voxels * 2 / 1000)
        assert seen and seen[-1][0] == seen[-1][1]
        assert prediction.spacing == (2, 1, 1)

    def test_what_is_unlike_the_training_data_is_a_warning_and_no_print(self, model, capsys):
        with pytest.warns(swinssl.InputWarning, match=r"voxels of 40 mm along z"):
            prediction = load(model).predict(scan().T, affine=np.diag([40.0, 1, 1, 1]))
        assert any("voxels of 40 mm along z" in line for line in prediction.warnings)
        assert "voxels" in prediction.far
        assert capsys.readouterr() == ("", "")

    def test_an_assumed_orientation_is_a_warning_that_an_affine_avoids(self, model):
        prediction = load(model).predict(scan().T, spacing=(2.6, 1.2, 1.0))
        assert any("are taken to point to superior, anterior and the patient's right" in w for w in prediction.warnings)
        placed = load(model).predict(scan().T, affine=np.diag([2.5, 1.2, 1.0, 1]))
        assert not any("taken to point" in line for line in placed.warnings)
        np.testing.assert_array_equal(placed.labels, prediction.labels)

    def test_a_header_that_contradicts_itself(self, model, tmp_path):
        image = nibabel.Nifti1Image(scan(), AFFINES["LPS"])
        image.set_qform(AFFINES["RAS"], 1)
        nibabel.save(image, tmp_path / "a.nii.gz")
        for given in (tmp_path / "a.nii.gz", swinssl.read_image(tmp_path / "a.nii.gz"), image):
            assert any("sform and qform differ" in line for line in load(model).predict(given).warnings)

    def test_properties(self, model):
        loaded = load(model)
        assert (loaded.channel_names, loaded.spacing) == (("channel 0",), (2, 1, 1))
        assert loaded.labels == {"liver": (1,), "spleen": (2,)} and loaded.dataset_name == "Dataset001_Toy"
        assert loaded.device == "cpu" and loaded.precision in ("fp32", "bf16")


class TestRefusals:
    @pytest.mark.parametrize(
        ("array", "place", "message"),
        [
            (np.zeros((4, 5)), {"spacing": (1, 1, 1)}, r"the array: has the shape \(4, 5\)"),
            (np.zeros((4, 5, 6)), {}, r"the array: no spacing\. Pass spacing=\(z, y, x\) in mm"),
            (np.zeros((1, 5, 6)), {"spacing": (1, 1, 1)}, r"the array: is a 2D image"),
            (np.zeros((2, 4, 5, 6)), {"spacing": (1, 1, 1)}, r"2 channels; the model expects 1 channel: 0000"),
            (np.full((4, 5, 6), np.nan), {"spacing": (1, 1, 1)}, r"NaN, infinite or beyond 1e\+30: 120, the first at"),
            (np.zeros((4, 5, 6), complex), {"spacing": (1, 1, 1)}, r"has voxels of the type complex128"),
            (np.zeros((4, 5, 6)), {"spacing": (1, 1)}, r"spacing is \(1, 1\)\. Pass three sizes"),
            (np.zeros((4, 5, 6)), {"spacing": (1, 0, 1)}, r"Pass three sizes"),
            (np.zeros((4, 5, 6)), {"spacing": (1, 1, np.nan)}, r"Pass three sizes"),
            (np.zeros((4, 5, 6)), {"affine": np.eye(3)}, r"affine is no \(4, 4\) matrix"),
            (np.zeros((4, 5, 6)), {"affine": np.diag([1, 1, 0, 1])}, r"singular"),
            (np.zeros((4, 5, 6)), {"affine": np.eye(4), "spacing": (2, 1, 1)}, r"spacing is 2 x 1 x 1 mm, and affine"),
            (None, {"spacing": (1, 1, 1)}, r"the array: is a NoneType\. Give an array"),
            ({}, {"spacing": (1, 1, 1)}, r"the array: is a dict"),
        ],
    )
    def test_arrays(self, model, array, place, message):
        with pytest.raises(swinssl.UserError, match=message):
            load(model).predict(array, **place)

    def test_files(self, model, two_channels, tmp_path):
        path = tmp_path / "a.nii.gz"
        nibabel.save(nibabel.Nifti1Image(scan(), TURNED), path)
        with pytest.raises(swinssl.UserError, match=r"nothing\.nii\.gz: .*no such file"):
            load(model).predict(tmp_path / "nothing.nii.gz")
        with pytest.raises(swinssl.UserError, match=r"a folder; give the file of one image"):
            load(model).predict(tmp_path)
        with pytest.raises(swinssl.UserError, match=r"the file says where its voxels lie"):
            load(model).predict(path, spacing=(1, 1, 1))
        with pytest.raises(swinssl.UserError, match=r"1 channel; the model expects 2 channels: 0000 \(channel 0\)"):
            load(two_channels).predict(path)
        with pytest.raises(swinssl.UserError, match=r"Leave out spacing and affine"):
            load(model).predict(nibabel.load(path), spacing=(1, 1, 1))
        with pytest.raises(swinssl.UserError, match=r"the Nifti1Image: has 3 volumes"):
            load(model).predict(nibabel.Nifti1Image(np.zeros((4, 5, 6, 3)), np.eye(4)))

    def test_models(self, model, tmp_path):
        with pytest.raises(swinssl.UserError, match=r"no such folder"):
            load(tmp_path / "none")
        with pytest.raises(swinssl.UserError, match=r"no such file"):
            load(tmp_path / "none.zip")
        with pytest.raises(swinssl.UserError, match=r"swinsslPlans\.json: a file\. Give the folder"):
            load(model / "swinsslPlans.json")
        with pytest.raises(swinssl.UserError, match=r"fold_7: this fold does not exist. Complete folds: 0, 1"):
            load(model, folds=7)
        with pytest.raises(swinssl.UserError, match=r"overlap=2: expected a share"):
            load(model, overlap=2)


class TestNeighbours:
    """What else runs in the process is left alone."""

    def test_threads_may_predict_at_once(self, model):
        loaded = load(model)
        scans = [scan(seed).T for seed in range(4)]
        alone = [loaded.predict(image, affine=np.diag([2.5, 1.2, 1, 1])).labels for image in scans]
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda image: loaded.predict(image, affine=np.diag([2.5, 1.2, 1, 1])), scans * 3))
        for number, prediction in enumerate(together):
            np.testing.assert_array_equal(prediction.labels, alone[number % 4])

    def test_no_state_of_the_process_changes(self, model):
        torch.manual_seed(5)
        np.random.seed(5)  # the global state is what is tested

        def state():
            handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
            settings = torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype()
            numbers = torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()
            return (
                handlers,
                settings,
                numbers,
                torch.multiprocessing.get_start_method(allow_none=True),
                warnings.filters,
            )

        before, threads = state(), threading.active_count()
        load(model).predict(scan().T, affine=np.eye(4))
        assert state() == before and threading.active_count() == threads

    def test_the_input_is_left_alone(self, model):
        array = scan().T.copy()
        before = array.copy()
        load(model).predict(array, affine=np.eye(4))
        np.testing.assert_array_equal(array, before)
