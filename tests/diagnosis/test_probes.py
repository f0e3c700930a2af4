"""The probes: right where the truth is known, silent about names, and unharmed by what is broken."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import textwrap
from importlib import metadata
from pathlib import Path

import pytest

from swinssl.diagnosis import import_trial, libraries, machine, storage
from swinssl.diagnosis.diagnosis import diagnose
from swinssl.diagnosis.facts import as_text


def test_requirements_are_those_of_the_package():
    asked = libraries.requirements()
    assert asked["torch"] == "2.10" and "hypothesis" not in asked and "isal" not in asked
    assert libraries.version_facts()["torch"] == metadata.version("torch")


def test_every_library_has_a_module_to_import_on_trial():
    missing = [module for module in libraries.modules().values() if importlib.util.find_spec(module) is None]
    assert not missing


def test_torchvision_s_torch_is_read_from_its_metadata(monkeypatch):
    lines = {"torchvision": ["numpy", "torch (==2.12.1)", 'gdown>=4 ; extra == "gdown"']}
    monkeypatch.setattr(metadata, "requires", lambda name: lines[name])
    assert libraries.torch_for_torchvision() == "2.12.1"


@pytest.mark.parametrize(
    ("version", "parts"),
    [("2.13.0+cpu", (2, 13, 0)), ("0.25.5.post1", (0, 25, 5)), ("1.0rc1", (1, 0)), ("unknown", ())],
)
def test_version_numbers_leave_suffixes_out(version, parts):
    assert libraries.numbers(version) == parts


@pytest.fixture
def broken_modules(tmp_path, monkeypatch):
    """Modules that import, raise, kill Python, and never end."""
    sources = {"fine_one": "", "raises_one": "raise ValueError('no DLL')", "kills_one": "import os; os._exit(134)"}
    sources |= {"hangs_one": "import time; time.sleep(60)", "talks_one": "print('{not json}')"}
    for name, source in sources.items():
        (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.mark.usefixtures("broken_modules")
class TestImportTrial:
    def test_an_import_that_raises_is_told_and_the_next_ones_are_tried(self):
        imports = import_trial.try_imports({"bad": "raises_one", "talks": "talks_one", "fine": "fine_one"}).imports
        assert imports["failed"] == {"bad": "ValueError: no DLL"} and imports["tried"] == 3

    def test_an_import_that_kills_python_is_named_and_those_before_it_stay_known(self):
        trial = import_trial.try_imports({"fine": "fine_one", "bad": "kills_one", "after": "fine_one"})
        assert trial.imports["failed"] == {"bad": "stopped Python (exit code 134)"}
        assert trial.torch == {}

    def test_an_import_that_hangs_is_given_up(self, monkeypatch):
        monkeypatch.setattr(import_trial, "LIMIT_SECONDS", 2)
        failed = import_trial.try_imports({"fine": "fine_one", "bad": "hangs_one"}).imports["failed"]
        assert failed == {"bad": "stopped Python (still busy after 2 s)"}


def test_a_container_s_limits_are_told_where_there_are_some(monkeypatch):
    monkeypatch.setattr(machine, "cpu_limit", lambda: None)
    monkeypatch.setattr(machine, "memory_limit", lambda: None)
    assert "container_limit" not in machine.cpu_facts() and "container_limit_gb" not in machine.memory_facts()
    monkeypatch.setattr(machine, "cpu_limit", lambda: 1.5)
    monkeypatch.setattr(machine, "memory_limit", lambda: 4 * 10**9)
    assert machine.cpu_facts()["container_limit"] == 1.5
    assert machine.memory_facts()["container_limit_gb"] == 4.0


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a shell script")
def test_cards_are_those_that_the_driver_names(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA A100-SXM4-40GB, 40960, 570.86.15'\n")
    program.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(program))
    assert machine.graphics_facts() == {"nvidia_driver": "570.86.15", "cards": ["NVIDIA A100-SXM4-40GB 43 GB"]}


def test_memory_is_told_without_psutil_too(monkeypatch):
    if not hasattr(os, "sysconf"):
        pytest.skip("this system tells its memory to psutil only")
    whole = machine.memory_facts()["total_gb"]
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert machine.memory_facts()["total_gb"] == pytest.approx(whole, rel=0.05)


def test_the_workspace_is_counted_and_not_named(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "elsewhere"))
    for name in ("Dataset001_ClinicA", "Dataset002_ClinicB"):
        (tmp_path / "root" / "raw" / name).mkdir(parents=True)
    (tmp_path / "root" / "raw" / "notes.txt").touch()
    facts = storage.workspace_facts(tmp_path / "root")
    assert facts == {"root": str(tmp_path / "root"), "exists": True, "raw": 2, "nnUNet_raw": "no such folder"}


def test_the_disk_is_measured_where_the_workspace_would_be_and_nothing_stays(tmp_path):
    facts = storage.disk_facts(tmp_path / "not" / "yet")
    assert facts["write_mb_per_s"] > 0 and 0 < facts["free_gb"] <= facts["total_gb"]
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    def refuse(_folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(storage, "write_speed", refuse)
    assert storage.disk_facts(tmp_path)["not_writable"] == "Permission denied"


def test_a_probe_that_fails_stops_no_other(tmp_path, monkeypatch):
    def broken():
        raise OSError("no such sensor")

    monkeypatch.setattr(machine, "cpu_facts", broken)
    monkeypatch.setattr(import_trial, "try_imports", lambda modules: import_trial.Trial({"failed": {}}, {}))
    found = diagnose(tmp_path)
    assert found.facts["cpu"] == {"probe_failed": "OSError: no such sensor"}
    assert found.facts["memory"]["total_gb"] > 0
    assert any("no such sensor" in item.message for item in found.advice)


def test_a_section_is_one_readable_line():
    facts = {"free_gb": 12.345, "write_mb_per_s": 1234.5, "cuda": False, "cards": [], "failed": {"a": "x", "b": "y"}}
    assert as_text("disk", facts) == "disk: free 12.3 GB, write 1234 MB/s, cuda no, cards none, failed a + b"
    assert as_text("threads", {}) == "threads: -"


def test_no_third_party_library_is_needed():
    # The whole room and its command, imported with every library outside Python itself forbidden.
    program = """
        import sys
        class Forbid:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] not in sys.stdlib_module_names | {"swinssl"}:
                    raise ImportError(f"{name} is forbidden")
        sys.meta_path.insert(0, Forbid())
        import swinssl.cli.doctor, swinssl.diagnosis.diagnosis
    """
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
