"""What is stored is what is used: damage and edits are found before they change a result. Files name no patient."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import zipfile
from pathlib import Path

import fuzz
import numpy as np
import pytest
import torch
from support.stored_cases import make_case

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.inference.model_archive import export_model, import_model, read_whole, verify_archive
from swinssl.inference.trained_model import TrainedModel, write_fold
from swinssl.networks.architectures import build_network
from swinssl.networks.checkpoints.encoder_file import EncoderRecord, read_encoder_header, write_encoder
from swinssl.networks.checkpoints.encoder_transfer import load_encoder
from swinssl.networks.checkpoints.shipped_encoders import encoder_path, shipped_names
from swinssl.networks.checkpoints.weights_file import read_weights
from swinssl.networks.network_plan import SwinEncoderPlan
from swinssl.planning.encoder_facts import read_encoder_facts
from swinssl.preprocessing.plans import Plans
from swinssl.training.engine.checkpoint import Checkpoint, save_checkpoint

CPU = torch.device("cpu")
SAMPLES = Path(__file__).resolve().parents[1] / "samples_0_1_0"
SMALLEST = SwinEncoderPlan(embed_dim=1, depths=(1, 1, 1, 1), heads=(1, 1, 1, 1), shrink_window=True)
# What a raw data set may know of its patients.
SECRETS = ("Mueller", "case_0", "/data/patients", "2021-03", "ward 7")
RAW_DESCRIPTION = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "liver": 1, "tumour": 2},
    "numTraining": 1,
    "file_ending": ".nii.gz",
    "dataset": {"case_0": {"images": ["/data/patients/Mueller/ct.nii.gz"], "label": "/data/patients/Mueller/l.nii.gz"}},
    "groups": {"case_0": "Mueller"},
    "labels_present": {"case_0": ["liver"]},
    "description": "scanned 2021-03 on ward 7",
}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def small_plans() -> Plans:
    plans = fuzz.small_plans()
    return plans.model_copy(update={"network": plans.network.model_copy(update={"encoder": SMALLEST})})


def small_network(plans: Plans) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_network(plans.network, in_channels=1, num_outputs=plans.labels.num_outputs)


@pytest.fixture
def model(tmp_path):
    plans = small_plans()
    write_fold(tmp_path / "small", 0, small_network(plans), plans, description=RAW_DESCRIPTION)
    return tmp_path / "small"


@pytest.fixture
def encoder(tmp_path):
    record = EncoderRecord(encoder=SMALLEST, in_channels=1, spacing=(3.0, 1.0, 1.0), patch_size=(32, 32, 32))
    write_encoder(tmp_path / "encoder.safetensors", small_network(small_plans()).encoder.state_dict(), record)
    return tmp_path / "encoder.safetensors"


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def flipped(content: bytes, place: int) -> bytes:
    """One bit of one byte, each time another one."""
    changed = bytearray(content)
    changed[place] ^= 1 << place % 8
    return bytes(changed)


class TestPrivacy:
    def test_a_model_and_its_archive_tell_nothing_of_the_training_cases(self, model, tmp_path):
        export_model(TrainedModel.open(model), tmp_path / "small.zip")
        stored = [path for path in model.rglob("*") if path.is_file()]
        for path in (*stored, tmp_path / "small.zip"):
            content = path.read_bytes()
            assert not [secret for secret in SECRETS if secret.encode() in content], path
        known = TrainedModel.open(model).description
        assert known == {key: RAW_DESCRIPTION[key] for key in ("channel_names", "labels", "file_ending")}

    def test_nor_does_an_archive_of_a_model_by_0_1_0(self, tmp_path):
        old = import_model(SAMPLES / "model.zip", tmp_path)
        assert b"Mueller" in (old / "dataset.json").read_bytes()
        export_model(TrainedModel.open(old), tmp_path / "again.zip")
        with zipfile.ZipFile(tmp_path / "again.zip") as archive:
            assert not [name for name in archive.namelist() if b"Mueller" in archive.read(name)]


class TestPlansAndWeights:
    @pytest.mark.parametrize(
        "changes",
        [
            {"spacing": [3.0, 1.4, 1.0]},
            {"labels": {"names": ["liver", "tumour"], "values": [[2], [1]]}},
            {"intensity": [{"scheme": "window", "low": -900.0, "high": 901.0}]},
            {"dataset_name": "Dataset008_Toy"},
            {"training_spacings": [[3, 1, 1], [4, 1, 1]]},
        ],
    )
    def test_an_edited_decision_is_refused(self, model, changes):
        edit(model / "swinsslPlans.json", **changes)
        with pytest.raises(UserError, match=r"(trained with other plans than those in .*swinsslPlans|labels differ)"):
            TrainedModel.open(model)

    def test_a_description_that_names_other_labels_is_refused(self, model):
        edit(model / "dataset.json", labels={"background": 0, "liver": 2, "tumour": 1})
        with pytest.raises(UserError, match=r"dataset\.json: labels differ from those of swinsslPlans\.json"):
            TrainedModel.open(model)

    def test_reasons_and_the_length_of_training_may_be_edited(self, model):
        edit(model / "swinsslPlans.json", reasons={"spacing": "as asked"}, training={"epochs": 7})
        assert TrainedModel.open(model).notes == ()

    def test_flipped_bits_in_the_plans_of_a_model_change_no_result(self, model):
        path = model / "swinsslPlans.json"
        valid, key = path.read_bytes(), Plans.read(path).prediction_key
        silent = []
        for place in range(0, len(valid), 5):
            path.write_bytes(flipped(valid, place))
            try:
                if Plans.read(path).prediction_key != key and TrainedModel.open(model):
                    silent.append(place)
            except UserError:
                continue
        assert silent == []

    def test_a_later_default_does_not_part_plans_from_weights(self):
        assert "crop_to_nonzero" in small_plans().prediction_key  # False, which is not the default
        assert "resampling" not in small_plans().prediction_key

    def test_flipped_bits_in_the_header_of_the_weights_are_found(self, model):
        path = model / "fold_0" / "model.safetensors"
        valid = path.read_bytes()
        size = int.from_bytes(valid[:8], "little")
        silent = []
        for place in [*range(0, 8 + size, 97), *range(8 + size, len(valid), 9973), len(valid) - 1]:
            path.write_bytes(flipped(valid, place))
            try:
                read_weights(path)
                silent.append(place)
            except UserError:
                continue
        assert silent == []


class TestNumbers:
    @pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64, torch.float8_e4m3fn])
    def test_weights_that_are_no_floats_are_refused_by_name(self, tmp_path, dtype):
        plans = small_plans()
        network = small_network(plans)
        state = {**network.state_dict(), "head.bias": torch.zeros(3).to(dtype)}
        network.state_dict = lambda: state
        write_fold(tmp_path / "odd", 0, network, plans, description={})
        with pytest.raises(UserError, match=r"model\.safetensors: head\.bias is .*; expected float16, "):
            read_whole(tmp_path / "odd")

    def test_weights_so_large_that_the_output_is_infinite_are_found_by_verify(self, tmp_path):
        plans = small_plans()
        network = small_network(plans)
        for parameter in network.parameters():
            torch.nn.init.constant_(parameter, 1e30)
        write_fold(tmp_path / "large", 0, network, plans, description={})
        with pytest.raises(UserError, match="output is NaN or infinite"):
            read_whole(tmp_path / "large")


class TestEncoder:
    def test_flipped_bits_and_zeroed_tails_are_found(self, encoder):
        valid = encoder.read_bytes()
        size = int.from_bytes(valid[:8], "little")
        damaged = [flipped(valid, place) for place in (*range(0, 8 + size, 23), *range(8 + size, len(valid), 997))]
        damaged += [valid[:-n] + bytes(n) for n in (4, 64, 4096)]
        silent = []
        for number, content in enumerate(damaged):
            encoder.write_bytes(content)
            for read in (read_weights, read_encoder_facts):
                try:
                    read(encoder)
                    silent.append((number, read.__name__))
                except UserError:
                    continue
        assert silent == []

    @pytest.mark.parametrize(("value", "dtype"), [(float("nan"), None), (float("inf"), None), (1, torch.int8)])
    def test_numbers_that_nothing_can_be_computed_with_are_named(self, tmp_path, value, dtype):
        network = small_network(small_plans())
        tensors = dict(network.encoder.state_dict())
        name = "stages.0.blocks.0.attn.qkv.weight"
        tensors[name] = torch.full_like(tensors[name], value, dtype=dtype)
        path = tmp_path / "failed.safetensors"
        write_encoder(path, tensors, EncoderRecord(encoder=SMALLEST))
        with pytest.raises(UserError, match=rf"failed\.safetensors: {re.escape(name)} (has numbers that are NaN|is t)"):
            load_encoder(network, path)


class TestFilesOfSwinssl010:
    def test_an_encoder_is_read(self):
        record, shapes = read_encoder_header(SAMPLES / "encoder.safetensors")
        assert record.spacing == (3.0, 1.0, 1.0) and record.encoder is not None and shapes
        network = small_network(small_plans())
        report = load_encoder(network, SAMPLES / "encoder.safetensors")
        assert report.missing == () and report.unexpected == ()
        assert read_encoder_facts(SAMPLES / "encoder.safetensors").patch_size == (32, 32, 32)

    def test_so_are_those_that_came_with_it(self):
        for name in shipped_names():
            assert read_encoder_facts(encoder_path(name)).encoder is not None

    def test_a_model_is_opened_with_a_note(self, tmp_path):
        _, notes = verify_archive(SAMPLES / "model.zip")
        assert "written by swinssl 0.1.0" in notes[0]
        model = TrainedModel.open(import_model(SAMPLES / "model.zip", tmp_path))
        assert model.notes == notes and model.unsealed == ("0",)
        image = torch.rand(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
        expected = small_network(model.plans).eval()
        with torch.no_grad():
            assert torch.equal(model.networks(CPU)[0](image), expected(image))

    def test_its_damage_is_still_found(self, tmp_path):
        folder = import_model(SAMPLES / "model.zip", tmp_path)
        path = folder / "fold_0" / "model.safetensors"
        path.write_bytes(flipped(path.read_bytes(), path.stat().st_size - 9))
        with pytest.raises(UserError, match="weights are not those that were written"):
            read_whole(folder)


@contextlib.contextmanager
def without_rights(path: Path):
    """The file as somebody else sees it who may not read it."""
    path.chmod(0)
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(65534)
        yield
    finally:
        if root:
            os.seteuid(0)
        path.chmod(0o644)


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
class TestPermissions:
    def test_a_file_that_may_not_be_read_is_not_called_missing(self, model, encoder, tmp_path):
        export_model(TrainedModel.open(model), tmp_path / "small.zip")
        for path, read in ((encoder, read_weights), (tmp_path / "small.zip", verify_archive)):
            with without_rights(path), pytest.raises(UserError, match=rf"{path.name}: you may not read it"):
                read(path)

    def test_everything_that_is_written_has_the_rights_that_the_umask_gives(self, tmp_path, model, encoder):
        (tmp_path / "ordinary").touch()
        ordinary = (tmp_path / "ordinary").stat().st_mode
        label = np.zeros((8, 8, 8), np.uint8)
        label[2:4, 2:4, 2:4] = 1
        make_case(tmp_path / "store", "case", label)
        state = {"progress": {"step": 1}}
        save_checkpoint(tmp_path / "checkpoints", Checkpoint(1, {"network.w": torch.ones(2)}, state))
        export_model(TrainedModel.open(model), tmp_path / "small.zip")
        written = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert {"locations.safetensors", "weights.safetensors", "image.b2nd"} <= {path.name for path in written}
        assert {path.name: path.stat().st_mode for path in written} == {path.name: ordinary for path in written}


class TestArchive:
    def test_a_fold_of_digits_that_are_not_ascii_is_no_member(self, model, tmp_path):
        export_model(TrainedModel.open(model), tmp_path / "small.zip")
        with zipfile.ZipFile(tmp_path / "small.zip", "a") as archive:
            archive.writestr("fold_\u0661/model.safetensors", b"")
        with pytest.raises(UserError, match="not part of a model"):
            verify_archive(tmp_path / "small.zip")

    def test_all_members_together_have_a_cap(self, model, tmp_path, monkeypatch):
        export_model(TrainedModel.open(model), tmp_path / "small.zip")
        monkeypatch.setattr("swinssl.inference.model_archive.MOST_TOTAL_BYTES", 1000)
        with pytest.raises(UserError, match=r"small\.zip: would unpack to 0\.0 GB"):
            verify_archive(tmp_path / "small.zip")

    def test_errors_name_the_archive_and_no_temporary_folder(self, model, tmp_path):
        (model / "dataset.json").write_text('{"file_ending": ".nii"}')
        edited = shutil.copytree(model, tmp_path / "edited")
        export_model(TrainedModel.open(model), tmp_path / "small.zip")
        edit(edited / "swinsslPlans.json", spacing=[3.0, 1.0, 1.1])
        content = (edited / "swinsslPlans.json").read_bytes()
        with zipfile.ZipFile(tmp_path / "small.zip") as old, zipfile.ZipFile(tmp_path / "evil.zip", "w") as new:
            manifest = json.loads(old.read("manifest.json"))
            sha256 = files.sha256_of(edited / "swinsslPlans.json")
            manifest["files"]["swinsslPlans.json"] = {"bytes": len(content), "sha256": sha256}
            changed = {"swinsslPlans.json": content, "manifest.json": json.dumps(manifest).encode()}
            for name in old.namelist():
                new.writestr(name, changed.get(name) or old.read(name))
        for read in (verify_archive, lambda path: import_model(path, tmp_path / "results")):
            with pytest.raises(UserError, match="other plans") as error:
                read(tmp_path / "evil.zip")
            assert "evil.zip, fold_0" in str(error.value)
            assert "swinssl-verify" not in str(error.value) and files.PREFIX not in str(error.value)

    @pytest.mark.parametrize("read", [verify_archive, lambda path: import_model(path, path.parent / "results")])
    def test_a_full_disk_names_the_place_and_the_archive(self, model, tmp_path, monkeypatch, read):
        export_model(TrainedModel.open(model), tmp_path / "small.zip")

        def full(*_, **__):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("swinssl.inference.model_archive._extract", full)
        with pytest.raises(UserError, match=r".+: no space left to unpack .* of .*small\.zip\. Free some space there"):
            read(tmp_path / "small.zip")
