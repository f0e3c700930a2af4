"""One run in its folder: what `run.json` says after each way that a sitting can go."""

from __future__ import annotations

import pytest

from swinssl.core.errors import Interrupted, UserError
from swinssl.training.engine.config import EngineConfig
from swinssl.training.engine.distribution import Ranks
from swinssl.training.engine.lifecycle import RunLifecycle
from swinssl.training.engine.progress import Length
from swinssl.training.engine.run_description import EngineRun
from swinssl.training.engine.run_folder import RunFolder

RESULT = "weights.safetensors"


def life(folder, *, ranks=None, **choices):
    return RunLifecycle(
        RunFolder(folder),
        EngineRun(config=EngineConfig(**choices)),
        ranks=ranks or Ranks(),
        length=Length(steps=5, expected=5, steps_per_epoch=1),
        batch_size=2,
        result=lambda: RESULT if (folder / RESULT).is_file() else None,
    )


def finish(started, folder, steps=5):
    with started.begin(restart=False):
        facts = started.train(lambda run: {"steps": steps}, outcome={"steps"})
        (folder / RESULT).touch()
        started.run = started.run.finish("done", **facts)
        started.write()


def status(folder):
    return EngineRun.read(folder / "run.json")


@pytest.mark.parametrize(
    ("error", "expected", "failure"),
    [
        (Interrupted("saved"), "stopped", None),
        (KeyboardInterrupt(), "stopped", None),
        (UserError("lower --lr"), "failed", "lower --lr"),
        (RuntimeError("bug"), "failed", "RuntimeError('bug')"),
    ],
)
def test_the_description_says_how_a_sitting_ended(tmp_path, error, expected, failure):
    started = life(tmp_path / "run")

    def train(run):
        started.folder.began = True
        assert status(tmp_path / "run").status == "running"
        raise error

    with pytest.raises(type(error)), started.begin(restart=False):
        started.train(train, outcome={"steps"})
    assert (status(tmp_path / "run").status, status(tmp_path / "run").failure) == (expected, failure)


def test_memory_that_runs_out_is_explained_with_options_that_help(tmp_path):
    started = life(tmp_path / "run")
    started.folder.began = True
    with pytest.raises(UserError, match="--accumulate 2"), started.begin(restart=False):
        started.train(lambda run: (_ for _ in ()).throw(MemoryError()), outcome={"steps"})
    assert status(tmp_path / "run").status == "failed"


def test_a_finished_run_without_checkpoints_is_not_trained_again(tmp_path):
    folder = tmp_path / "run"
    finish(life(folder), folder)
    again = life(folder)
    with again.begin(restart=False):
        facts = again.train(lambda run: pytest.fail("trained again"), outcome={"steps"})
    assert again.closed and facts == {"steps": 5}


def test_another_run_is_refused_and_a_restart_archives_it(tmp_path):
    folder = tmp_path / "run"
    finish(life(folder), folder)
    other = life(folder, seed=1)
    with pytest.raises(UserError, match="--restart"):
        other.check(restart=False)
    with pytest.raises(UserError, match="--restart"), other.begin(restart=False):
        pass
    other.check(restart=True)
    with life(folder, seed=1).begin(restart=True):
        pass
    assert (tmp_path / "old_run_1" / RESULT).is_file() and not (folder / RESULT).exists()
    assert status(folder).config.seed == 1


def test_a_second_process_waits_for_nobody_and_is_refused(tmp_path):
    with life(tmp_path).begin(restart=False), pytest.raises(UserError, match="another process"):
        life(tmp_path).check(restart=False)


def test_only_the_main_rank_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(Ranks, "broadcast", lambda self, values: list(values))
    monkeypatch.setattr(Ranks, "barrier", lambda self: None)
    other = life(tmp_path / "run", ranks=Ranks(1, 2))
    with pytest.raises(RuntimeError), other.begin(restart=True):
        other.train(lambda run: (_ for _ in ()).throw(RuntimeError()), outcome=set())
    assert not (tmp_path / "run").exists()
