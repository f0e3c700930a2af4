"""Which inputs are warned of, and which are not."""

from __future__ import annotations

import numpy as np
import pytest
from support.made_models import make_plans, smooth_noise, volume_of

from swinssl.imageio.reader import read_channels
from swinssl.inference.input_check import input_warnings
from swinssl.preprocessing.plans import Intensity, IntensityStatistics
from swinssl.preprocessing.prepared_volume import prepare


def statistics(low, high, *, least=None, most=None, median=None):
    """Foreground intensities with these 0.5th and 99.5th percentiles."""
    middle = (low + high) / 2 if median is None else median
    return IntensityStatistics(
        percentile_00_5=low,
        percentile_99_5=high,
        min=low if least is None else least,
        max=high if most is None else most,
        mean=middle,
        median=middle,
        std=(high - low) / 4,
    )


def ct_plans(**changes):
    values = {
        "channel_names": ("CT",),
        "spacing": (3.0, 3.0, 3.0),
        "intensity": (Intensity(scheme="window", low=-100, high=250),),
        "intensity_statistics": (statistics(-100, 250, least=-700, most=1200),),
        "training_spacings": ((2.0, 0.8, 0.8), (3.0, 1.2, 1.2)),
        "training_extent_mm": ((90, 50, 50), (150, 80, 80)),
    }
    return make_plans(**{**values, **changes})


def mr_plans(**changes):
    return ct_plans(
        channel_names=("MR",),
        intensity=(Intensity(scheme="percentile", low=5, high=95),),
        intensity_statistics=(statistics(50, 900, least=0, most=1500),),
        **changes,
    )


def ct(shape=(40, 60, 60), spacing=(2.5, 1.0, 1.0)):
    """Soft tissue in the middle, air around."""
    image = 40 + 30 * smooth_noise(shape)
    image[:, :15] = -1000
    image[5:9, 30:34, 30:34] = 900
    return volume_of(image, spacing)


def mr(shape=(40, 60, 60), spacing=(2.5, 1.0, 1.0)):
    return volume_of(np.clip(400 + 200 * smooth_noise(shape), 0, None), spacing)


def warnings(volume, plans):
    return input_warnings(volume, prepare(volume, plans), plans)


class TestLikeTraining:
    @pytest.mark.parametrize(("volume", "plans"), [(ct(), ct_plans()), (mr(), mr_plans())], ids=["CT", "MR"])
    def test_nothing_is_said(self, volume, plans):
        assert warnings(volume, plans) == ()

    def test_neither_metal_nor_padding_below_air_is_unusual_in_ct(self):
        volume = ct()
        volume.array[0, 10:12, 30:33, 30:33] = 9000
        volume.array[0, :, :, :4] = -3024
        assert warnings(volume, ct_plans()) == ()

    def test_the_scale_of_mr_does_not_matter(self):
        volume = mr()
        volume.array[...] *= 1000
        assert warnings(volume, mr_plans()) == ()


class TestSpacing:
    def test_a_little_coarser_or_finer_is_let_pass(self):
        volume = ct((28, 76, 76), (3.6, 0.8, 0.8))
        assert warnings(volume, ct_plans()) == ()

    def test_coarser_by_over_a_quarter(self):
        (warning,) = warnings(ct((26, 60, 60), (4.0, 1.0, 1.0)), ct_plans())
        assert warning == "voxels of 4 mm along z; trained on 2 to 3 mm"

    def test_finer_by_over_half(self):
        found = warnings(ct((40, 160, 60), (2.5, 0.39, 1.0)), ct_plans())
        assert found == ("voxels of 0.39 mm along y; trained on 0.8 to 1.2 mm",)

    def test_axes_are_the_patients_not_the_files(self):
        volume = ct((26, 60, 60), (4.0, 1.0, 1.0))
        turned = volume_of(volume.array[0].transpose(1, 2, 0), (1.0, 1.0, 4.0), direction=np.eye(3)[[2, 0, 1]])
        assert warnings(turned, ct_plans()) == ("voxels of 4 mm along z; trained on 2 to 3 mm",)


class TestFieldOfView:
    def test_much_larger(self):
        assert warnings(ct((100, 60, 60)), ct_plans()) == ("field of view of 250 mm along z; trained on 90 to 150 mm",)

    def test_much_smaller(self):
        found = warnings(ct((40, 60, 20)), ct_plans())
        assert found == ("field of view of 20 mm along x; trained on 50 to 80 mm",)

    def test_is_that_inside_the_crop(self):
        image = np.zeros((100, 60, 60), np.float32)
        image[30:70] = mr().array[0] + 1
        assert warnings(volume_of(image, (2.5, 1.0, 1.0)), mr_plans(crop_to_nonzero=True)) == ()


class TestIntensities:
    def test_mr_given_to_a_ct_model(self):
        (warning,) = warnings(mr(), ct_plans())
        assert warning.startswith("channel CT: intensities from ") and "an MR image" in warning

    def test_ct_without_its_rescale_intercept(self):
        volume = ct()
        volume.array[...] += 1024
        (warning,) = warnings(volume, ct_plans())
        assert "rescale intercept" in warning

    def test_ct_scaled_to_0_1(self):
        volume = ct()
        volume.array[...] = (volume.array + 1000) / 2000
        (warning,) = warnings(volume, ct_plans())
        assert "a scaled one" in warning

    def test_ct_model_that_was_trained_on_scaled_values_takes_them(self):
        volume = ct()
        volume.array[...] = (volume.array + 1000) / 2000
        assert warnings(volume, ct_plans(intensity_statistics=(statistics(0.45, 0.6, most=1),))) == ()

    def test_the_plan_says_what_the_channel_is_and_not_its_name(self):
        as_ct = {"channel_names": ("T1",), "channel_kinds": ("hounsfield",)}
        assert warnings(ct(), ct_plans(**as_ct)) == ()
        (warning,) = warnings(mr(), ct_plans(**as_ct))
        assert "trained on Hounsfield units" in warning
        as_mr = {"channel_names": ("CT",), "channel_kinds": ("ct_in_another_unit",)}
        shifted = ct()
        shifted.array[...] += 1024
        trained = {"intensity_statistics": (statistics(900, 1300, least=0, most=3000),)}
        assert warnings(shifted, ct_plans(**as_mr, **trained)) == ()

    def test_ct_given_to_an_mr_model(self):
        (warning,) = warnings(ct(), mr_plans())
        assert "look like Hounsfield units; the model was trained on values from 0 upwards" in warning

    def test_constant_image(self):
        (warning,) = warnings(volume_of(np.full((40, 60, 60), 3.0, np.float32), (2.5, 1, 1)), mr_plans())
        assert warning == "channel MR: every voxel is 3, so the image is empty"

    @pytest.mark.parametrize("factor", [0.001, 1000.0])
    def test_another_unit_where_one_window_serves_all_cases(self, factor):
        """PET in Bq/ml instead of SUV, for example."""
        plans = ct_plans(
            channel_names=("PET",),
            intensity=(Intensity(scheme="window", low=0, high=10),),
            intensity_statistics=(statistics(1, 12, least=0, most=30),),
        )
        suv = np.clip(smooth_noise((40, 60, 60)) * 2 + 2, 0, 20)
        assert warnings(volume_of(suv, (2.5, 1, 1)), plans) == ()
        (warning,) = warnings(volume_of(suv * np.float32(factor), (2.5, 1, 1)), plans)
        assert "Check the unit." in warning

    def test_each_channel_is_looked_at_alone(self):
        plans = ct_plans(
            channel_names=("CT", "MR"),
            intensity=(ct_plans().intensity[0], mr_plans().intensity[0]),
            intensity_statistics=(ct_plans().intensity_statistics[0], mr_plans().intensity_statistics[0]),
        )
        both = volume_of(np.concatenate([ct().array, mr().array]), (2.5, 1.0, 1.0))
        swapped = volume_of(both.array[::-1].copy(), (2.5, 1.0, 1.0))
        assert warnings(both, plans) == ()
        assert [warning.split(":")[0] for warning in warnings(swapped, plans)] == ["channel CT", "channel MR"]


class TestRealImages:
    @pytest.mark.parametrize(
        ("path", "is_ct"),
        [
            ("volumes/lung1_image.nrrd", True),
            ("volumes/wholebody_ct.nii.gz", True),
            ("volumes/wholebody_mr.nii.gz", False),
        ],
    )
    def test_ct_and_mr_are_told_apart(self, shared_data, path, is_ct):
        volume = read_channels([shared_data / path])
        for plans, fits in ((ct_plans(), is_ct), (mr_plans(), not is_ct)):
            said = [warning for warning in warnings(volume, plans) if "intensities" in warning]
            assert (said == []) == fits
