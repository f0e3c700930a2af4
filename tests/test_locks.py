"""Locks: one holder at a time, none that outlives its process, and no file that is locked after it was removed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from swinssl import locks as module
from swinssl.locks import FileLock

HOLDER = """
import sys, time
from pathlib import Path
from swinssl.locks import FileLock
lock = FileLock(Path(sys.argv[1]))
print(lock.take(), flush=True)
time.sleep(600)
"""


def test_one_holds_it_at_a_time(tmp_path):
    first, second = FileLock(tmp_path / "folder" / "lock"), FileLock(tmp_path / "folder" / "lock")
    assert first.take() and not second.take()
    first.release()
    assert second.take() and not first.take()


def test_a_killed_holder_leaves_nothing_behind(tmp_path):
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "True\n"
        lock = FileLock(path)
        assert not lock.take()
        holder.kill()
        assert lock.take(wait=True)


def test_who_waits_gets_it(tmp_path):
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert first.take()
    waiting = threading.Thread(target=second.take, kwargs={"wait": True})
    waiting.start()
    first.release(remove=True)
    waiting.join(timeout=30)
    # The file that the second opened first is gone; what it holds is the one that others find.
    assert not waiting.is_alive() and not FileLock(tmp_path / "lock").take()
    second.release(remove=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows removes no open file")
def test_a_file_that_was_removed_meanwhile_counts_for_nothing(tmp_path, monkeypatch):
    lock_exclusively, calls = module._lock_exclusively, []

    def removed_before_it_was_locked(stream):
        if not calls:
            (tmp_path / "lock").unlink()
        calls.append(stream)
        lock_exclusively(stream)

    monkeypatch.setattr(module, "_lock_exclusively", removed_before_it_was_locked)
    assert FileLock(tmp_path / "lock").take() and len(calls) == 2
    assert not FileLock(tmp_path / "lock").take()


def test_a_file_system_without_locks_is_worked_on_with_a_warning(tmp_path, monkeypatch, caplog):
    def refuse(stream):
        raise OSError(next(iter(module.NO_LOCKS)), "no locks available")

    monkeypatch.setattr(module, "_lock_exclusively", refuse)
    assert FileLock(tmp_path / "lock").take() and "has no locks" in caplog.text
