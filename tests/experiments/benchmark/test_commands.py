"""Commands of experiments: what stops the experiment lets its command save what it has, and stops it too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from swinssl.experiments.benchmark.commands import run

SAVES = """
import signal, sys, time, pathlib
def save(*_):
    pathlib.Path(sys.argv[1], "saved").touch()
    sys.exit(130)
signal.signal(signal.SIGTERM, save)
pathlib.Path(sys.argv[1], "ready").touch()
time.sleep(60)
"""


def test_a_sigterm_is_handed_on_and_waited_for(tmp_path):
    def stop():
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        run([sys.executable, "-c", SAVES, tmp_path])
    assert (tmp_path / "saved").exists()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_command_that_fails_is_an_error_with_its_code():
    with pytest.raises(subprocess.CalledProcessError) as failed:
        run([sys.executable, "-c", "raise SystemExit(2)"])
    assert failed.value.returncode == 2


def test_it_runs_in_the_environment_that_is_given(tmp_path):
    code = "import os, pathlib; pathlib.Path(os.environ['WHERE'], 'here').touch()"
    run([sys.executable, "-c", code], environment={**os.environ, "WHERE": str(tmp_path)})
    assert (tmp_path / "here").exists()
