"""The engine's small parts: optimiser groups, schedule, weight average, read-ahead, stop requests, log, checkpoints."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
import time

import pytest
import torch
from torch import nn

from swinssl.core.errors import UserError
from swinssl.core.rng import KeyedRng
from swinssl.networks.architectures import build_network
from swinssl.networks.network_plan import NetworkPlan, encoder_preset
from swinssl.training.engine.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from swinssl.training.engine.optimiser import cosine_with_warm_up, make_optimiser
from swinssl.training.engine.prefetch import read_ahead
from swinssl.training.engine.run_folder import RunFolder, StopRequests
from swinssl.training.engine.weight_average import WeightAverage


def test_norms_biases_and_position_tables_are_not_decayed():
    network = build_network(NetworkPlan(preset="tiny", encoder=encoder_preset("tiny")), in_channels=1, num_outputs=2)
    optimiser = make_optimiser(network, learning_rate=1e-3, weight_decay=0.1)
    decayed = {id(p) for group in optimiser.param_groups if group["weight_decay"] > 0 for p in group["params"]}
    plain = {id(p) for group in optimiser.param_groups if group["weight_decay"] == 0 for p in group["params"]}
    for name, parameter in network.named_parameters():
        is_plain = name.endswith(("bias", "bias_table")) or parameter.ndim == 1
        assert (id(parameter) in plain, id(parameter) in decayed) == (is_plain, not is_plain), name


def test_the_cosine_is_half_way_in_the_middle_and_starts_above_zero():
    factors = [cosine_with_warm_up(step, 1000, warm_up=0.06) for step in range(1000)]
    assert factors[0] == pytest.approx(1 / 61) and factors[60] == 1.0
    assert factors[60 + 470] == pytest.approx(0.5) and 0 < factors[-1] < 1e-5
    assert cosine_with_warm_up(0, 1, warm_up=0.03) == 1.0


class TestWeightAverage:
    def test_follows_the_recursion_and_leaves_the_network_alone(self):
        network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
        average = WeightAverage(network, decay=0.9)
        expected = network[0].weight.detach().clone()
        for step in range(30):
            with torch.no_grad():
                network[0].weight.add_(torch.randn(3, 3, generator=torch.Generator().manual_seed(step)))
            before = network[0].weight.detach().clone()
            average.update(network, step)
            decay = min(0.9, (1 + step) / (10 + step))
            expected = decay * expected + (1 - decay) * before
            assert torch.equal(network[0].weight, before)
        assert torch.allclose(average.network[0].weight, expected, atol=1e-6)
        assert not average.network.training and not average.network[0].weight.requires_grad

    def test_averages_running_statistics_and_takes_over_counters(self):
        network = nn.BatchNorm1d(2)
        average = WeightAverage(network, decay=0.5)
        network.train()(torch.randn(8, 2) + 5)
        average.update(network, step=100)
        assert torch.allclose(average.network.running_mean, 0.5 * network.running_mean)
        assert average.network.num_batches_tracked == 1


class TestReadingAhead:
    @pytest.mark.parametrize("readers", [0, 1, 3])
    def test_yields_every_step_in_order_whoever_is_faster(self, readers):
        def load(draws):
            time.sleep(0.002 * ((draws.step * 7 + draws.sample * 3) % 4))
            return draws.step, draws.sample

        steps = read_ahead(load, lambda s: [KeyedRng(0, s, i) for i in range(3)], first_step=5, readers=readers)
        found = [next(steps) for _ in range(6)]
        steps.close()
        assert found == [[(step, sample) for sample in range(3)] for step in range(5, 11)]

    @pytest.mark.parametrize("readers", [0, 2])
    def test_an_error_comes_up_where_its_step_is_due(self, readers):
        def load(draws):
            if draws.step == 2:
                raise UserError("case_7: damaged")
            return draws.step

        steps = read_ahead(load, lambda s: [KeyedRng(0, s, 0)], first_step=0, readers=readers)
        assert [next(steps), next(steps)] == [[0], [1]]
        with pytest.raises(UserError, match="case_7"):
            next(steps)

    def test_closing_ends_the_threads(self):
        steps = read_ahead(lambda draws: 0, lambda s: [KeyedRng(0, s, 0)], first_step=0, readers=2)
        next(steps)
        steps.close()
        assert not [t for t in threading.enumerate() if t.name.startswith("reader")]


class TestStopRequests:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_asks_and_the_handlers_come_back(self, tmp_path, number):
        before = signal.getsignal(number)
        with StopRequests(tmp_path / "STOP") as requests:
            assert not requests.asked
            os.kill(os.getpid(), number)
            assert requests.asked
        assert signal.getsignal(number) is before

    def test_the_second_ctrl_c_does_not_wait(self, tmp_path):
        with pytest.raises(KeyboardInterrupt), StopRequests(tmp_path / "STOP"):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)

    def test_the_file_asks(self, tmp_path):
        with StopRequests(tmp_path / "STOP") as requests:
            (tmp_path / "STOP").touch()
            assert requests.asked


class TestRunFolder:
    def test_a_cut_line_of_the_log_is_left_out_and_later_steps_are_forgotten(self, tmp_path):
        with RunFolder(tmp_path / "run") as run:
            for step in (10, 20, 30):
                run.log({"step": step, "loss": float("nan")})
            with open(run.log_file, "a") as stream:
                stream.write('{"step": 4')
            assert [entry["step"] for entry in run.read_log()] == [10, 20, 30]
            assert run.read_log()[0]["loss"] is None
            run.truncate_log(20)
            assert [json.loads(line)["step"] for line in run.log_file.read_text().splitlines()] == [10, 20]

    def test_an_old_stop_file_does_not_stop_a_new_run(self, tmp_path):
        (tmp_path / "STOP").touch()
        with RunFolder(tmp_path) as run:
            assert not run.stop_file.exists()

    def test_what_a_killed_run_left_half_written_is_cleared_away(self, tmp_path):
        (tmp_path / ".writing-abc").mkdir()
        (tmp_path / ".writing-abc" / "model.mhd").write_bytes(b"half")
        (tmp_path / ".writing-def-model.safetensors").write_bytes(b"half")
        with RunFolder(tmp_path):
            assert not list(tmp_path.glob(".writing-*"))


class TestCheckpoints:
    def test_come_back_to_the_bit_and_only_two_are_kept(self, tmp_path):
        moments = {"state": {0: {"exp_avg": torch.randn(3, 2), "step": torch.tensor(4.0)}}}
        for step in (1, 2, 10):
            weights = {"network.w": torch.randn(2, 3, 4, 5, 6).to(memory_format=torch.channels_last_3d)}
            save_checkpoint(tmp_path, Checkpoint(step, weights, {"optimiser": moments, "sums": {"loss": 0.1}}))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["step_000000002", "step_000000010"]
        found = load_checkpoint(tmp_path)
        assert found.step == 10 and torch.equal(found.weights["network.w"], weights["network.w"])
        assert torch.equal(found.state["optimiser"]["state"][0]["exp_avg"], moments["state"][0]["exp_avg"])
        assert found.state["sums"] == {"loss": 0.1}

    def test_a_half_written_one_does_not_count(self, tmp_path):
        save_checkpoint(tmp_path, Checkpoint(1, {"w": torch.ones(1)}, {}))
        (tmp_path / ".writing-step_000000002").mkdir()
        (tmp_path / "step_000000003").mkdir()
        assert load_checkpoint(tmp_path).step == 1

    def test_what_a_kill_left_of_another_step_goes_with_the_next_one(self, tmp_path):
        (tmp_path / ".writing-step_000000002").mkdir()
        (tmp_path / ".writing-step_000000002" / "weights.safetensors").write_bytes(b"half")
        save_checkpoint(tmp_path, Checkpoint(3, {"w": torch.ones(1)}, {}))
        assert [path.name for path in tmp_path.iterdir()] == ["step_000000003"]

    def test_nothing_there_is_none(self, tmp_path):
        assert load_checkpoint(tmp_path / "nowhere") is None

    def test_a_state_file_that_would_run_code_is_refused(self, tmp_path):
        class Harmful:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "harm"),)

        save_checkpoint(tmp_path, Checkpoint(1, {"w": torch.ones(1)}, {}))
        state = tmp_path / "step_000000001" / "state.pt"
        torch.save({"optimiser": Harmful()}, state)
        manifest = tmp_path / "step_000000001" / "manifest.json"
        content = json.loads(manifest.read_text())
        content["sha256"]["state.pt"] = hashlib.sha256(state.read_bytes()).hexdigest()
        manifest.write_text(json.dumps(content))
        with pytest.raises(UserError, match="every checkpoint is damaged"):
            load_checkpoint(tmp_path)
        assert not (tmp_path / "harm").exists()
