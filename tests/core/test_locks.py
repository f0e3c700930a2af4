"""Locks: one holder at a time, none that outlives its process, and no file that is locked after it was removed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading

import pytest

from swinssl.core import locks as module
from swinssl.core.locks import FileLock

HOLDER = """
import sys, time
from pathlib import Path
from swinssl.core.locks import FileLock
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


@pytest.mark.skipif(os.name == "nt", reason="Windows removes no open file")
def test_deleting_the_file_lets_nobody_into_a_folder_that_is_held(tmp_path):
    first, second = (FileLock(tmp_path / "lock", whole_folder=True) for _ in range(2))
    assert first.take()
    (tmp_path / "lock").unlink()
    assert not second.take()
    (tmp_path / "lock").unlink()
    assert first.still_ours() and (tmp_path / "lock").exists()
    first.release()
    assert second.take()


@pytest.mark.skipif(os.name == "nt", reason="Windows removes no open file")
def test_a_holder_notices_that_another_took_the_lock_after_its_file_was_deleted(tmp_path):
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert first.take()
    (tmp_path / "lock").unlink()
    assert second.take() and not first.still_ours() and second.still_ours()


@pytest.mark.skipif(os.name == "nt", reason="Windows says EACCES of a lock that is held")
def test_a_permission_is_not_a_lock_that_another_holds(tmp_path, monkeypatch):
    def refuse(stream):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(module, "_lock_exclusively", refuse)
    with pytest.raises(PermissionError) as error:
        FileLock(tmp_path / "lock").take(wait=True)
    assert error.value.filename == str(tmp_path / "lock")


class TestWithoutLocks:
    """A file system that refuses locks, as Cray DVS does with 524."""

    @pytest.fixture(autouse=True, params=[524, errno.ENOLCK, errno.EOPNOTSUPP])
    def no_locks(self, request, monkeypatch):
        def refuse(stream):
            raise OSError(request.param, os.strerror(request.param))

        monkeypatch.setattr(module, "_lock_exclusively", refuse)
        module._warn_of_lease.cache_clear()

    def test_a_lease_keeps_the_second_out_and_is_spoken_of_once(self, tmp_path, caplog):
        first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
        assert first.take() and not second.take() and first.still_ours()
        assert caplog.text.count("refuses file locks") == 1 and str(tmp_path) in caplog.text
        first.release()
        assert second.take()
        second.release(remove=True)
        assert list(tmp_path.iterdir()) == []

    def test_of_a_killed_process_of_this_machine_it_is_taken_at_once(self, tmp_path, monkeypatch):
        refused = OSError(errno.ENOLCK, "no locks")
        holder = HOLDER.replace("print(", "lock._try_lease(OSError()); print(True); print(")
        with subprocess.Popen(
            [sys.executable, "-c", holder, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout.readline() == "True\n"
            lock = FileLock(tmp_path / "lock")
            assert not lock._try_lease(refused)
            process.kill()
            process.wait()
            assert lock.take(wait=10.0)

    def test_a_lease_that_is_not_refreshed_ends(self, tmp_path, monkeypatch):
        """As one of a machine that went down."""
        monkeypatch.setattr(module, "LEASE_SECONDS", 0.3)
        first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
        assert first.take()
        record = (tmp_path / "lock.lease").read_text()
        first.release()
        (tmp_path / "lock.lease").write_text(record.replace("host=", "host=another-"))
        assert not second.take() and second.uses_lease
        assert second.take(wait=5.0)

    def test_a_holder_takes_a_lease_again_that_was_deleted(self, tmp_path):
        first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
        assert first.take()
        (tmp_path / "lock.lease").unlink()
        assert first.still_ours() and not second.take()
        (tmp_path / "lock.lease").unlink()
        assert second.take() and not first.still_ours()
