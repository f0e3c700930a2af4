"""What a run starts from: the plan's encoder unless the user says otherwise, wherever its file lies now."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from support.toy_dataset import ENCODER, NAME, make_preprocessed

from swinssl.core.errors import UserError
from swinssl.networks.checkpoints.encoder_file import EncoderRecord, write_encoder
from swinssl.networks.network_plan import encoder_preset
from swinssl.networks.swin.encoder import SwinEncoder
from swinssl.planning.encoder_facts import learnt_otherwise, read_encoder_facts
from swinssl.preprocessing.plans import Plans
from swinssl.training.config import TrainingConfig
from swinssl.training.start import start_in_words, with_start

LEARNT = {
    "spacing": (1.5, 1.5, 1.5),
    "patch_size": (64, 32, 32),
    "intensity": {"scheme": "window", "low": -500.0, "high": 500.0},
}


def write_toy_encoder(path, plan=ENCODER, seed=0, **record):
    path.parent.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = SwinEncoder(plan, in_channels=1)
    write_encoder(path, encoder.state_dict(), EncoderRecord(encoder=plan, in_channels=1, **record))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A workspace whose plan was made for the encoder in it; not to be changed."""
    root = tmp_path_factory.mktemp("work")
    path = write_toy_encoder(root / "results" / "pretraining" / "simmim" / "encoder.safetensors", **LEARNT)
    make_preprocessed(root, cases=3, plans_changes={"encoder": read_encoder_facts(path).reference})
    return root


@pytest.fixture
def root(made, tmp_path):
    shutil.copytree(made, tmp_path / "root")
    folder = tmp_path / "root" / "preprocessed" / NAME
    return retarget(tmp_path / "root", Plans.read(folder), folder)


def retarget(root, plans, folder):
    """The copy's plan as if it had been planned there."""
    place = str(root / "results" / "pretraining" / "simmim" / "encoder.safetensors")
    plans.model_copy(update={"encoder": plans.encoder.model_copy(update={"place": place})}).write(
        folder / "swinsslPlans.json"
    )
    return root


def start(root, **choices):
    folder = root / "preprocessed" / NAME
    return with_start(TrainingConfig(**choices), Plans.read(folder), folder)


def words(root, config):
    folder = root / "preprocessed" / NAME
    return start_in_words(config, Plans.read(folder), folder)


def encoder_of(root):
    return root / "results" / "pretraining" / "simmim" / "encoder.safetensors"


class TestStart:
    def test_is_the_planned_encoder(self, root):
        config = start(root)
        assert config.init == str(encoder_of(root))
        assert words(root, config)[0].startswith("starting from the encoder simmim, which the plan was made for")

    def test_is_what_the_user_says(self, root):
        assert start(root, init="scratch").init == "scratch"
        assert words(root, start(root, init="scratch")) == [
            "starting from scratch; the plan was made for the encoder simmim"
        ]

    def test_of_a_plan_without_an_encoder_and_of_a_cnn_is_scratch(self, root, tmp_path):
        assert start(root, network="resenc").init == "scratch"
        make_preprocessed(tmp_path / "plain", cases=1)
        assert start(tmp_path / "plain").init == "scratch"

    def test_says_what_the_encoder_learnt_otherwise(self, root):
        said = words(root, start(root))
        assert said[1:] == [
            "note: simmim learnt spacing 1.5 x 1.5 x 1.5 mm (plan: 1 x 1 x 1 mm)",
            "note: simmim learnt patch 64 x 32 x 32 (plan: 32 x 32 x 32)",
            "note: simmim learnt intensity window [-500, 500] to [0, 1] (plan: unchanged)",
        ]

    def test_from_another_encoder_names_the_plan_that_it_needs(self, root, tmp_path):
        other = write_toy_encoder(tmp_path / "a b.safetensors", seed=1)
        said = words(root, start(root, init=str(other)))
        assert said[0] == "starting from the encoder a b"
        assert f"the plan was made for the encoder simmim. To plan for it: swinssl_plan {NAME} --root {root}" in said[1]
        assert f"--init '{other}', then swinssl_preprocess {NAME} --root {root}" in said[1]

    def test_says_nothing_of_what_the_file_does_not_say(self, root, tmp_path):
        facts = read_encoder_facts(write_toy_encoder(tmp_path / "a.safetensors"))
        assert learnt_otherwise(facts, Plans.read(root / "preprocessed" / NAME)) == ()


class TestPlace:
    def test_of_a_workspace_that_moved(self, root, tmp_path):
        moved = root.rename(tmp_path / "moved")
        assert start(moved).init == str(encoder_of(moved))

    def test_is_found_by_the_hash(self, root, tmp_path, monkeypatch):
        # Another encoder has the old place, the right one lies in the working directory.
        (tmp_path / "here").mkdir()
        shutil.move(encoder_of(root), tmp_path / "here" / "encoder.safetensors")
        write_toy_encoder(encoder_of(root), seed=1)
        monkeypatch.chdir(tmp_path / "here")
        assert start(root).init == str(tmp_path / "here" / "encoder.safetensors")

    def test_of_a_plan_of_the_first_version(self, root):
        folder = root / "preprocessed" / NAME
        content = json.loads((folder / "swinsslPlans.json").read_text())
        del content["encoder"]["place"]
        (folder / "swinsslPlans.json").write_text(json.dumps(content))
        assert start(root).init == str(encoder_of(root))

    @pytest.mark.parametrize("changed", [False, True])
    def test_that_is_lost_is_refused_with_remedies_that_work(self, root, tmp_path, changed):
        kept = encoder_of(root).rename(tmp_path / "kept.safetensors")
        if changed:
            write_toy_encoder(encoder_of(root), seed=1)
        said = f"{encoder_of(root)} has changed since" if changed else f"not at {encoder_of(root)} any more"
        with pytest.raises(UserError, match="the plan was made for the encoder simmim") as refusal:
            start(root)
        assert said in str(refusal.value)
        assert f"swinssl_plan {NAME} --root {root} --init ENCODER" in str(refusal.value)
        assert start(root, init="scratch").init == "scratch"
        assert "which the plan was made for" in words(root, start(root, init=str(kept)))[0]
        if changed:
            said = words(root, start(root, init=str(encoder_of(root))))
            assert "the plan was made for another simmim (SHA-256" in said[1]


@pytest.mark.usefixtures("one_thread")
class TestTraining:
    LENGTH = ("--steps", 1, "--device", "cpu", "--readers", 0)

    def test_uses_the_planned_encoder_at_every_step_of_the_way(self, root, typed, caplog):
        dry = json.loads(typed("train", "1", "--root", root, "--dry-run", "--json", *self.LENGTH).out)
        model = root / "results" / NAME / "tiny__simmim"
        assert dry["init"] == str(encoder_of(root)) and dry["folder"] == str(model / "fold_0")
        done = typed("train", "1", "--root", root, "--fold", "0-1", *self.LENGTH)
        assert done.code == 0 and "starting from the encoder simmim, which the plan was made for" in caplog.text
        for fold in (0, 1):
            run = json.loads((model / f"fold_{fold}" / "run.json").read_text())
            assert run["config"]["init"] == str(encoder_of(root))
            assert run["init_sha256"] == read_encoder_facts(encoder_of(root)).reference.sha256
            assert " 0 missing" in run["init_report"]
        # The same encoder, as the next line names it: nothing is trained again.
        again = typed("train", "1", "--root", root, "--fold", 0, "--init", encoder_of(root), *self.LENGTH)
        assert again.code == 0 and "trained and measured before" in caplog.text

    def test_a_model_does_not_say_where_the_encoder_lay(self, root, typed):
        assert typed("train", "1", "--root", root, *self.LENGTH, "--name", "m").code == 0
        plans = Plans.read(root / "results" / NAME / "m")
        assert plans.encoder.name == "simmim" and plans.encoder.place is None

    def test_from_an_encoder_that_does_not_fit_names_the_plan_that_it_needs(self, root, tmp_path, typed):
        other = write_toy_encoder(tmp_path / "other.safetensors", encoder_preset("tiny"))
        done = typed("train", "1", "--root", root, "--init", other, *self.LENGTH)
        assert done.code == 2
        assert f"swinssl_plan {NAME} --root {root} --init {other}" in done.error
        assert f"then swinssl_preprocess {NAME} --root {root}" in done.error and "--init scratch" in done.error
