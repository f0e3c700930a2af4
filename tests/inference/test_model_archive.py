"""Archives of models: what goes in comes out; what a stranger may put into one stays out."""

from __future__ import annotations

import hashlib
import json
import stat
import zipfile

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.made_models import make_plans, write_model

from swinssl.core.errors import UserError
from swinssl.inference import model_archive as module
from swinssl.inference.model_archive import MANIFEST, export_model, import_model, verify_archive
from swinssl.inference.postprocessing import POSTPROCESSING_FILE, Postprocessing, Trial
from swinssl.inference.trained_model import TrainedModel
from swinssl.networks.network_plan import NetworkPlan, encoder_preset

CPU = torch.device("cpu")
# Half a megabyte instead of thirty.
SMALL = NetworkPlan(
    preset="tiny",
    decoder="light",
    encoder=encoder_preset("tiny").model_copy(update={"embed_dim": 4, "depths": (1, 1, 1, 1), "heads": (1, 1, 1, 1)}),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = write_model(tmp_path_factory.mktemp("models") / "mine", make_plans(network=SMALL), folds=(0, "all"))
    (folder / "fold_0" / "run.json").write_text('{"case": "patient Doe"}')
    return TrainedModel.open(folder)


@pytest.fixture(scope="module")
def archive(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("archives") / "mine.zip"
    export_model(model, path)
    return path


def members_of(archive):
    with zipfile.ZipFile(archive) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def changed(archive, path, change, *, manifest=True, compression=zipfile.ZIP_STORED):
    """A copy whose members `change` was given, with a manifest that fits them."""
    members = members_of(archive)
    change(members)
    if manifest:
        said = json.loads(members[MANIFEST])
        said["files"] = {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in members.items()
            if name != MANIFEST
        }
        members[MANIFEST] = json.dumps(said).encode()
    with zipfile.ZipFile(path, "w", compression) as written:
        for name, content in members.items():
            written.writestr(name, content)
    return path


class TestRoundTrip:
    def test_the_same_model_comes_out(self, model, archive, tmp_path):
        folder = import_model(archive, tmp_path)
        assert folder == tmp_path / "Dataset001_Toy" / "mine"
        copy = TrainedModel.open(folder)
        assert (copy.plans, copy.description, copy.folds, copy.sha256) == (
            model.plans,
            model.description,
            ("0", "all"),
            model.sha256,
        )
        for ours, theirs in zip(copy.networks(CPU), model.networks(CPU), strict=True):
            for name, tensor in theirs.state_dict().items():
                assert torch.equal(ours.state_dict()[name], tensor)
        assert [path.name for path in tmp_path.iterdir()] == ["Dataset001_Toy"]

    def test_nothing_else_of_the_folder_goes_in(self, archive):
        assert b"Doe" not in archive.read_bytes()

    def test_the_same_model_gives_the_same_file(self, model, archive, tmp_path):
        export_model(model, tmp_path / "again.zip")
        assert (tmp_path / "again.zip").read_bytes() == archive.read_bytes()

    def test_some_folds(self, model, tmp_path):
        export_model(TrainedModel.open(model.folder, ["all"]), tmp_path / "one.zip")
        assert TrainedModel.open(import_model(tmp_path / "one.zip", tmp_path)).folds == ("all",)

    def test_what_is_there_is_replaced_only_when_asked(self, archive, tmp_path):
        folder = import_model(archive, tmp_path)
        (folder / "mark").touch()
        with pytest.raises(UserError, match=r"mine: exists already\. .*--force"):
            import_model(archive, tmp_path)
        assert (folder / "mark").exists()
        assert import_model(archive, tmp_path, name="other").name == "other"
        import_model(archive, tmp_path, force=True)
        assert not (folder / "mark").exists()
        assert TrainedModel.open(folder).networks(CPU)


class TestPostprocessing:
    DECIDED = Trial(structures=("liver",), before=0.5, after=0.75, better=3, worse=1, cases=5)

    @pytest.fixture
    def cleaning(self, tmp_path):
        folder = write_model(tmp_path / "cleaning", make_plans(network=SMALL), folds=(0, 1))
        sha256 = TrainedModel.open(folder).sha256
        Postprocessing(least_gain=0.001, applied=(self.DECIDED,), fold_sha256=sha256).write(folder)
        return folder

    def test_goes_along(self, cleaning, tmp_path):
        manifest = export_model(TrainedModel.open(cleaning), tmp_path / "one.zip")
        assert POSTPROCESSING_FILE in manifest.files and verify_archive(tmp_path / "one.zip")[0] == manifest
        copy = TrainedModel.open(import_model(tmp_path / "one.zip", tmp_path / "there"))
        assert copy.postprocessing == TrainedModel.open(cleaning).postprocessing and not copy.postprocessing_is_outdated
        export_model(TrainedModel.open(cleaning, [1]), tmp_path / "part.zip")
        assert (
            TrainedModel.open(import_model(tmp_path / "part.zip", tmp_path / "part")).postprocessing
            == copy.postprocessing
        )

    def test_an_archive_of_0_1_0_keeps_it_under_the_former_name(self, cleaning, archive, tmp_path):
        content = (cleaning / POSTPROCESSING_FILE).read_bytes()
        path = changed(archive, tmp_path / "old.zip", add("clean_up.json", content))
        imported = TrainedModel.open(import_model(path, tmp_path / "results"))
        assert imported.postprocessing.applied == (self.DECIDED,)
        again = export_model(TrainedModel.open(cleaning), tmp_path / "new.zip")
        assert POSTPROCESSING_FILE in again.files and "clean_up.json" not in again.files

    def test_what_was_measured_with_other_weights_stays_behind(self, cleaning, tmp_path):
        write_model(cleaning, make_plans(network=SMALL), folds=(1, 0))
        assert POSTPROCESSING_FILE not in export_model(TrainedModel.open(cleaning), tmp_path / "one.zip").files

    @pytest.mark.parametrize(
        ("content", "why"),
        [
            (b"{", "not valid JSON"),
            (b'{"version": 7}', "version 7"),
            (b'{"version": 1, "least_gain": 0, "applied": [{"structures": ["../x"]}]}', "Field required"),
            (b"[" * 100_000, "not valid JSON"),
        ],
    )
    def test_of_a_stranger_is_checked(self, archive, tmp_path, content, why):
        path = changed(archive, tmp_path / "evil.zip", add(POSTPROCESSING_FILE, content))
        with pytest.raises(UserError, match=rf"postprocessing\.json: .*{why}"):
            import_model(path, tmp_path / "results")
        assert not (tmp_path / "results").exists()


def claim_name(name):
    def change(members):
        members[MANIFEST] = json.dumps({**json.loads(members[MANIFEST]), "name": name}).encode()

    return change


def add(name, content=b"x"):
    return lambda members: members.update({name: content})


class TestStrangers:
    @pytest.mark.parametrize(
        "name",
        [
            "../evil.txt",
            "/etc/passwd",
            "C:\\evil.txt",
            "..\\evil.txt",
            "fold_0/../../evil",
            "fold_0/model.safetensors/",
            "fold_01/model.safetensors",
            "fold_0/checkpoint.pth",
            "fold_-1/model.safetensors",
            "con",
            "fold_0/",
        ],
    )
    def test_other_members_are_refused(self, archive, tmp_path, name):
        path = changed(archive, tmp_path / "evil.zip", add(name))
        with pytest.raises(UserError, match=r"evil\.zip: .*Refused"):
            import_model(path, tmp_path / "results")
        assert not (tmp_path / "results").exists()
        assert sorted(one.name for one in tmp_path.iterdir()) == ["evil.zip"]

    @pytest.mark.filterwarnings("ignore:Duplicate name")
    @pytest.mark.parametrize(("second", "why"), [("dataset.json", "twice"), ("DATASET.json", "not part of a model")])
    def test_two_members_of_one_name(self, archive, tmp_path, second, why):
        with zipfile.ZipFile(tmp_path / "twice.zip", "w") as written:
            for name, content in [*members_of(archive).items(), (second, b"{}")]:
                written.writestr(name, content)
        with pytest.raises(UserError, match=why):
            import_model(tmp_path / "twice.zip", tmp_path / "results")

    def test_a_link(self, archive, tmp_path):
        with zipfile.ZipFile(tmp_path / "link.zip", "w") as written:
            for name, content in members_of(archive).items():
                info = zipfile.ZipInfo(name)
                if name == "dataset.json":
                    info.external_attr, content = (stat.S_IFLNK | 0o777) << 16, b"/etc/passwd"
                written.writestr(info, content)
        with pytest.raises(UserError, match="a link, a device or encrypted"):
            import_model(tmp_path / "link.zip", tmp_path / "results")

    def test_a_hundred_thousand_members(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "many.zip", "w") as written:
            for number in range(100_000):
                written.writestr(f"{number}", b"")
        with pytest.raises(UserError, match="100000 members"):
            verify_archive(tmp_path / "many.zip")

    def test_a_bomb(self, archive, tmp_path):
        bomb = add("dataset.json", b"{" + b" " * 10_000_000 + b"}")
        path = changed(archive, tmp_path / "bomb.zip", bomb, compression=zipfile.ZIP_DEFLATED)
        with pytest.raises(UserError, match="would expand more than 200 times"):
            verify_archive(path)
        path = changed(archive, tmp_path / "large.zip", add("dataset.json", b" " * (module.MOST_TEXT_BYTES + 1)))
        with pytest.raises(UserError, match=r"would be 0\.0 GB"):
            verify_archive(path)

    def test_a_member_longer_than_its_header_says(self, archive, tmp_path):
        members = members_of(archive)
        path = changed(archive, tmp_path / "longer.zip", lambda _: None)
        content, true = path.read_bytes(), len(members["dataset.json"])
        # The length stands twice, in the local header and in the directory.
        said = content.replace(true.to_bytes(4, "little") * 2, (true - 5).to_bytes(4, "little") * 2)
        assert said != content
        path.write_bytes(said)
        with pytest.raises(UserError):
            verify_archive(path)

    @pytest.mark.parametrize("name", ["../up", "a/b", "con", "x" * 65, "", "Dr. Who", "nul.zip"])
    def test_names_that_are_no_folder_names(self, archive, tmp_path, name):
        path = changed(archive, tmp_path / "name.zip", claim_name(name))
        with pytest.raises(UserError, match="cannot be used"):
            import_model(path, tmp_path / "results")

    def test_a_data_set_name_that_leads_elsewhere(self, tmp_path):
        plans = make_plans(network=SMALL, dataset_name="../../elsewhere")
        path = tmp_path / "elsewhere.zip"
        export_model(TrainedModel.open(write_model(tmp_path / "leading", plans)), path)
        with pytest.raises(UserError, match="data set: the name"):
            import_model(path, tmp_path / "results")
        assert not (tmp_path / "results").exists()

    def test_weights_of_another_network(self, archive, tmp_path):
        def change(members):
            plans = json.loads(members["swinsslPlans.json"])
            plans["network"]["encoder"]["embed_dim"] = 48
            members["swinsslPlans.json"] = json.dumps(plans).encode()

        with pytest.raises(UserError, match="does not fit the network"):
            verify_archive(changed(archive, tmp_path / "other.zip", change))

    def test_pickle_under_the_name_of_weights(self, archive, tmp_path):
        torch.save({"weight": torch.ones(3)}, tmp_path / "weights.pt")
        pickled = add("fold_0/model.safetensors", (tmp_path / "weights.pt").read_bytes())
        with pytest.raises(UserError, match="fold_0"):
            verify_archive(changed(archive, tmp_path / "pickle.zip", pickled))

    @pytest.mark.parametrize("missing", [MANIFEST, "dataset.json", "swinsslPlans.json"])
    def test_missing_members(self, archive, tmp_path, missing):
        path = changed(
            archive, tmp_path / "part.zip", lambda members: members.pop(missing), manifest=missing != MANIFEST
        )
        with pytest.raises(UserError):
            verify_archive(path)

    def test_what_the_manifest_does_not_say(self, archive, tmp_path):
        swapped = add("dataset.json", members_of(archive)["dataset.json"].replace(b"nii", b"nrr"))
        with pytest.raises(UserError, match=r"dataset\.json does not match the manifest"):
            verify_archive(changed(archive, tmp_path / "swapped.zip", swapped, manifest=False))

    def test_no_archive(self, tmp_path):
        with pytest.raises(UserError, match="no such file"):
            verify_archive(tmp_path / "none.zip")
        (tmp_path / "text.zip").write_text("hello")
        with pytest.raises(UserError, match="not a zip archive, or damaged"):
            verify_archive(tmp_path / "text.zip")

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.data())
    def test_damage_of_any_kind_is_said_in_words_or_does_no_harm(self, archive, tmp_path, data):
        content = bytearray(archive.read_bytes())
        # Where structure is: before the weights, and the directory at the end.
        places = st.one_of(st.integers(0, 6000), st.integers(len(content) - 900, len(content) - 1))
        for place in data.draw(st.lists(places, min_size=1, max_size=4)):
            content[place] = data.draw(st.integers(0, 255))
        cut = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
        path = tmp_path / "damaged.zip"
        path.write_bytes(bytes(content[:cut]))
        try:
            manifest, _ = verify_archive(path)
        except UserError:
            return
        assert manifest.files.keys() == json.loads(members_of(archive)[MANIFEST])["files"].keys()
