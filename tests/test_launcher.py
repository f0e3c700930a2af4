"""run.py: what it decides, without installing anything."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.fixture
def run():
    specification = importlib.util.spec_from_file_location("run", CHECKOUT / "run.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def checkout(run, tmp_path, monkeypatch):
    """A checkout whose path has a space, with the two files that say what is installed."""
    root = tmp_path / "my checkout"
    root.mkdir()
    for name in ("pyproject.toml", "constraints.txt"):
        (root / name).write_bytes((CHECKOUT / name).read_bytes())
    monkeypatch.setattr(run, "ROOT", root)
    monkeypatch.setattr(run, "VENV", root / ".venv")
    return root


def test_the_whole_tested_set_is_pinned_within_what_the_package_asks_for():
    from packaging.requirements import Requirement

    lines = (CHECKOUT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [
        Requirement(line) for line in (*project["dependencies"], *extras["test"], *extras["fast"], *extras["dask"])
    ]
    assert [one.name for one in asked if not one.specifier.contains(pins.get(one.name.lower(), "0"))] == []
    # Their own requirements are pinned too, and nothing brings torchvision in.
    assert {"pillow", "markupsafe", "pydantic-core", "shellingham", "connected-components-3d"} <= {*pins}
    assert pins["dynamic-network-architectures"].startswith("0.3.")
    assert {"timm", "huggingface-hub"}.isdisjoint(pins)


class TestArguments:
    def test_the_commands_are_those_of_the_package(self, run):
        scripts = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["scripts"]
        assert {f"swinssl_{name}" for name in run.command_names()} == set(scripts) - {"swinssl"}

    def test_an_unknown_command_is_answered_with_the_known_ones(self, run, capsys):
        assert run.main(["dmeo"]) == 2
        assert "dmeo: no such command" in (said := capsys.readouterr().err) and "demo" in said and "test" in said

    def test_without_a_command_the_usage_is_shown_and_nothing_is_made(self, run, checkout, capsys):
        assert run.main([]) == 2
        assert run.main(["--help"]) == 0
        assert "python3 run.py" in capsys.readouterr().out
        assert not (checkout / ".venv").exists()


class TestCommandLine:
    VENV = Path("a folder") / ".venv"

    @pytest.fixture(params=["posix", "nt"])
    def system(self, request, run, monkeypatch):
        monkeypatch.setattr(run.os, "name", request.param)
        return request.param

    def test_programs_lie_where_the_system_puts_them(self, run, system):
        places = {
            "posix": ("bin/python", "bin/swinssl_demo"),
            "nt": ("Scripts/python.exe", "Scripts/swinssl_demo.exe"),
        }
        python, demo = (str(self.VENV / place) for place in places[system])
        assert run.command_line("demo", ["--out", "my demo"], self.VENV) == [demo, "--out", "my demo"]
        assert run.command_line("test", ["-x"], self.VENV)[:3] == [python, "-m", "pytest"]

    def test_the_quick_tests_are_run_unless_all_are_asked_for(self, run):
        quick = run.command_line("test", ["tests/cli", "-x"], self.VENV)[3:]
        assert quick == [*run.IN_PARALLEL, "-m", "not slow and not peer and not browser", "tests/cli", "-x"]
        assert run.command_line("test", ["-x", "--all"], self.VENV)[3:] == [*run.IN_PARALLEL, "-x"]

    def test_every_marker_that_the_quick_tests_leave_out_is_declared(self, run):
        declared = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["markers"]
        assert re.findall(r"not (\w+)", run.QUICK[1]) == [line.partition(":")[0] for line in declared]

    def test_how_to_use_the_environment_is_said_for_the_system(self, run, system):
        assert ("source" in run.how_to_use(self.VENV)) == (system == "posix")


class TestPython:
    def test_the_lowest_is_the_package_s(self, run):
        asked = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["requires-python"]
        assert asked == ">={}.{}".format(*run.lowest_python())

    @pytest.mark.parametrize("version", [(3, 11), (3, 14), (4, 0)])
    def test_a_new_enough_one_passes(self, run, version):
        run.check_python(version, (3, 11), lambda name: False)

    def test_an_old_one_is_refused_and_a_better_one_named_if_there_is_one(self, run):
        with pytest.raises(run.Stop, match=r"Python 3\.11 or newer; this is Python 3\.9\. Install one"):
            run.check_python((3, 9), (3, 11), lambda name: False)
        with pytest.raises(run.Stop, match=r"Type: python3\.12 run\.py"):
            run.check_python((3, 9), (3, 11), lambda name: name in ("python3.11", "python3.12"))

    def test_a_program_that_is_there_but_does_not_start_is_no_better_one(self, run, tmp_path, monkeypatch):
        if os.name == "nt":
            pytest.skip("the stand-in is a shell script")
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        for name, code in (("python3.88", 0), ("python3.89", 127)):
            (tmp_path / name).write_text(f"#!/bin/sh\nexit {code}\n")
            (tmp_path / name).chmod(0o755)
        assert [run.runs(name) for name in ("python3.88", "python3.89", "python3.90")] == [True, False, False]

    def test_an_old_one_can_read_the_file_to_be_told(self):
        ast.parse((CHECKOUT / "run.py").read_text(encoding="utf-8"), feature_version=(3, 6))

    def test_it_needs_nothing_but_python(self):
        tree = ast.parse((CHECKOUT / "run.py").read_text(encoding="utf-8"))
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names


class TestStamp:
    def test_it_changes_with_what_is_asked_for_and_with_nothing_else(self, run, checkout):
        before = run.wanted_stamp()
        assert run.wanted_stamp() == before
        (checkout / "README.md").write_text("new")
        assert run.wanted_stamp() == before
        for name in ("pyproject.toml", "constraints.txt"):
            text = (checkout / name).read_bytes()
            (checkout / name).write_bytes(text + b"# more\n")
            assert run.wanted_stamp()["content"] != before["content"]
            (checkout / name).write_bytes(text.replace(b"\n", b"\r\n"))
            assert run.wanted_stamp() == before

    def test_it_survives_the_disk(self, run, tmp_path):
        stamp = run.wanted_stamp()
        run.write_stamp(tmp_path, stamp)
        assert run.read_stamp(tmp_path) == stamp
        assert [path.name for path in tmp_path.iterdir()] == [run.STAMP]

    def test_no_stamp_is_told_from_a_broken_one(self, run, tmp_path):
        assert run.read_stamp(tmp_path) is None
        for broken in ("", "{", "3"):
            (tmp_path / run.STAMP).write_text(broken)
            assert run.read_stamp(tmp_path) == {}


WANTED = {"python": "3.12", "place": "/a/.venv", "content": "abc"}
HALF_MADE = {name: WANTED[name] for name in ("python", "place")}


@pytest.mark.parametrize(
    ("stamp", "exists", "works", "step"),
    [
        (None, False, False, "make"),
        (WANTED, True, True, "use"),
        ({**WANTED, "content": "old"}, True, True, "install"),
        ({**WANTED, "python": "3.11"}, True, True, "remake"),
        (WANTED, True, False, "remake"),
        ({}, True, True, "remake"),
        (HALF_MADE, True, True, "remake"),
        ({**WANTED, "place": "/b/.venv"}, True, True, "remake"),
        ({}, True, False, "remake"),
        (None, True, True, "adopt"),
        (None, True, False, "refuse"),
        ({**WANTED, "made by": "user"}, True, True, "use"),
        ({**WANTED, "made by": "user", "python": "3.11"}, True, True, "adopt"),
        ({**WANTED, "made by": "user"}, True, False, "refuse"),
    ],
)
def test_what_is_done_with_the_environment(run, stamp, exists, works, step):
    assert run.next_step(stamp, WANTED, exists=exists, works=works) == step


class TestPip:
    def test_the_constraints_hold_and_the_index_is_the_user_s(self, run):
        words = run.PIP_ARGUMENTS
        assert words[0] == "install" and words[words.index("-c") + 1] == "constraints.txt"
        assert words[-2:] == ["-e", ".[test,fast]"] and not any("index" in word for word in words)

    @pytest.mark.parametrize(
        ("line", "shown"),
        [
            (
                "Downloading torch-2.13.0-cp312-cp312-manylinux_2_28_x86_64.whl (858.1 MB)",
                "downloading torch, 858.1 MB",
            ),
            ("  Downloading nvidia_cublas-13.0-py3-none-any.whl (1.2 GB)", "downloading nvidia_cublas, 1.2 GB"),
            ("Downloading rich-15.0.0-py3-none-any.whl (310 kB)", ""),
            ("Downloading rich-15.0.0-py3-none-any.whl (2.3 MB)", ""),
            ("Installing collected packages: a, b, c", "unpacking 3 packages, about a minute"),
            ("Collecting torch", ""),
        ],
    )
    def test_long_steps_are_shown(self, run, line, shown):
        assert run.progress(line) == shown

    @pytest.mark.parametrize(
        ("said", "advice"),
        [
            ("NewConnectionError: Failed to establish: [Errno -3] Temporary failure in name resolution", "HTTPS_PROXY"),
            ("ERROR: HTTP error 407 Proxy Authentication Required", "HTTPS_PROXY"),
            ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]", "PIP_CERT"),
            ("OSError: [Errno 28] No space left on device", "6 GB"),
            ("ERROR: No matching distribution found for torch==2.13.0", "too new"),
            ("PermissionError: [Errno 13] Permission denied: 'x'", "folder that you may write to"),
            ("something else", "report"),
        ],
    )  # fmt: skip
    def test_a_failure_is_answered_with_what_to_do(self, run, said, advice):
        assert advice in run.remedy(["Collecting torch", said])

    def test_a_failing_pip_shows_its_last_lines_and_keeps_the_rest(self, run, checkout, monkeypatch):
        (checkout / ".venv").mkdir()
        monkeypatch.setattr(run, "python_of", lambda venv: Path(sys.executable))
        with pytest.raises(run.Stop) as stop:
            run.pip(["no-such-subcommand"])
        assert 'unknown command "no-such-subcommand"' in str(stop.value)
        assert "no-such-subcommand" in (checkout / ".venv" / run.LOG).read_text()


class TestPrepare:
    @pytest.fixture
    def calls(self, run, checkout, monkeypatch):
        """Stands in for venv and pip; lists what was asked of them."""
        calls = []

        def make(*, again):
            calls.append("remake" if again else "make")
            run.VENV.mkdir(exist_ok=True)
            run.write_stamp(run.VENV, {})
            run.python_of(run.VENV).parent.mkdir(exist_ok=True)
            run.python_of(run.VENV).touch()

        monkeypatch.setattr(run, "make", make)
        monkeypatch.setattr(run, "pip", lambda arguments: calls.append("pip"))
        return calls

    def test_the_second_run_does_nothing(self, run, calls):
        run.prepare()
        run.prepare()
        assert calls == ["make", "pip"]

    def test_new_requirements_are_installed_into_the_same_environment(self, run, calls, checkout):
        run.prepare()
        (checkout / "constraints.txt").write_text("torch==2.14.0\n")
        run.prepare()
        assert calls == ["make", "pip", "pip"]

    def test_an_interrupted_installation_is_made_anew(self, run, calls, monkeypatch):
        def interrupted(arguments):
            raise KeyboardInterrupt

        with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
            broken.setattr(run, "pip", interrupted)
            run.prepare()
        run.prepare()
        assert calls == ["make", "remake", "pip"]

    def test_a_failed_update_leaves_the_environment_and_is_tried_again(self, run, calls, checkout, monkeypatch):
        run.prepare()
        (checkout / "constraints.txt").write_text("torch==2.14.0\n")

        def fails(arguments):
            raise run.Stop("offline")

        with monkeypatch.context() as broken, pytest.raises(run.Stop):
            broken.setattr(run, "pip", fails)
            run.prepare()
        run.prepare()
        assert calls == ["make", "pip", "pip"]

    def test_an_environment_of_the_user_s_is_installed_into_and_never_removed(self, run, calls, checkout):
        python = run.python_of(checkout / ".venv")
        python.parent.mkdir(parents=True)
        python.touch()
        run.prepare()
        run.prepare()
        assert calls == ["pip"]
        run.write_stamp(run.VENV, {**run.read_stamp(run.VENV), "python": "3.1"})
        run.prepare()
        assert calls == ["pip", "pip"]

    def test_anything_else_of_that_name_is_left_alone(self, run, calls, checkout):
        (checkout / ".venv").mkdir()
        (checkout / ".venv" / "thesis.tex").touch()
        with pytest.raises(run.Stop, match="Move it away"):
            run.prepare()
        assert calls == [] and (checkout / ".venv" / "thesis.tex").exists()


def test_the_command_s_exit_code_is_ours(tmp_path):
    program = f"import sys; sys.path.insert(0, {str(CHECKOUT)!r}); import run; "
    program += f"sys.exit(run.run([{sys.executable!r}, '-c', 'raise SystemExit(37)'], in_checkout=False))"
    assert subprocess.run([sys.executable, "-c", program], check=False, cwd=tmp_path).returncode == 37


def test_a_missing_command_says_how_to_get_it(run, tmp_path):
    with pytest.raises(run.Stop, match=r"is missing\. Delete"):
        run.run([str(tmp_path / "swinssl_demo")], in_checkout=False)


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ctrl_c_ends_in_words(run, checkout, monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "prepare", interrupted)
    assert run.main(["demo"]) == 130
    assert "Rerun the command to resume" in capsys.readouterr().err


def test_the_stamp_is_readable_json(run, tmp_path):
    run.write_stamp(tmp_path, WANTED)
    assert json.loads((tmp_path / run.STAMP).read_text()) == WANTED
