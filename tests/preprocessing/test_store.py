"""The store: what is written comes back, in parts, from threads; what is damaged says so."""

from __future__ import annotations

import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor

import blosc2
import numpy as np
import pytest

from swinssl.core.errors import UserError
from swinssl.core.files import sha256_of
from swinssl.dataset.labels import LabelSet
from swinssl.networks.network_plan import NetworkPlan
from swinssl.preprocessing import store
from swinssl.preprocessing.plans import PLANS_FILE, Cost, Intensity, IntensityStatistics, Plans, TrainingPlan
from swinssl.preprocessing.store import (
    CaseProperties,
    PreprocessedCase,
    PreprocessedDataset,
    case_folder,
    content_hash,
    to_half,
    write_case,
)

LABELS = LabelSet(names=("liver", "tumour"), values=((1,), (2,)), ignore_value=3)
SHAPE = (37, 70, 41)  # no axis a multiple of a block, one past a chunk


def plans(**changes):
    statistics = IntensityStatistics(max=1, mean=0.5, median=0.5, min=0, percentile_00_5=0, percentile_99_5=1, std=0.1)
    values = {
        "dataset_name": "Dataset001_Toy",
        "channel_names": ("CT",),
        "labels": LABELS,
        "spacing": (1.0, 1.0, 1.0),
        "patch_size": (32, 32, 32),
        "median_shape": SHAPE,
        "intensity": (Intensity(scheme="window", low=0, high=1),),
        "network": NetworkPlan(),
        "training": TrainingPlan(),
        "cost": Cost(memory_gb=1, step_seconds_cpu=1),
        "training_spacings": ((1, 1, 1), (1, 1, 1)),
        "training_extent_mm": ((1, 1, 1), (1, 1, 1)),
        "intensity_statistics": (statistics,),
    }
    return Plans(**{**values, **changes})


def properties(case_id="case", shape=SHAPE, **changes):
    affine = np.diag([3.0, 1.0, 0.97, 1.0])
    affine[0, 3] = 1 / 3
    values = {
        "case_id": case_id,
        "source_shape": shape,
        "source_affine": tuple(map(tuple, affine.tolist())),
        "crop": ((0, shape[0]), (0, shape[1]), (0, shape[2])),
        "cropped_spacing": (3, 1, 0.97),
        "shape": shape,
        "spacing": (3, 1, 0.97),
        "annotated": True,
    }
    return CaseProperties(**{**values, **changes})


def arrays(seed=0, channels=2):
    rng = np.random.default_rng(seed)
    return rng.random((channels, *SHAPE), np.float32), rng.integers(0, 3, SHAPE).astype(np.uint8)


@pytest.fixture
def written(tmp_path):
    image, label = arrays()
    write_case(tmp_path, properties(), image=image, label=label, labels=LABELS)
    return tmp_path, image, label


class TestRoundTrip:
    @pytest.mark.parametrize("codec", ["lz4", "lz4hc", "zstd"])
    def test_every_codec(self, tmp_path, codec):
        image, label = arrays()
        write_case(tmp_path, properties(), image=image, label=label, labels=LABELS, codec=codec)
        case = PreprocessedCase.open(tmp_path, "case")
        assert np.array_equal(case.label(), label)
        assert np.array_equal(case.image(), to_half(image).astype(np.float32))

    @pytest.mark.parametrize(
        ("largest", "kept_exactly"), [(1e3, False), (-1e3, False), (1000.5, True), (-1000.5, True), (1.7e6, True)]
    )
    def test_float16_only_up_to_a_thousand(self, tmp_path, largest, kept_exactly):
        image, label = arrays()
        image[1, 0, 0, 0] = largest
        write_case(tmp_path, properties(), image=image, label=label, labels=LABELS)
        found = PreprocessedCase.open(tmp_path, "case").image()
        assert found.dtype == np.float32 and found[1, 0, 0, 0] == largest
        assert np.array_equal(found, image) is kept_exactly
        assert np.abs(found - image).max() <= 2.0**-12  # half a step of float16 below 1

    @pytest.mark.parametrize(
        "region",
        [
            (slice(0, 37), slice(0, 70), slice(0, 41)),
            (slice(31, 33), slice(63, 65), slice(0, 1)),
            (slice(36, 37), slice(69, 70), slice(40, 41)),
        ],
    )
    def test_parts_equal_the_whole(self, written, region):
        folder, _, label = written
        case = PreprocessedCase.open(folder, "case")
        assert np.array_equal(case.label(region), label[region])
        assert np.array_equal(case.image(region), case.image()[(slice(None), *region)])

    def test_windows_are_the_padded_volume(self, written):
        """500 windows of 1 to 40 voxels per axis: inside, partly outside and wholly outside, against `np.pad`."""
        folder, image, label = written
        case = PreprocessedCase.open(folder, "case")
        outside, reach, rng = LABELS.outside_code, 140, np.random.default_rng(3)
        padded_image = np.pad(to_half(image).astype(np.float32), [(0, 0), *[(reach, reach)] * 3])
        padded_label = np.pad(label, reach, constant_values=outside)
        inside = wholly_outside = 0
        for _ in range(500):
            size = tuple(rng.integers(1, 41, 3).tolist())
            start = tuple(int(rng.integers(-edge - 5, n + 5)) for edge, n in zip(size, SHAPE, strict=True))
            window = tuple(slice(s + reach, s + reach + n) for s, n in zip(start, size, strict=True))
            read_image, read_label = case.image_window(start, size), case.label_window(start, size, outside=outside)
            assert np.array_equal(read_image, padded_image[(slice(None), *window)]) and read_image.dtype == np.float32
            assert np.array_equal(read_label, padded_label[window]) and read_label.dtype == np.uint8
            inside += all(s >= 0 and s + e <= n for s, e, n in zip(start, size, SHAPE, strict=True))
            wholly_outside += any(s + e <= 0 or s >= n for s, e, n in zip(start, size, SHAPE, strict=True))
        assert inside > 5 and wholly_outside > 50

    def test_properties_keep_the_affine_to_the_bit(self, written):
        folder, _, _ = written
        read = PreprocessedCase.open(folder, "case").properties
        assert np.array_equal(read.source_geometry.affine, properties().source_geometry.affine)
        assert read.source_geometry.shape == SHAPE

    def test_a_case_without_annotation(self, tmp_path):
        image, label = arrays()
        write_case(tmp_path, properties(), image=image, label=label, labels=LABELS)
        write_case(tmp_path, properties(annotated=False), image=image, label=None, labels=LABELS)
        case = PreprocessedCase.open(tmp_path, "case")
        assert sorted(path.name for path in case.folder.iterdir()) == ["image.b2nd", "properties.json"]
        assert case.locations(1).size == 0
        with pytest.raises(ValueError, match="no label"):
            case.label()
        with pytest.raises(ValueError, match="no label"):
            case.label_window((0, 0, 0), (2, 2, 2), outside=255)

    def test_many_labels_take_uint16(self, tmp_path):
        many = LabelSet(names=tuple(f"s{i}" for i in range(300)), values=tuple((i + 1,) for i in range(300)))
        image, _ = arrays(channels=1)
        label = (np.arange(np.prod(SHAPE)).reshape(SHAPE) % 301).astype(np.uint16)
        write_case(tmp_path, properties(), image=image, label=label, labels=many)
        found = PreprocessedCase.open(tmp_path, "case").label()
        assert found.dtype == np.uint16 and np.array_equal(found, label)


class TestLocations:
    def test_all_voxels_of_each_code(self, written):
        folder, _, label = written
        case = PreprocessedCase.open(folder, "case")
        for code in (1, 2):
            assert case.locations(code).dtype == np.int64
            assert np.array_equal(case.locations(code), np.flatnonzero(label == code))
        assert case.locations(9).size == 0

    def test_background_only_where_something_is_not_annotated(self, tmp_path):
        image, label = arrays()
        write_case(tmp_path, properties("all"), image=image, label=label, labels=LABELS)
        label[0] = LABELS.ignore_code
        label[1] = LABELS.outside_code
        write_case(tmp_path, properties("some"), image=image, label=label, labels=LABELS)
        assert PreprocessedCase.open(tmp_path, "all").locations(0).size == 0
        some = PreprocessedCase.open(tmp_path, "some")
        assert np.array_equal(some.locations(0), np.flatnonzero(label == 0))
        assert some.locations(LABELS.outside_code).size == 0

    def test_a_large_structure_keeps_a_fixed_random_share(self, tmp_path, monkeypatch):
        monkeypatch.setattr(store, "MAX_LOCATIONS", 500)
        image, label = arrays()
        for name in ("a", "b"):
            write_case(tmp_path / name, properties(), image=image, label=label, labels=LABELS)
        first, again = (PreprocessedCase.open(tmp_path / name, "case").locations(1) for name in ("a", "b"))
        everywhere = np.flatnonzero(label == 1)
        assert len(first) == 500 and np.isin(first, everywhere).all() and (np.diff(first) > 0).all()
        assert np.array_equal(first, again)
        # Uniform over the structure: the mean index lies within four standard errors of the middle.
        assert abs(first.mean() - everywhere.mean()) < 4 * everywhere.std() / np.sqrt(500)


def test_threads_and_processes_share_a_case(written):
    folder, image, label = written
    case = PreprocessedCase.open(folder, "case")
    expected = to_half(image)

    def read(seed):
        z, y, x = np.random.default_rng(seed).integers(0, (20, 50, 25))
        region = (slice(z, z + 16), slice(y, y + 20), slice(x, x + 16))
        same = np.array_equal(case.image(region), expected[(slice(None), *region)])
        return same and np.array_equal(case.label(region), label[region])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(200)))
    assert np.array_equal(pickle.loads(pickle.dumps(case)).label(), label)  # noqa: S301 (our own bytes)


def with_hashes_of_now(own):
    """Let properties.json name the files of a case as they are now; returns its content."""
    path = own / "properties.json"
    content = json.loads(path.read_text())
    for name in content["files"]:
        content["files"][name] = {"bytes": (own / name).stat().st_size, "sha256": sha256_of(own / name)}
    content["sha256"] = CaseProperties.model_validate(content).computed_sha256
    path.write_text(json.dumps(content))
    return content


class TestDamage:
    @pytest.mark.parametrize("name", ["image.b2nd", "label.b2nd", "locations.safetensors", "properties.json"])
    def test_no_flipped_bit_and_no_zeroed_tail_is_read(self, written, name):
        folder, _, _ = written
        path = case_folder(folder, "case") / name
        valid, silent = path.read_bytes(), []
        step = max(1, len(valid) // 60)
        damaged = [
            (at, valid[:at] + bytes([valid[at] ^ 1 << at % 8]) + valid[at + 1 :]) for at in range(0, len(valid), step)
        ]
        damaged += [(-n, valid[:-n] + bytes(n)) for n in (64, len(valid) // 2)]
        for place, content in damaged:
            path.write_bytes(content)
            try:
                case = PreprocessedCase.open(folder, "case")
                case.image()
                case.label()
                case.locations(1)
                silent.append(place)
            except UserError as error:
                assert name in str(error) and "swinssl_preprocess" in str(error)
        assert silent == []

    def test_each_file_is_read_whole_once(self, written, monkeypatch):
        folder, _, _ = written
        hashed = []
        monkeypatch.setattr(store.files, "sha256_of", lambda path: hashed.append(path.name) or sha256_of(path))
        case = PreprocessedCase.open(folder, "case")
        assert hashed == []
        for _ in range(2):
            case.image((slice(0, 2),) * 3)
            case.label()
            case.locations(1)
            case.check()
        assert sorted(hashed) == ["image.b2nd", "label.b2nd", "locations.safetensors"]

    def test_an_array_that_could_run_code_is_not_opened(self, written, monkeypatch):
        folder, _, _ = written
        own = case_folder(folder, "case")
        (own / "image.b2nd").unlink()
        meta = {"LazyArray": {"expression": "o0 + 1", "operands": {}}}
        blosc2.asarray(np.zeros((4, 4)), urlpath=str(own / "image.b2nd"), mode="w", meta=meta)
        with_hashes_of_now(own)
        monkeypatch.setattr(blosc2, "open", lambda *_, **__: pytest.fail("it was opened"))
        with pytest.raises(UserError, match=r"image\.b2nd: no plain array of the store \(metadata: .*LazyArray"):
            PreprocessedCase.open(folder, "case").image()

    def test_what_is_wrong_around_a_file_is_not_called_damage(self, written, monkeypatch):
        folder, _, _ = written

        def refuse(*_, **__):
            raise ValueError("OMP_NUM_THREADS: abc")

        monkeypatch.setattr(blosc2, "open", refuse)
        with pytest.raises(ValueError, match="OMP_NUM_THREADS: abc"):
            PreprocessedCase.open(folder, "case").image()

    def test_all_damaged_cases_of_a_run_are_named_at_once(self, tmp_path):
        TestDataset().make(tmp_path, plans())
        for case_id in ("a", "b"):
            path = case_folder(tmp_path, case_id) / "label.b2nd"
            path.write_bytes(path.read_bytes()[:-1] + b"?")
        with pytest.raises(UserError, match=r"a/label\.b2nd: damaged.*b/label\.b2nd: damaged.* Run swinssl_preprocess"):
            PreprocessedDataset.open(tmp_path).check(["a", "b"])

    @pytest.mark.parametrize("name", ["image.b2nd", "label.b2nd", "locations.safetensors"])
    def test_a_truncated_or_missing_file_is_named(self, written, name):
        folder, _, _ = written
        path = case_folder(folder, "case") / name
        path.write_bytes(path.read_bytes()[:-10])
        with pytest.raises(UserError, match=rf"{name}: \d+ bytes; .*swinssl_preprocess"):
            PreprocessedCase.open(folder, "case")
        path.unlink()
        with pytest.raises(UserError, match=f"{name}: missing"):
            PreprocessedCase.open(folder, "case")

    @pytest.mark.parametrize("name", ["image.b2nd", "label.b2nd", "locations.safetensors"])
    def test_rubbish_of_the_right_length_is_named(self, written, name):
        folder, _, _ = written
        path = case_folder(folder, "case") / name
        path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))
        case = PreprocessedCase.open(folder, "case")
        assert not case.is_intact()
        with pytest.raises(UserError, match=f"{name}: damaged"):
            {"image.b2nd": case.image, "label.b2nd": case.label}.get(name, lambda: case.locations(1))()

    def test_one_flipped_bit_is_found(self, written):
        folder, _, _ = written
        path = case_folder(folder, "case") / "image.b2nd"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        assert PreprocessedCase.open(folder, "case").is_intact()
        path.write_bytes(content)
        assert not PreprocessedCase.open(folder, "case").is_intact()

    def test_another_version_is_refused_by_every_file(self, written):
        folder, _, _ = written
        own = case_folder(folder, "case")
        later = blosc2.open(str(own / "image.b2nd"), mode="a")
        later.schunk.vlmeta["swinssl"] = {"version": 99}
        content = with_hashes_of_now(own)
        with pytest.raises(UserError, match=r"image\.b2nd: store version 99"):
            PreprocessedCase.open(folder, "case").image()
        (own / "properties.json").write_text(json.dumps({**content, "version": 99}))
        with pytest.raises(UserError, match=r"properties\.json: preprocessed case version 99"):
            PreprocessedCase.open(folder, "case")

    def test_a_case_does_not_exist_before_its_properties(self, written, monkeypatch):
        folder, image, label = written

        def stop(*_, **__):
            raise KeyboardInterrupt

        monkeypatch.setattr(store, "save_file", stop)
        with pytest.raises(KeyboardInterrupt):
            write_case(folder, properties(), image=image, label=label, labels=LABELS)
        with pytest.raises(UserError, match="no preprocessed case here"):
            PreprocessedCase.open(folder, "case")
        monkeypatch.undo()
        own = case_folder(folder, "case")
        (own / ".writing-left").write_bytes(b"half")  # of a process that could not clean up
        write_case(folder, properties(), image=image, label=label, labels=LABELS)
        assert sorted(path.name for path in own.iterdir()) == [
            "image.b2nd",
            "label.b2nd",
            "locations.safetensors",
            "properties.json",
        ]

    @pytest.mark.parametrize("case_id", ["", "..", "../x", "a/b", "a\\b", "C:x"])
    def test_a_case_id_cannot_leave_the_folder(self, tmp_path, case_id):
        with pytest.raises(UserError, match="is not a valid folder name"):
            case_folder(tmp_path, case_id)


class TestDataset:
    def make(self, folder, used):
        image, label = arrays(channels=1)
        for case_id in ("b", "a"):
            hashes = {"image_0000": case_id * 64}
            hashed = content_hash(hashes, used, None)
            own = properties(case_id, input_sha256=hashes, content_hash=hashed)
            write_case(folder, own, image=image, label=label, labels=LABELS)
        used.write(folder / PLANS_FILE)

    def test_lists_and_keeps_cases(self, tmp_path):
        self.make(tmp_path, plans())
        (case_folder(tmp_path, "half")).mkdir()  # began, never finished
        dataset = PreprocessedDataset.open(tmp_path)
        assert dataset.case_ids == ("a", "b") and dataset.plans == plans()
        assert dataset.case("a") is dataset.case("a")

    def test_cases_of_other_plans_are_refused(self, tmp_path):
        self.make(tmp_path, plans())
        plans(spacing=(2.0, 1.0, 1.0)).write(tmp_path / PLANS_FILE)
        with pytest.raises(UserError, match="other plans"):
            PreprocessedDataset.open(tmp_path).case("a")
        plans(patch_size=(64, 64, 64)).write(tmp_path / PLANS_FILE)  # nothing stored depends on it
        PreprocessedDataset.open(tmp_path).case("a")

    def test_nothing_there(self, tmp_path):
        with pytest.raises(UserError, match="no plans here"):
            PreprocessedDataset.open(tmp_path)
        plans().write(tmp_path / PLANS_FILE)
        with pytest.raises(UserError, match=r"no preprocessed case.*swinssl_preprocess"):
            PreprocessedDataset.open(tmp_path)

    def test_a_moved_data_set_still_opens(self, tmp_path):
        self.make(tmp_path / "here", plans())
        shutil.move(tmp_path / "here", tmp_path / "there")
        assert PreprocessedDataset.open(tmp_path / "there").case("a").image().shape == (1, *SHAPE)


def test_content_hash_depends_on_inputs_decisions_and_annotated_structures():
    base = content_hash({"image_0000": "x"}, plans(), None)
    others = [
        content_hash({"image_0000": "y"}, plans(), None),
        content_hash({"image_0000": "x"}, plans(spacing=(1.0, 1.0, 2.0)), None),
        content_hash({"image_0000": "x"}, plans(), ("liver",)),
        content_hash({"image_0000": "x"}, plans(), None, code_version=3),
    ]
    assert len({base, *others}) == 5
