"""torch starts as many threads as are allotted and they wait briefly, unless the user said otherwise."""

from __future__ import annotations

import os

import pytest

from swinssl.core import machine as threads
from swinssl.core.errors import UserError
from swinssl.core.machine import limit_threads, set_omp_wait_policy, threads_per_process

VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
        ({"OMP_WAIT_POLICY": ""}, {"OMP_WAIT_POLICY": ""}),
        ({"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "7"}),
        (
            {"OMP_WAIT_POLICY": "active", "GOMP_SPINCOUNT": "INFINITY"},
            {"OMP_WAIT_POLICY": "active", "GOMP_SPINCOUNT": "INFINITY"},
        ),
    ],
)
def test_what_the_user_set_stays(monkeypatch, before, after):
    for name in VARIABLES:
        # Set first, so that what the function adds is taken away again.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    for _ in range(2):  # a second call changes nothing
        set_omp_wait_policy()
        assert {name: os.environ[name] for name in VARIABLES if name in os.environ} == after


@pytest.mark.parametrize(
    ("usable", "before", "after"), [(2, None, "2"), (2, "7", "7"), (16, None, None)], ids=["a share", "set", "all"]
)
def test_threads_fit_what_is_allotted(monkeypatch, usable, before, after):
    monkeypatch.setenv("OMP_NUM_THREADS", before or "")
    if before is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(threads, "bound_cores", lambda: 16)
    monkeypatch.setattr(threads, "usable_cores", lambda: usable)
    limit_threads()
    assert os.environ.get("OMP_NUM_THREADS") == after


@pytest.mark.parametrize(
    ("usable", "before", "after"),
    [(4, None, "2"), (1, None, "1"), (16, None, "8"), (4, "7", "7"), (16, "16", "16")],
    ids=["a share", "less than one each", "all", "set", "set to all"],
)
def test_processes_divide_what_is_allotted(monkeypatch, usable, before, after):
    monkeypatch.setenv("OMP_NUM_THREADS", before or "")
    if before is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(threads, "bound_cores", lambda: 16)
    monkeypatch.setattr(threads, "usable_cores", lambda: usable)
    assert threads_per_process(2) == after
    limit_threads()  # as the command that starts them did
    assert threads_per_process(2) == after


@pytest.mark.parametrize("found", ["abc", "", "0", "-2", "4,2", "1.5"])
def test_a_number_of_threads_that_is_none_is_said_at_once(monkeypatch, found):
    monkeypatch.setenv(threads.THREADS, found)
    with pytest.raises(UserError, match=rf"OMP_NUM_THREADS={found}: expected a whole number above 0"):
        limit_threads()
