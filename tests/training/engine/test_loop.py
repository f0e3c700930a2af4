"""The loop: exact resume, accumulation, ranks, early stopping, time limits, and what it refuses."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
from dataclasses import replace

import pytest
import torch
import torch.multiprocessing as multiprocessing
from torch import nn

from swinssl.core.errors import Interrupted, UserError
from swinssl.networks.checkpoints.weights_file import read_weights
from swinssl.training.config import TrainingConfig
from swinssl.training.engine import loop as module
from swinssl.training.engine.checkpoint import Checkpoint, first_not_finite, load_checkpoint, save_checkpoint
from swinssl.training.engine.distribution import Ranks
from swinssl.training.engine.loop import Engine
from swinssl.training.engine.progress import Length
from swinssl.training.engine.run_folder import RunFolder
from swinssl.training.engine.task import StepResult

CPU = torch.device("cpu")
TRUTH = torch.tensor([1.0, -2.0, 0.5, 3.0])


class Regression:
    """Linear regression on samples that the draws make; validates by the distance to the true weights."""

    def __init__(self, batch_size=4, *, validation_cost=0.0, closing_cost=0.0, scores=None):
        self.network = nn.Linear(4, 1, bias=False)
        nn.init.zeros_(self.network.weight)
        self.batch_size, self.validation_cost, self.closing_cost = batch_size, validation_cost, closing_cost
        self.average = torch.zeros(4)
        self.scores = iter(scores) if scores is not None else None
        self.kept, self.steps_seen, self.on_step = [], [], {}

    def load(self, draws):
        return torch.from_numpy(draws("sample").standard_normal(4)).float()

    def views(self, samples, draws, device):
        noise = torch.tensor([own("noise").standard_normal() for own in draws], dtype=torch.float32)
        return torch.stack(list(samples)), noise

    def before_step(self, step, total):
        pass

    def step(self, inputs):
        x, noise = inputs
        error = self.network(x)[:, 0] - (x @ TRUTH + 0.1 * noise)
        return StepResult(error**2, {"absolute": float(error.detach().abs().mean())})

    def after_step(self, step, total):
        self.steps_seen.append(step)
        self.average.lerp_(self.network.weight.detach()[0], 0.1)
        self.on_step.get(step, lambda: None)()

    def validate(self):
        if self.scores is not None:
            return {"score": next(self.scores)}
        return {"score": -float((self.average - TRUTH).norm())}

    def extra_weights(self):
        return {"average": self.average}

    def load_extra_weights(self, weights):
        self.average.copy_(weights["average"])

    def keep_best(self):
        self.kept.append(len(self.steps_seen))


def train(folder, task, steps=40, *, per_epoch=10, minutes=None, patience=None, ranks=None, rate=0.05, **choices):
    config = TrainingConfig(**{"readers": 0, "precision": "fp32", "weight_decay": 0.0, **choices})
    length = Length(
        steps=None if minutes else steps, expected=steps, steps_per_epoch=per_epoch, minutes=minutes, patience=patience
    )
    with RunFolder(folder) as run:
        engine = Engine(task, run, config=config, learning_rate=rate, length=length, device=CPU, ranks=ranks or Ranks())
        return engine.run()


@pytest.fixture(autouse=True)
def checkpoints_at_every_epoch(monkeypatch):
    """Steps here take no time, so that writing a checkpoint would be more than its share of it."""
    monkeypatch.setattr(Engine, "_save_is_due", lambda self, seconds: seconds == 0)


def weights(task):
    return torch.cat([task.network.weight.detach().flatten(), task.average])


@pytest.mark.parametrize("readers", [0, 2])
def test_learns_and_logs_every_epoch(tmp_path, readers):
    task = Regression()
    progress = train(tmp_path, task, steps=200, per_epoch=20, rate=0.1, readers=readers)
    assert progress.step == 200 and progress.ended
    assert (task.network.weight[0] - TRUTH).abs().max() < 0.1
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == list(range(20, 201, 20))
    assert log[-1]["loss"] < 0.1 * log[0]["loss"] and log[-1]["absolute"] < log[0]["absolute"]
    assert log[-1]["validation_score"] > log[0]["validation_score"]
    assert all(entry["seconds"] >= entry["waiting_seconds"] >= 0 for entry in log)


def test_the_rate_rises_then_falls_to_nothing_at_the_end(tmp_path):
    task = Regression()
    rates = []
    train(tmp_path, task, steps=100, per_epoch=1, warm_up=0.1)
    rates = [json.loads(line)["learning_rate"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rates.index(max(rates)) == 10 and max(rates) == pytest.approx(0.05)
    assert all(a < b for a, b in itertools.pairwise(rates[:11])) and rates[0] > 0
    assert all(a > b for a, b in itertools.pairwise(rates[10:])) and rates[-1] < 0.001 * 0.05 * 1.1


@pytest.mark.parametrize("stop_at", [[3], [9, 10, 11], [0, 25]])
def test_stopped_and_resumed_is_the_same_to_the_bit(tmp_path, stop_at):
    whole = Regression()
    train(tmp_path / "whole", whole)
    for number in stop_at:
        task = Regression()
        task.on_step = {number: (tmp_path / "parts" / "STOP").touch}
        with pytest.raises(Interrupted, match=f"after {number + 1} of 40 steps"):
            train(tmp_path / "parts", task)
    task = Regression()
    progress = train(tmp_path / "parts", task)
    assert torch.equal(weights(task), weights(whole))
    assert progress.step == 40 and task.steps_seen == list(range(stop_at[-1] + 1, 40))
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("whole", "parts")]
    timeless = [[{k: v for k, v in json.loads(line).items() if "second" not in k} for line in log] for log in logs]
    assert timeless[0] == timeless[1]


def test_a_crash_falls_back_to_the_last_checkpoint_and_redoes_what_followed(tmp_path, monkeypatch):
    whole = Regression()
    train(tmp_path / "whole", whole)

    def crash():
        raise RuntimeError("power cut")

    task = Regression()
    task.on_step = {17: crash}
    with pytest.raises(RuntimeError):
        train(tmp_path / "parts", task)
    resumed = Regression()
    train(tmp_path / "parts", resumed)
    assert resumed.steps_seen[0] == 10  # the checkpoint of the first epoch's end
    assert torch.equal(weights(resumed), weights(whole))


def test_a_damaged_checkpoint_is_passed_over(tmp_path):
    whole = Regression()
    train(tmp_path / "whole", whole)
    task = Regression()
    task.on_step = {25: (tmp_path / "parts" / "STOP").touch}
    with pytest.raises(Interrupted):
        train(tmp_path / "parts", task)
    newest = sorted((tmp_path / "parts" / "checkpoints").iterdir())[-1]
    content = bytearray((newest / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (newest / "weights.safetensors").write_bytes(content)
    resumed = Regression()
    train(tmp_path / "parts", resumed)
    assert resumed.steps_seen[0] == 20 and torch.equal(weights(resumed), weights(whole))
    for path in (tmp_path / "parts" / "checkpoints").glob("*/state.pt"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="every checkpoint is damaged"):
        train(tmp_path / "parts", Regression())


def test_more_steps_go_on_from_the_end(tmp_path):
    train(tmp_path, Regression(), steps=20)
    again = Regression()
    assert train(tmp_path, again, steps=20).step == 20 and again.steps_seen == []
    longer = Regression()
    assert train(tmp_path, longer, steps=30).step == 30 and longer.steps_seen == list(range(20, 30))


def test_a_longer_time_limit_extends_a_finished_run_and_the_same_one_does_not(tmp_path, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)

    def timed():
        task = Regression()
        step = task.after_step

        def slow_step(number, total):
            clock.now += 1.0
            step(number, total)

        task.after_step = slow_step
        return task

    first = train(tmp_path, timed(), steps=60, per_epoch=20, minutes=1)
    again = timed()
    assert train(tmp_path, again, steps=60, per_epoch=20, minutes=1).step == first.step and again.steps_seen == []
    longer = timed()
    done = train(tmp_path, longer, steps=120, per_epoch=20, minutes=2)
    assert longer.steps_seen[0] == first.step and 1.8 * first.step <= done.step <= 120


def test_a_run_that_is_made_shorter_keeps_what_it_has_learnt(tmp_path):
    task = Regression()
    task.on_step = {14: (tmp_path / "STOP").touch}
    with pytest.raises(Interrupted):
        train(tmp_path, task, steps=40)
    shorter = Regression()
    assert train(tmp_path, shorter, steps=12).step == 15 and shorter.steps_seen == [] and shorter.kept


def test_accumulated_parts_add_up_to_the_batch(tmp_path):
    whole, parts = Regression(), Regression()
    train(tmp_path / "whole", whole)
    train(tmp_path / "parts", parts, accumulate=3)
    assert torch.allclose(weights(parts), weights(whole), atol=1e-6)


def _rank(rank, folder, port, result):
    import os

    import torch.distributed as dist

    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    task = Regression()
    train(folder / f"rank{rank}", task, ranks=Ranks(rank, 2))
    result[rank] = weights(task)
    dist.destroy_process_group()


def test_two_ranks_with_half_the_batch_are_one_process(tmp_path):
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    whole = Regression()
    train(tmp_path / "whole", whole)
    with multiprocessing.Manager() as manager:
        result = manager.dict()
        multiprocessing.spawn(_rank, (tmp_path, port, result), nprocs=2)
        for rank in range(2):
            assert torch.allclose(result[rank], weights(whole), atol=1e-6)
    assert not (tmp_path / "rank1" / "log.jsonl").exists()


def test_patience_ends_the_run_and_the_best_is_kept(tmp_path):
    task = Regression(scores=[0.5, 0.7, 0.6, 0.7, 0.65, 0.69, 0.1, 0.9])
    progress = train(tmp_path, task, steps=80, per_epoch=10, patience=3)
    # An equal score replaces the earlier one: it comes from later in the run.
    assert progress.best_epoch == 4 and progress.step == 70
    assert task.kept == [10, 20, 40]
    assert train(tmp_path, Regression(scores=[]), steps=80, per_epoch=10, patience=3).step == 70


def test_patience_counts_validations_and_not_epochs(tmp_path):
    """A validation each four epochs: two in a row that are not better lie eight epochs after the best one."""
    task = Regression(validation_cost=2.0, scores=[0.5, 0.7, 0.6, 0.65, 0.9])
    progress = train(tmp_path, task, steps=400, per_epoch=10, patience=2)
    assert progress.step == 160 and progress.validations == 4 and progress.best_epoch == 8


def test_a_larger_patience_extends_a_run_that_stopped_early(tmp_path):
    train(tmp_path, Regression(scores=[0.5, 0.4, 0.4]), steps=80, per_epoch=10, patience=2)
    longer = Regression(scores=[0.3, 0.6, 0.1, 0.1, 0.1])
    progress = train(tmp_path, longer, steps=80, per_epoch=10, patience=3)
    assert longer.steps_seen[0] == 30 and progress.step == 40  # one more that is not better
    again = Regression(scores=[])
    assert train(tmp_path, again, steps=80, per_epoch=10, patience=3).step == 40 and again.steps_seen == []


def test_the_end_is_kept_even_where_no_checkpoint_is_due(tmp_path, monkeypatch):
    monkeypatch.setattr(Engine, "_save_is_due", lambda self, seconds: False)
    task = Regression(scores=[0.1, 0.3])
    train(tmp_path, task, steps=20, per_epoch=10, patience=5)
    again = Regression(scores=[])
    assert train(tmp_path, again, steps=20, per_epoch=10, patience=5).step == 20
    assert again.steps_seen == [] and torch.equal(weights(again), weights(task))


def test_validation_takes_a_twentieth_of_the_time_by_count(tmp_path):
    # A validation as long as 2 steps, epochs of 10 steps: one each 4 epochs is 5 %; and one at the end.
    task = Regression(validation_cost=2.0)
    train(tmp_path, task, steps=90, per_epoch=10)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in log if "validation_score" in entry] == [4, 8, 9]


def test_without_validation_cases_the_last_weights_are_kept(tmp_path):
    task = Regression()
    task.validate = lambda: {}
    assert train(tmp_path, task).best_score == float("-inf")
    assert task.kept == [40]


class Clock:
    """Time that passes only when the task says so."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.mark.parametrize("expected", [10, 100_000])
def test_a_time_limit_is_met_whatever_was_expected(tmp_path, monkeypatch, expected):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    task = Regression(validation_cost=10.0, closing_cost=20.0)
    step, validate = task.after_step, task.validate

    def slow_step(number, total):
        clock.now += 5.0 if number < 2 else 1.0
        step(number, total)

    def slow_validation():
        clock.now += 15.0
        return validate()

    task.after_step, task.validate = slow_step, slow_validation
    started = clock.now
    progress = train(tmp_path, task, steps=expected, per_epoch=20, minutes=20)
    closing = 30.0  # twice what a validation took
    assert 0.95 * 1200 <= clock.now - started + closing <= 1200
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == progress.step and log[-1]["learning_rate"] < 0.02 * 0.05
    assert "validation_score" in log[-1]


def test_what_follows_a_run_without_validation_lies_within_the_time_too(tmp_path, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    task = Regression(validation_cost=0.0, closing_cost=200.0)
    step = task.after_step

    def slow_step(number, total):
        clock.now += 1.0
        step(number, total)

    task.after_step, started = slow_step, clock.now
    train(tmp_path, task, steps=100_000, per_epoch=20, minutes=20)
    assert 0.95 * 1200 <= clock.now - started + 200 <= 1200


@pytest.mark.parametrize("minutes", [None, 1.0])
def test_a_guessed_number_of_steps_is_not_shown(tmp_path, monkeypatch, minutes):
    totals = []
    meter = module.Meter

    def recorded(what, *, total, **choices):
        totals.append(total)
        made = meter(what, total=total, **choices)
        update = made.update
        made.update = lambda done, *, total, note: (totals.append(total), update(done, total=total, note=note))
        return made

    monkeypatch.setattr(module, "Meter", recorded)
    task = Regression()

    def stop():
        (tmp_path / "STOP").touch()

    # The speed under a time limit is measured over 12 steps after 2 slow ones.
    task.on_step[10 if minutes else 39] = stop
    with contextlib.suppress(Interrupted):
        train(tmp_path, task, steps=10_000 if minutes else 40, minutes=minutes)
    assert set(totals) == ({None} if minutes else {40})


def test_a_loss_that_is_no_number_is_refused_and_the_checkpoint_stays(tmp_path):
    task = Regression()
    task.on_step = {12: lambda: task.network.weight.data.fill_(float("inf"))}
    with pytest.raises(UserError, match=r"Lower --lr .* with --restart .* or with --name"):
        train(tmp_path, task)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step_000000010"]


@pytest.mark.parametrize("at", [8, 9])  # noticed by the next step's loss, and at the end of the epoch
@pytest.mark.parametrize("what", ["weights", "average", "gradient"])
def test_numbers_that_are_not_finite_enter_no_checkpoint_and_no_result(tmp_path, what, at):
    task = Regression()

    def spoil():
        if what == "weights":
            task.network.weight.data.fill_(float("nan"))
        elif what == "average":
            task.average.fill_(float("inf"))
        else:
            task.network.weight.register_hook(lambda gradient: gradient * float("inf"))

    task.on_step = {at: spoil}
    with pytest.raises(UserError, match="Lower --lr"):
        train(tmp_path, task, steps=40)
    assert task.kept == ([10] if what == "gradient" and at == 9 else [])
    for path in (tmp_path / "checkpoints").glob("*/weights.safetensors"):
        assert first_not_finite(read_weights(path)[0]) is None


def test_a_checkpoint_with_numbers_that_are_not_finite_is_passed_over(tmp_path, caplog):
    good = Checkpoint(1, {"network.weight": torch.ones(1, 4), "extra.average": torch.ones(4)}, {})
    save_checkpoint(tmp_path, good)
    save_checkpoint(
        tmp_path, replace(good, step=2, weights={**good.weights, "extra.average": torch.full((4,), torch.nan)})
    )
    assert load_checkpoint(tmp_path).step == 1 and "not finite" in caplog.text


def test_a_damaged_log_is_kept_aside_and_said(tmp_path, caplog):
    train(tmp_path, Regression(), steps=20)
    lines = (tmp_path / "log.jsonl").read_bytes().splitlines()
    (tmp_path / "log.jsonl").write_bytes(b"\xff\xfe{\n[1]\n" + lines[0] + b"\n" + lines[1] + b'\n{"step')
    train(tmp_path, Regression(), steps=30)
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries] == [10, 20, 30]
    assert (tmp_path / "log_damaged_1.jsonl").read_bytes().startswith(b"\xff\xfe{")
    assert "2 of 5 lines are damaged" in caplog.text and "log_damaged_1.jsonl" in caplog.text


def test_a_missing_log_is_said_and_one_that_has_no_line_yet_is_not(tmp_path, caplog):
    task = Regression()
    task.on_step = {3: (tmp_path / "STOP").touch}
    with pytest.raises(Interrupted):
        train(tmp_path, task, steps=20)
    train(tmp_path, Regression(), steps=20)
    assert "is missing" not in caplog.text
    (tmp_path / "log.jsonl").unlink()
    train(tmp_path, Regression(), steps=30)
    assert "log.jsonl: is missing, so curves begin at step 20" in caplog.text


def test_a_folder_that_is_removed_meanwhile_ends_the_run_in_words(tmp_path):
    task = Regression()
    task.on_step = {5: lambda: shutil.rmtree(tmp_path / "run")}
    with pytest.raises(UserError, match="was removed or renamed while the run wrote to it"):
        train(tmp_path / "run", task)


def test_a_start_that_is_refused_leaves_no_folder(tmp_path):
    with pytest.raises(UserError, match="--batch-size 4"):
        train(tmp_path / "model" / "fold_0", Regression(), ranks=Ranks(0, 8))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_refused(tmp_path):
    with RunFolder(tmp_path), pytest.raises(UserError, match="another process is training here"):
        train(tmp_path, Regression())


def test_a_norm_is_clipped_over_all_tensors_or_in_each(tmp_path):
    """One tensor has norm 3 and one norm 4, so that both have 5."""
    task = Regression()
    task.network = nn.ParameterDict({"a": torch.zeros(2), "b": torch.zeros(2)})
    for per, expected in (("network", (3 / 5, 4 / 5)), ("tensor", (1, 1))):
        config = TrainingConfig(clip=1.0, clip_per=per, readers=0)
        length = Length(steps=1, expected=1, steps_per_epoch=1)
        with RunFolder(tmp_path) as run:
            engine = Engine(task, run, config=config, learning_rate=1.0, length=length, device=CPU, ranks=Ranks())
        task.network["a"].grad, task.network["b"].grad = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])
        engine._clip()
        found = [float(p.grad.norm()) for p in task.network.values()]
        assert found == pytest.approx(expected, rel=1e-5)
