"""The fingerprint against straightforward computations, and against nnU-Net's own numbers."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import nibabel
import numpy as np
import pytest
from support.raw_folders import describe, make_raw

from swinssl.core.errors import UserError
from swinssl.dataset.raw_dataset import RawDataset
from swinssl.imageio.volume import Geometry
from swinssl.imageio.writer import write_volume
from swinssl.preprocessing import fingerprint_extraction as module
from swinssl.preprocessing.fingerprint import FINGERPRINT_FILE, Fingerprint
from swinssl.preprocessing.fingerprint_extraction import current_fingerprint, extract_fingerprint

# Of a statistic that is compared with draws: one comparison in 16,000 fails by chance.
STANDARD_ERRORS = 4
GRID = ((4, 10, 10), (2.0, 1.0, 1.0))


class EqualMixture:
    """The distribution of nnU-Net's pool: a case first, each as likely, then one of its values.

    nnU-Net 2.8.1 draws 10^8 values with replacement, equally many from each case's foreground. A statistic of `draws`
    such values has the standard error of stratified sampling: from the variances within the cases alone.
    """

    def __init__(self, cases):
        self.cases = [np.sort(np.asarray(values, np.float64)) for values in cases]
        self.mean = np.mean([values.mean() for values in self.cases])
        self.std = np.sqrt(np.mean([np.mean((values - self.mean) ** 2) for values in self.cases]))

    def mean_error(self, draws):
        return self._error([values.var() for values in self.cases], draws)

    def std_error(self, draws):
        """By the delta method, from that of the variance."""
        return self._error([((values - self.mean) ** 2).var() for values in self.cases], draws) / (2 * self.std)

    def ranks(self, value):
        """Shares of the mixture strictly below `value`, and up to it: apart where many voxels have this value."""
        return [
            np.mean([np.searchsorted(values, value, side) / values.size for values in self.cases])
            for side in ("left", "right")
        ]

    def rank_error(self, value, draws):
        shares = np.array([np.mean(values <= value) for values in self.cases])
        return self._error(shares * (1 - shares), draws)

    def _error(self, variances, draws):
        return math.sqrt(np.mean(variances) / draws)

    def assert_has(self, found, *, draws=math.inf, slack=0.0):
        """`found` are its statistics, but for the errors of `draws` and a `slack` in rank.

        Beyond the largest rank error a quantile may lie between two neighbouring values of the cases.
        """
        value = found if isinstance(found, dict) else found.model_dump()
        rounding = 1e-6 * self.std  # nnU-Net's draws and sums are float32
        assert value["min"] == min(values[0] for values in self.cases)
        assert value["max"] == max(values[-1] for values in self.cases)
        assert abs(value["mean"] - self.mean) <= STANDARD_ERRORS * self.mean_error(draws) + rounding
        assert abs(value["std"] - self.std) <= STANDARD_ERRORS * self.std_error(draws) + rounding
        neighbour = 1 / (len(self.cases) * min(values.size for values in self.cases))
        for key, rank in {"percentile_00_5": 0.005, "median": 0.5, "percentile_99_5": 0.995}.items():
            below, up_to = self.ranks(value[key])
            apart = STANDARD_ERRORS * self.rank_error(value[key], draws) + neighbour + slack
            assert below - apart <= rank <= up_to + apart, (key, value[key], below, up_to)


def write_case(folder, name, image, label=None, *, spacing=GRID[1], direction=None):
    channels = image if image.ndim == 4 else image[None]
    grid = Geometry.from_parts(channels.shape[1:], spacing=spacing, direction=direction)
    for number, channel in enumerate(channels):
        write_volume(folder / "imagesTr" / f"{name}_{number:04d}.nii.gz", channel, grid)
    if label is not None:
        write_volume(folder / "labelsTr" / f"{name}.nii.gz", label.astype(np.uint8), grid)


def measured(folder: Path, **options) -> Fingerprint:
    return extract_fingerprint(RawDataset.load(folder), **{"workers": 0, **options})


def skewed(seed, voxels, *, scale):
    return np.round(np.random.default_rng(seed).gamma(2.0, scale, voxels), 2).astype(np.float32)


@pytest.fixture
def skewed_cases(tmp_path):
    """Three cases whose foregrounds differ in size and level; gives (folder, foreground values a case)."""
    foregrounds = [skewed(i, voxels, scale=scale) for i, (voxels, scale) in enumerate([(350, 5), (60, 90), (200, 20)])]
    for i, values in enumerate(foregrounds):
        image, label = np.full(GRID[0], -7, np.float32), np.zeros(GRID[0])
        image.flat[20 : 20 + values.size], label.flat[20 : 20 + values.size] = values, 1 + i % 2
        write_case(tmp_path, f"c{i}", image, label)
    describe(tmp_path)
    return tmp_path, foregrounds


class TestIntensities:
    def test_are_those_of_nnunets_draw(self, skewed_cases):
        folder, foregrounds = skewed_cases
        found = measured(folder).intensities[0]
        EqualMixture(foregrounds).assert_has(found)

        draws, random = 300_000, np.random.default_rng(0)
        pool = np.concatenate([random.choice(values, draws // 3) for values in foregrounds])
        low, median, high = np.percentile(pool, [0.5, 50, 99.5])
        drawn = {"min": pool.min(), "max": pool.max(), "mean": pool.mean(), "std": pool.std()}
        drawn |= {"percentile_00_5": low, "median": median, "percentile_99_5": high}
        EqualMixture(foregrounds).assert_has(drawn, draws=draws)

    def test_a_large_case_weighs_as_much_as_a_small_one(self, tmp_path):
        for name, voxels, value in (("few", 10, 0), ("many", 390, 100)):
            label = np.zeros(GRID[0])
            label.flat[:voxels] = 1
            write_case(tmp_path, name, np.where(label, value, 30).astype(np.int16), label)
        describe(tmp_path)
        found = measured(tmp_path).intensities[0]
        assert (found.mean, found.std, found.min, found.max) == (50, 50, 0, 100)
        assert (found.percentile_00_5, found.percentile_99_5) == (0, 100)

    def test_channels_have_their_own(self, tmp_path):
        random = np.random.default_rng(0)
        image, label = random.integers(1, 1000, (2, *GRID[0])).astype(np.int16), random.random(GRID[0]) < 0.5
        write_case(tmp_path, "a", image, label)
        describe(tmp_path, channels=2)
        found = measured(tmp_path)
        assert list(found.foreground_intensity_properties_per_channel) == ["0", "1"]
        for channel, own in zip(image, found.intensities, strict=True):
            EqualMixture([channel[label]]).assert_has(own)

    def test_percentiles_of_many_voxels_are_off_by_half_a_rank_at_most(self, skewed_cases, monkeypatch):
        folder, foregrounds = skewed_cases
        monkeypatch.setattr(module, "MOST_RANKS", 50)
        monkeypatch.setattr(module, "LEAST_RANKS", 50)
        EqualMixture(foregrounds).assert_has(measured(folder).intensities[0], slack=1 / (2 * 50))

    def test_of_very_many_voxels_only_percentiles_are_drawn_and_always_the_same(self, skewed_cases, monkeypatch):
        folder, foregrounds = skewed_cases
        exact = measured(folder).intensities[0]
        monkeypatch.setattr(module, "MOST_SORTED", 40)
        found = measured(folder).intensities[0]
        assert found == measured(folder).intensities[0] != exact
        for name in ("min", "max", "mean", "std"):
            assert getattr(found, name) == getattr(exact, name)
        below, up_to = EqualMixture(foregrounds).ranks(found.median)
        apart = STANDARD_ERRORS * math.sqrt(0.25 / 40 / len(foregrounds))
        assert below - apart <= 0.5 <= up_to + apart

    def test_ignored_voxels_and_cases_without_foreground_count_nothing(self, tmp_path):
        image = np.full(GRID[0], 5, np.int16)
        image[0], image[1] = 10, 5000
        label = np.zeros(GRID[0])
        label[0], label[1] = 1, 3
        write_case(tmp_path, "seen", image, label)
        write_case(tmp_path, "empty", image, np.zeros(GRID[0]))
        describe(tmp_path, labels={"background": 0, "liver": 1, "tumour": 2, "ignore": 3})
        found = measured(tmp_path)
        assert (found.intensities[0].min, found.intensities[0].max, found.intensities[0].mean) == (10, 10, 10)
        assert [case.id for case in found.swinssl.cases] == ["empty", "seen"]
        assert found.swinssl.cases[0].structures == {}

    def test_without_any_foreground_they_are_zero_as_nnunets(self, tmp_path):
        write_case(tmp_path, "a", np.full(GRID[0], 5, np.int16), np.zeros(GRID[0]))
        describe(tmp_path)
        assert {*measured(tmp_path).intensities[0].model_dump().values()} == {0.0}

    def test_without_labels_the_non_zero_voxels_count(self, tmp_path):
        image = np.zeros(GRID[0], np.int16)
        image[1:3, 2:8, 2:8] = 40
        image[1, 4, 4] = 100
        write_case(tmp_path, "a", image)
        describe(tmp_path, labelled=False)
        found = measured(tmp_path)
        assert not found.annotated and found.swinssl.cases[0].structures is None
        assert (found.intensities[0].min, found.intensities[0].max) == (40, 100)
        assert found.intensities[0].mean == pytest.approx((71 * 40 + 100) / 72)


class TestShapes:
    def test_are_those_of_the_non_zero_box_and_the_median_share_is_told(self, tmp_path):
        inner = [(2, 5, 5), (4, 10, 10), (3, 8, 6)]
        for i, (z, y, x) in enumerate(inner):
            image = np.zeros(GRID[0], np.int16)
            image[:z, :y, :x] = 9
            image[0, 1, 1] = 0
            write_case(tmp_path, f"c{i}", image, image > 0)
        describe(tmp_path)
        found = measured(tmp_path)
        assert found.shapes_after_crop == tuple(inner) and found.spacings == (GRID[1],) * 3
        assert found.median_relative_size_after_cropping == 3 * 8 * 6 / 400
        assert [case.source_shape for case in found.swinssl.cases] == [GRID[0]] * 3
        assert found.swinssl.cases[0].zero_share == (1 / 50,)

    def test_do_not_depend_on_the_storage_order(self, tmp_path):
        """A file whose fastest axis runs from head to foot is measured as if it lay as usual."""
        random = np.random.default_rng(1)
        image = random.integers(1, 100, (4, 10, 12)).astype(np.int16)
        write_case(tmp_path / "usual", "a", image, image > 50, spacing=(3.0, 1.0, 2.0))
        turned = np.ascontiguousarray(image.transpose(2, 1, 0)[:, :, ::-1])
        direction = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])  # columns: x, y, z of the array in the patient
        write_case(tmp_path / "turned", "a", turned, turned > 50, spacing=(2.0, 1.0, 3.0), direction=direction)
        for name in ("usual", "turned"):
            describe(tmp_path / name)
        usual, other = (measured(tmp_path / name) for name in ("usual", "turned"))
        assert usual.shapes_after_crop == other.shapes_after_crop == ((4, 10, 12),)
        assert usual.spacings == ((3.0, 1.0, 2.0),)
        np.testing.assert_allclose(other.spacings, usual.spacings, rtol=1e-6)
        for one, another in zip(usual.intensities, other.intensities, strict=True):
            assert another.model_dump() == pytest.approx(one.model_dump(), rel=1e-12)

    def test_median_shape_is_rounded_a_case_before_the_median(self, tmp_path):
        for i, z in enumerate((2, 3, 4)):
            write_case(tmp_path, f"c{i}", np.ones((z, 10, 10), np.int16), np.ones((z, 10, 10)))
        describe(tmp_path)
        # Extents of 4, 6 and 8 mm are 0.8, 1.2 and 1.6 voxels of 5 mm: 1, 1 and 2.
        assert measured(tmp_path).median_shape((5.0, 1.0, 1.0)) == (1, 10, 10)


class TestStructures:
    def facts(self, folder, label, **description):
        write_case(folder, "a", np.ones(label.shape, np.int16), label)
        describe(folder, **description)
        return measured(folder).swinssl.cases[0]

    def test_voxels_volumes_and_pieces(self, tmp_path):
        label = np.zeros(GRID[0])
        label[0, 0, 0:3] = 2  # three voxels, and one that touches them at a corner only
        label[1, 1, 3] = 2
        label[3, 7:9, 7:9] = 2  # four, apart
        label[0, 9, 9] = 2
        label[2, :, :5] = 1
        case = self.facts(tmp_path, label)
        tumour, liver = case.structures["tumour"], case.structures["liver"]
        assert (tumour.voxels, tumour.components) == (9, 3)
        assert (tumour.volume_mm3, tumour.largest_mm3) == (18.0, 8.0)  # a voxel has 2 mm3
        assert (liver.voxels, liver.components, liver.largest_mm3) == (50, 1, 100.0)
        assert case.annotated is None and not case.lacks("tumour")

    def test_a_region_holds_the_values_of_all_its_parts(self, tmp_path):
        label = np.zeros(GRID[0])
        label[1, 2:5, 2:5] = 1
        label[1, 3, 3] = 2
        case = self.facts(
            tmp_path, label, labels={"background": 0, "whole": [1, 2], "core": [2]}, regions_class_order=[1, 2]
        )
        assert {name: own.voxels for name, own in case.structures.items()} == {"whole": 9, "core": 1}
        assert case.structures["whole"].components == 1

    def test_what_nobody_looked_for_is_not_lacking(self, tmp_path):
        label = np.zeros(GRID[0])
        label[1, 1, 1] = 1
        case = self.facts(tmp_path, label, labels_present={"a": ["liver"]})
        assert case.annotated == ("liver",)
        assert not case.lacks("tumour") and not case.lacks("liver")
        (tmp_path / "all").mkdir()
        assert self.facts(tmp_path / "all", label).lacks("tumour")


class TestWork:
    @pytest.fixture
    def raw(self, tmp_path):
        return make_raw(tmp_path / "Dataset007_Toy")

    def test_any_number_of_processes_gives_the_same_bytes(self, raw):
        assert measured(raw, workers=0).model_dump_json() == measured(raw, workers=2).model_dump_json()

    def test_what_is_unchanged_is_not_measured_again(self, raw, tmp_path, monkeypatch):
        measured(raw).write(tmp_path / FINGERPRINT_FILE)
        (raw / "imagesTr" / "case_0_0000.nii.gz").touch()  # contents count, not dates
        monkeypatch.setattr(module, "extract_fingerprint", None)
        stored, anew = current_fingerprint(RawDataset.load(raw), tmp_path, workers=0)
        assert not anew and stored == Fingerprint.read(tmp_path)

    @pytest.mark.parametrize("change", ["image", "label", "description", "labels_present", "case_less", "version"])
    def test_what_changed_is_measured_again(self, raw, tmp_path, monkeypatch, change):
        measured(raw).write(tmp_path / FINGERPRINT_FILE)
        before = Fingerprint.read(tmp_path)
        image, label = raw / "imagesTr" / "case_1_0000.nii.gz", raw / "labelsTr" / "case_1.nii.gz"
        if change == "image":
            image.write_bytes((raw / "imagesTr" / "case_0_0000.nii.gz").read_bytes())
        elif change == "label":
            label.write_bytes((raw / "labelsTr" / "case_0.nii.gz").read_bytes())
        elif change == "description":
            describe(raw, labels={"background": 0, "tumour": 2, "organ": 1})
        elif change == "labels_present":
            describe(raw, labels_present={"case_1": ["liver"]})
        elif change == "case_less":
            image.unlink()
            label.unlink()
        else:
            monkeypatch.setattr(module, "FINGERPRINT_VERSION", 99)
        found, anew = current_fingerprint(RawDataset.load(raw), tmp_path, workers=0)
        assert anew and found.swinssl.content_hash != before.swinssl.content_hash
        assert Fingerprint.read(tmp_path) == before  # measuring writes nothing

    @pytest.mark.parametrize("content", ["", "{}", "[]", '{"spacings": [[1, 1, 1]]}'])
    def test_another_programs_or_a_damaged_fingerprint_is_replaced(self, raw, tmp_path, content):
        (tmp_path / FINGERPRINT_FILE).write_text(content)
        assert current_fingerprint(RawDataset.load(raw), tmp_path, workers=0)[1]
        with pytest.raises(UserError, match=r"dataset_fingerprint\.json.*swinssl_plan"):
            Fingerprint.read(tmp_path)

    def test_bad_cases_are_all_named_at_once(self, raw):
        truncated, other_grid = raw / "imagesTr" / "case_0_0000.nii.gz", raw / "labelsTr" / "case_2.nii.gz"
        truncated.write_bytes(truncated.read_bytes()[:200])
        write_volume(other_grid, np.ones((3, 3, 3), np.uint8), Geometry.from_parts((3, 3, 3), spacing=(1, 1, 1)))
        with pytest.raises(UserError) as error:
            measured(raw)
        message = str(error.value)
        assert message.startswith("2 of 3 cases cannot be measured: ")
        assert str(truncated) in message and str(other_grid) in message and "case_1" not in message
        assert "swinssl_check" in message and "Traceback" not in message

    def test_without_labels_the_cases_that_can_be_read_will_do(self, raw, caplog):
        for label in (raw / "labelsTr").iterdir():
            label.unlink()
        whole = measured(raw)
        images = sorted((raw / "imagesTr").iterdir())
        images[0].write_bytes(images[0].read_bytes()[:200])
        found = measured(raw)
        assert found.swinssl.cases == whole.swinssl.cases[1:] and found.spacings == whole.spacings[1:]
        assert "1 of 3 cases cannot be measured" in caplog.text and str(images[0]) in caplog.text
        for image in images[1:]:
            image.write_bytes(b"")
        with pytest.raises(UserError, match="3 of 3 cases cannot be measured"):
            measured(raw)

    def test_values_that_are_no_numbers_or_undeclared_name_their_file(self, raw):
        image = np.full(GRID[0], np.nan, np.float32)
        write_case(raw, "case_0", image, np.zeros(GRID[0]))
        write_case(raw, "case_1", np.ones(GRID[0], np.int16), np.full(GRID[0], 7))
        with pytest.raises(UserError) as error:
            measured(raw)
        assert "imagesTr/case_0_0000.nii.gz: has voxels that are NaN" in str(error.value)
        assert "labelsTr/case_1.nii.gz: values 7 are not declared; declared are 0, 1, 2" in str(error.value)

    def test_the_file_has_nnunets_keys_and_one_more(self, raw, tmp_path):
        found = measured(raw)
        found.write(tmp_path / FINGERPRINT_FILE)
        content = json.loads((tmp_path / FINGERPRINT_FILE).read_text())
        assert content.keys() == {
            "foreground_intensity_properties_per_channel",
            "median_relative_size_after_cropping",
            "shapes_after_crop",
            "spacings",
            "swinssl",
        }
        assert content["foreground_intensity_properties_per_channel"]["0"].keys() == {
            *("max", "mean", "median", "min", "percentile_00_5", "percentile_99_5", "std")
        }
        assert Fingerprint.read(tmp_path) == found


# What nnU-Net 2.8.1 wrote for the 200 public cases of Dataset004_Hippocampus.
NNUNET = {
    "max": 486420.21875,
    "mean": 21078.044921875,
    "median": 358.8274841308594,
    "min": 0.0,
    "percentile_00_5": 28.0,
    "percentile_99_5": 270633.3125,
    "std": 58782.15234375,
}
NNUNET_DRAWS = 100_000_000
NNUNET_SHAPES_SHA256 = "a420a12a62f2822935302d2243b8a6ea0c213905a796b54a6b702c1946472413"


def test_hippocampus_equals_nnunets_within_its_sampling_error(shared_data):
    raw = RawDataset.load(shared_data / "raw" / "Dataset004_Hippocampus")
    assert len(raw.cases) == 200
    found = extract_fingerprint(raw, workers=0)
    mixture = EqualMixture([_foreground(case) for case in raw.cases])
    mixture.assert_has(found.intensities[0])
    mixture.assert_has(NNUNET, draws=NNUNET_DRAWS)

    assert found.median_relative_size_after_cropping == 1.0
    assert {*found.spacings} == {(1.0, 1.0, 1.0)}
    assert hashlib.sha256(json.dumps(found.shapes_after_crop).encode()).hexdigest() == NNUNET_SHAPES_SHA256


def _foreground(case):
    image, label = (np.asarray(nibabel.load(path).dataobj) for path in (case.images[0], case.label))
    return image[label > 0]
