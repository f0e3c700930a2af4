"""swinssl_doctor, typed as a user would, in a healthy environment and in one without a single library."""

from __future__ import annotations

import getpass
import json
import os
import platform
import subprocess
import sys
import venv
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


def typed(*arguments, python=sys.executable, cwd=CHECKOUT):
    command = [str(python), "-m", "swinssl.cli.doctor", *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PYTHONPATH"] = str(CHECKOUT)
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return typed("--root", tmp_path_factory.mktemp("doctor") / "data")


def test_prints_every_section_in_a_block_and_then_advice(report):
    assert (report.returncode, report.stderr) == (0, "")
    block = report.stdout.split("```")[1]
    sections = [line.split(":")[0] for line in block.splitlines() if line and not line.startswith(" ")]
    for section in (
        "swinssl",
        "python",
        "system",
        "cpu",
        "memory",
        "versions",
        "workspace",
        "disk",
        "imports",
        "torch",
    ):
        assert section in sections
    assert report.stdout.split("```")[2].strip()


def test_lines_fit_a_report(report):
    assert all(len(line) <= 100 for line in report.stdout.splitlines())


def test_nothing_in_it_identifies(report):
    block = report.stdout
    home = str(Path.home())
    assert len(home) < 2 or home + os.sep not in block
    for name in (getpass.getuser(), platform.node()):
        assert len(name) < 4 or name in ("root", "localhost") or name not in block


def test_json_has_the_same_facts_and_the_advice(tmp_path):
    done = typed("--json", "--root", tmp_path)
    found = json.loads(done.stdout)
    assert found["facts"]["workspace"] == {"root": found["facts"]["workspace"]["root"], "exists": True}
    assert found["facts"]["torch"]["threads"] >= 1
    assert all(set(item) == {"severity", "message", "remedy"} for item in found["advice"])


def test_without_any_library_it_still_speaks_and_exits_2(tmp_path):
    venv.create(tmp_path / "bare", with_pip=False, symlinks=os.name != "nt")
    python = tmp_path / "bare" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    done = typed(python=python)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert "error:" in done.stdout and "pip install -c constraints.txt -e ." in " ".join(done.stdout.split())
