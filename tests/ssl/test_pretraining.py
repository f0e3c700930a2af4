"""From preprocessed volumes to an encoder: it learns, stops, goes on, splits over ranks, and refuses what cannot be."""

from __future__ import annotations

import json
import os
import socket

import pytest
import torch
import torch.multiprocessing as multiprocessing
from support.toy_dataset import ENCODER, NAME, make_preprocessed, plans_for, write_raw
from support.toy_pretraining import run

from swinssl.core.errors import Interrupted, UserError
from swinssl.networks.checkpoints.weights_file import read_weights
from swinssl.planning.encoder_facts import read_encoder_facts
from swinssl.preprocessing.preprocess import preprocess_dataset
from swinssl.ssl.methods.registry import METHODS, load_method
from swinssl.ssl.parts.crops import CropSampler
from swinssl.ssl.pretext_task import PretextTask
from swinssl.ssl.pretraining import PretrainingRun
from swinssl.training.config import TrainingConfig
from swinssl.training.fine_tuning import fine_tune

ALL = sorted(METHODS)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_preprocessed(tmp_path_factory.mktemp("work"), cases=4)


def weights(done):
    return read_weights(done.encoder)[0]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def log_of(done):
    return [json.loads(line) for line in (done.folder / "log.jsonl").read_text().splitlines()]


class TestResult:
    def test_the_loss_falls_and_the_log_tells_of_it(self, folder, tmp_path):
        done = run("reconstruction", folder, tmp_path / "run", steps=30, lr=5e-3)
        log = log_of(done)
        assert log[-1]["loss"] < 0.7 * log[0]["loss"]
        assert {"feature_deviation", "effective_rank", "uniformity", "samples_per_second"} <= log[-1].keys()

    def test_the_run_says_what_it_was(self, folder, tmp_path):
        done = run("smit", folder, tmp_path / "run", options={"mask_ratio": 0.6})
        record = PretrainingRun.read(done.folder / "run.json")
        assert record.status == "done" and record.steps == 3 and record.method == "smit"
        assert record.options["mask_ratio"] == 0.6 and record.config.warm_up == pytest.approx(0.06)
        assert record.volumes == tuple(f"{NAME}/ball_{i}" for i in range(4))
        assert all(set(hashes) == {"image_0000"} for hashes in record.image_sha256.values())

    @pytest.mark.slow
    def test_a_finished_run_that_is_asked_for_again_writes_the_same_bytes(self, folder, tmp_path):
        encoder = run("smit", folder, tmp_path / "run").encoder
        before = encoder.read_bytes()
        assert run("smit", folder, tmp_path / "run").encoder.read_bytes() == before

    def test_plans_can_be_made_for_the_encoder_and_it_can_be_fine_tuned(self, folder, tmp_path):
        done = run("simmim", folder, tmp_path / "simmim")
        facts = read_encoder_facts(done.encoder)
        assert facts.encoder == ENCODER and facts.patch_size == (32, 32, 32)
        assert facts.reference.spacing == (1, 1, 1) and facts.reference.name == "simmim"
        assert facts.intensity is not None and facts.intensity.scheme == "none"
        config = TrainingConfig(init=str(done.encoder), steps=1, device="cpu", precision="fp32", readers=0)
        trained = fine_tune(folder, tmp_path / "results", fold="0", config=config)
        assert "0 missing, 0 unexpected" in trained.run.init_report

    def test_it_draws_its_progress_and_what_it_learnt(self, folder, tmp_path):
        done = run("swinunetr", folder, tmp_path / "run")
        for name in ("progress.png", "learnt.png"):
            assert (done.folder / name).read_bytes().startswith(b"\x89PNG")

    @pytest.mark.slow
    def test_the_teacher_s_encoder_is_kept_unless_the_student_s_is_wanted(self, folder, tmp_path):
        slow = {"teacher_momentum": 0.996}
        teacher = run("dino", folder, tmp_path / "teacher", lr=1e-2, options=slow)
        student = run("dino", folder, tmp_path / "student", lr=1e-2, options={**slow, "keep": "student"})
        start = run("reconstruction", folder, tmp_path / "start", lr=1e-9)
        name = "stages.0.blocks.0.mlp.fc1.weight"
        moved = [float((weights(done)[name] - weights(start)[name]).abs().mean()) for done in (teacher, student)]
        assert 0 < moved[0] < 0.1 * moved[1]

    def test_all_methods_start_from_the_same_encoder(self, folder, tmp_path):
        starts = [weights(run(m, folder, tmp_path / m, steps=1, lr=1e-12)) for m in ("simmim", "dino", "rotation")]
        for other in starts[1:]:
            for name, tensor in other.items():
                torch.testing.assert_close(tensor, starts[0][name], rtol=0, atol=1e-8)

    @pytest.mark.slow
    def test_it_goes_on_from_an_encoder(self, folder, tmp_path):
        first = run("simmim", folder, tmp_path / "first", lr=1e-2)
        second = run(
            "smit", folder, tmp_path / "second", init=str(first.encoder), lr=1e-12, options={"keep": "student"}
        )
        for name, tensor in weights(second).items():
            torch.testing.assert_close(tensor, weights(first)[name], rtol=0, atol=1e-6)


class TestProbe:
    @pytest.mark.slow
    def test_it_is_in_the_log_keeps_the_best_and_changes_nothing(self, folder, tmp_path):
        without = run("simmim", folder, tmp_path / "without", steps=20, lr=5e-3)
        done = run("simmim", folder, tmp_path / "with", steps=20, lr=5e-3, probe=folder)
        assert same(weights(without), weights(done)) and not without.best.exists()
        validated = [entry for entry in log_of(done) if "validation_score" in entry]
        assert len({entry["validation_untrained"] for entry in validated}) == 1
        scores = [entry["validation_score"] for entry in validated]
        assert done.run.best_score == pytest.approx(max(scores)) and 0 < max(scores) <= 1
        assert {"validation_dice_shell", "validation_dice_core"} <= validated[-1].keys()
        facts = read_encoder_facts(done.best)
        assert facts.encoder == ENCODER and facts.reference.name == "with_best"

    @pytest.mark.slow
    def test_stopped_and_resumed_it_says_the_same(self, folder, tmp_path, monkeypatch):
        whole = run("rotation", folder, tmp_path / "whole", steps=12, lr=1e-3, probe=folder)
        stop_after(monkeypatch, 7, tmp_path / "parts")
        with pytest.raises(Interrupted):
            run("rotation", folder, tmp_path / "parts", steps=12, lr=1e-3, probe=folder)
        monkeypatch.undo()
        parts = run("rotation", folder, tmp_path / "parts", steps=12, lr=1e-3, probe=folder)
        scores = [[e.get("validation_score") for e in log_of(done)] for done in (whole, parts)]
        assert scores[0] == scores[1] and whole.run.best_score == parts.run.best_score
        assert same(read_weights(whole.best)[0], read_weights(parts.best)[0])


def stop_after(monkeypatch, steps, folder):
    """Ask the run in `folder` to stop after so many steps."""
    after_step = PretextTask.after_step

    def stopping(self, step, total):
        after_step(self, step, total)
        if step == steps - 1:
            (folder / "STOP").touch()

    monkeypatch.setattr(PretextTask, "after_step", stopping)


class TestGoingOn:
    @pytest.mark.slow
    def test_a_run_goes_on_though_its_data_now_have_another_mean(self, folder, tmp_path, monkeypatch):
        run("simmim", folder, tmp_path / "run", steps=2)
        monkeypatch.setattr(CropSampler, "mean_intensity", lambda self, *, seed: 0.9)
        assert PretrainingRun.read(run("simmim", folder, tmp_path / "run").folder / "run.json").steps == 3

    @pytest.mark.parametrize(
        "method",
        ["contrastive", *(pytest.param(name, marks=pytest.mark.slow) for name in ALL if name != "contrastive")],
    )
    def test_stopped_and_resumed_is_the_same_to_the_bit(self, folder, tmp_path, monkeypatch, method):
        whole = run(method, folder, tmp_path / "whole", steps=5, lr=1e-3)
        stop_after(monkeypatch, 3, tmp_path / "parts")
        with pytest.raises(Interrupted, match="after 3 of 5 steps"):
            run(method, folder, tmp_path / "parts", steps=5, lr=1e-3)
        monkeypatch.undo()
        parts = run(method, folder, tmp_path / "parts", steps=5, lr=1e-3)
        assert same(weights(whole), weights(parts))
        numbers = [{k: v for k, v in log_of(done)[-1].items() if "second" not in k} for done in (whole, parts)]
        assert numbers[0] == numbers[1]

    @pytest.mark.parametrize("choice", [{"lr": 0.5}, {"seed": 3}, {"options": {"mask_ratio": 0.5}}, {"cases": 2}])
    def test_another_run_does_not_go_on_here(self, folder, tmp_path, choice):
        run("simmim", folder, tmp_path / "run", steps=1)
        with pytest.raises(UserError, match="--restart"):
            run("simmim", folder, tmp_path / "run", steps=1, **choice)
        run("simmim", folder, tmp_path / "run", steps=1, restart=True, **choice)
        assert (tmp_path / "old_run_1" / "encoder.safetensors").exists()

    def test_another_method_does_not_go_on_here(self, folder, tmp_path):
        run("rotation", folder, tmp_path / "run", steps=1)
        with pytest.raises(UserError, match="--method rotation"):
            run("reconstruction", folder, tmp_path / "run", steps=1)


# At a low rate: at a high one Adam makes of a rounding of 1e-7, where a LeakyReLU has its kink, a step of its own.
FOR_RANKS = {"batch_size": 4, "lr": 1e-5}


def steps_of(method):
    return 20 if method in ("smit", "swinunetr") else 4


@pytest.mark.slow
def test_two_ranks_with_half_the_batch_are_one_process(folder, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    multiprocessing.spawn(_one_rank, (folder, tmp_path / "ranks", port), nprocs=2)
    for method in ALL:
        whole = run_for_ranks(method, folder, tmp_path / "whole" / method)
        found = read_weights(tmp_path / "ranks" / method / "encoder.safetensors")[0]
        apart = {name: float((found[name] - tensor).abs().max()) for name, tensor in weights(whole).items()}
        assert max(apart.values()) <= 1e-5, (method, max(apart, key=apart.__getitem__), max(apart.values()))


def run_for_ranks(method, folder, out):
    student = {"keep": "student"} if load_method(method).teacher_heads else {}
    return run(method, folder, out, steps=steps_of(method), options=student, **FOR_RANKS)


def _one_rank(rank, folder, out, port):
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    for method in ALL:
        run_for_ranks(method, folder, out / method)
    torch.distributed.destroy_process_group()
    # gloo's threads may hold tensors as the interpreter ends, which then aborts at times (pytorch issue 190489).
    os._exit(0)


class TestSources:
    @pytest.fixture(scope="class")
    def second(self, folder, tmp_path_factory):
        """Another data set, without labels and on the same grid."""
        root = tmp_path_factory.mktemp("second")
        raw = write_raw(root / "raw" / "Dataset002_More", cases=2)
        for label in (root / "raw" / "Dataset002_More" / "labelsTr").iterdir():
            label.unlink()
        raw = type(raw).load(root / "raw" / "Dataset002_More")
        report = preprocess_dataset(raw, plans_for(raw), root / "preprocessed", workers=0)
        assert not report.with_status("failed")
        return root / "preprocessed"

    def test_several_data_sets_labelled_or_not_are_one(self, folder, second, tmp_path):
        done = run("reconstruction", [folder, second], tmp_path / "run", weights="1,3")
        assert done.run.datasets == (NAME, "Dataset002_More") and len(done.run.volumes) == 6

    def test_fewer_cases_are_among_more(self, folder, tmp_path):
        two, three = (set(run("rotation", folder, tmp_path / str(n), cases=n, steps=1).run.volumes) for n in (2, 3))
        assert len(two) == 2 and two < three

    def test_an_unreadable_volume_is_left_out_with_a_report(self, tmp_path, caplog):
        folder = make_preprocessed(tmp_path / "work", cases=3)
        path = folder / "cases" / "ball_1" / "image.b2nd"
        path.write_bytes(path.read_bytes()[:-10])
        done = run("rotation", folder, tmp_path / "run", steps=1)
        assert list(done.run.unreadable) == [f"{NAME}/ball_1"] and len(done.run.volumes) == 2
        assert "1 volume cannot be read and will be skipped (2 can)" in caplog.text

    @pytest.mark.parametrize(
        ("choice", "said"),
        [
            ({"weights": "1,2"}, "expected 1 numbers"),
            ({"weights": "zero"}, "expected 1 numbers"),
            ({"cases": 9}, "Give 1 to 4"),
            ({"patch": (32, 32, 40)}, "multiples of 32"),
            ({"patch": (32, 32, 64)}, "32 x 64 voxels"),
            ({"view_context": "0.5"}, "--view-context"),
            ({"preset": "smal"}, "Did you mean small"),
        ],
    )
    def test_what_does_not_fit_is_refused_in_words(self, folder, tmp_path, choice, said):
        with pytest.raises(UserError, match=said):
            run("rotation", folder, tmp_path / "run", **choice)

    def test_data_sets_on_other_grids_are_refused(self, folder, tmp_path):
        raw = write_raw(tmp_path / "raw" / "Dataset003_Coarse", cases=1)
        preprocess_dataset(raw, plans_for(raw, spacing=(2.0, 2.0, 2.0)), tmp_path / "out", workers=0)
        with pytest.raises(UserError, match="spacing"):
            run("rotation", [folder, tmp_path / "out"], tmp_path / "run")

    def test_contrast_needs_two_samples(self, folder, tmp_path):
        with pytest.raises(UserError, match="needs 2 in each part"):
            run("contrastive", folder, tmp_path / "run", batch_size=2, accumulate=2)


def test_a_collapse_is_said_in_a_real_run(folder, tmp_path, caplog, monkeypatch):
    from swinssl.ssl import health

    monkeypatch.setattr(health, "FEWEST", 3)
    monkeypatch.setattr(load_method("dino"), "prepare", lambda self, crops, rng: {"images": 0 * crops})
    run("dino", folder, tmp_path / "run", steps=12, lr=1e-9)
    assert caplog.text.count("COLLAPSE: all images have nearly the same features") == 1
