"""`swinssl COMMAND`: the same commands under one program, found by name, with help, version and completion."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from swinssl import __version__
from swinssl.cli import program
from swinssl.ssl.methods.registry import METHODS

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]


@pytest.fixture
def swinssl(monkeypatch, capsys):
    """Type `swinssl ...`; gives (exit code, stdout, stderr)."""

    def run(*words):
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr(sys, "argv", ["swinssl", *words])
        code = 0
        try:
            program.main()
        except SystemExit as end:
            code = end.code or 0
        return code, *capsys.readouterr()

    return run


def test_every_script_is_a_command_and_the_other_way_round():
    targets = {f"swinssl_{name}": entry.target for name, entry in program.COMMANDS.items()}
    assert {"swinssl": "swinssl.cli.program:main", **targets} == SCRIPTS


def test_help_lists_every_command_in_its_group(swinssl):
    code, out, _ = swinssl("--help")
    assert code == 0
    for group, entries in program.GROUPS.items():
        section = out.split(f"{group}:\n")[1].split("\n\n")[0]
        assert [line.split("  ")[1] for line in section.splitlines()] == [entry.words for entry in entries]
    assert swinssl() == (2, out, "")


def test_help_imports_nothing_but_the_standard_library():
    code = "import sys; sys.argv = ['swinssl', '--help']\nfrom swinssl.cli.program import main\ntry: main()\n"
    code += "except SystemExit: pass\nprint(sorted({'torch', 'numpy', 'typer', 'pydantic', 'rich'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "words", [["check"], ["swinssl_check"], ["plan-and-preprocess"], ["pretrain", "smit"], ["pretrain_smit"]]
)
def test_a_command_answers_to_its_names(swinssl, words):
    name = "_".join(words).replace("-", "_").removeprefix("swinssl_")
    code, out, _ = swinssl(*words, "--help")
    assert code == 0 and out.lower().startswith(f"usage: swinssl_{name} ")


def test_the_arguments_arrive_as_they_were_typed(swinssl, tmp_path):
    code, _, err = swinssl("check", str(tmp_path / "none.txt"), "--root", str(tmp_path))
    assert code == 2 and err.startswith(f"error: {tmp_path / 'none.txt'}: no such file.")


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["chekc"], "swinssl chekc: no such command. Did you mean swinssl check?"),
        (["plan_preprocess"], "Did you mean swinssl plan_and_preprocess?"),
        (["pretrain", "smtt"], "swinssl pretrain smtt: no such method. Did you mean swinssl pretrain smit?"),
        (["pretrain"], "swinssl pretrain: no method. Choose one of simmim,"),
        (["zzz"], "swinssl zzz: no such command. swinssl --help lists the commands."),
    ],
)
def test_a_typo_is_answered_with_the_nearest_name(swinssl, words, answer):
    code, out, err = swinssl(*words)
    assert code == 2 and out == "" and answer in err and err.startswith("error: ")


@pytest.mark.parametrize("words", [[], ["check"], ["pretrain", "dino"], ["model"], ["doctor"], ["train"]])
def test_version_of_the_program_and_of_every_command(swinssl, words):
    assert swinssl(*words, "--version") == (0, f"swinssl {__version__}\n", "")


def test_python_m_swinssl_is_the_program():
    done = subprocess.run([sys.executable, "-m", "swinssl", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"swinssl {__version__}\n"


class TestCompletion:
    @pytest.fixture
    def complete(self, swinssl, monkeypatch):
        def run(line):
            monkeypatch.setenv("_SWINSSL_COMPLETE", "complete_bash")
            monkeypatch.setenv("COMP_WORDS", line)
            monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
            return swinssl()[1].split()

        return run

    def test_commands_and_methods(self, complete):
        assert complete("swinssl ev") == ["evaluate"]
        assert set(complete("swinssl pretrain_")) == {f"pretrain_{name}" for name in METHODS}

    def test_options_and_subcommands_of_a_command(self, complete):
        assert complete("swinssl predict --ov") == ["--overlap", "--overwrite"]
        assert complete("swinssl model im") == ["import"]

    def test_the_script_of_a_shell_calls_the_program(self, swinssl):
        code, out, _ = swinssl("--show-completion", "bash")
        assert code == 0 and "_SWINSSL_COMPLETE=complete_bash" in out and out.rstrip().endswith(" swinssl")

    def test_it_is_installed_into_the_home_folder(self, swinssl, monkeypatch, tmp_path):
        monkeypatch.setenv("HOME", str(tmp_path))
        code, out, _ = swinssl("--install-completion", "bash")
        assert code == 0 and "bash completion installed" in out
        script = next(path for path in tmp_path.rglob("*") if path.is_file() and "swinssl" in path.name)
        assert "complete_bash" in script.read_text() and os.path.commonpath([script, tmp_path]) == str(tmp_path)
