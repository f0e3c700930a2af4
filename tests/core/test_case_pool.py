"""The pool of worker processes: results, deaths, and the end of it."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest

from swinssl.core.pools import Crash, run_jobs


def answer(job):
    """What a worker does with a job: squares it, dies with a code, is killed, or says where it runs."""
    if job == "die":
        os._exit(3)
    if job == "kill":
        os.kill(os.getpid(), 9)
    if job == "where":
        return os.getpid(), os.environ.get("OMP_NUM_THREADS")
    if job == "sleep":
        time.sleep(60)
    return job * job


def workers_alive():
    """Where they are forked, what the server has below it; it waits for more work itself."""
    below = psutil.Process().children(recursive=True)
    servers = [p for p in below if "forkserver" in " ".join(p.cmdline()) and p.ppid() == os.getpid()]
    return [p for p in below if p not in servers and "resource_tracker" not in " ".join(p.cmdline())]


def hang(job):
    """What a disk that does not answer does to a worker: it never comes back, and no request to end reaches it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(job)
    return job


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_every_job_is_answered_once(workers):
    assert sorted(run_jobs(answer, range(7), workers=workers)) == [(i, i * i) for i in range(7)]


def test_a_death_costs_its_own_job_only():
    found = dict(run_jobs(answer, [1, "die", 2, "kill", 3, 4], workers=2))
    assert {i: found[i] for i in (0, 2, 4, 5)} == {0: 1, 2: 4, 4: 9, 5: 16}
    assert found[1] == Crash(3) and "exit code 3" in str(found[1])
    assert found[3] == Crash(-9) and "memory" in str(found[3])


def test_workers_are_other_processes_with_one_thread_each():
    before = os.environ.get("OMP_NUM_THREADS")
    ((_, (process, threads)),) = run_jobs(answer, ["where"], workers=1)
    assert process != os.getpid() and threads == "1"
    assert os.environ.get("OMP_NUM_THREADS") == before


def test_stopping_ends_the_workers():
    results = run_jobs(answer, [1, "sleep", "sleep"], workers=2)
    assert next(results) == (0, 1)
    started = time.monotonic()
    results.close()
    assert time.monotonic() - started < 10 and not workers_alive()


def test_a_job_that_hangs_is_named_and_can_be_stopped(monkeypatch, caplog):
    monkeypatch.setattr("swinssl.core.pools.SLOW_SECONDS", 0.2)
    monkeypatch.setattr("swinssl.core.pools.ENDING_SECONDS", 0.2)
    results = run_jobs(hang, [4, 600], workers=2, name=lambda job: {4: "quick", 600: "stuck"}[job])
    assert next(results) == (0, 4)
    results.close()
    assert "stuck: no answer for" in caplog.text and "press Ctrl-C" in caplog.text
    assert not workers_alive()


def test_no_jobs():
    assert list(run_jobs(answer, [], workers=2)) == []
