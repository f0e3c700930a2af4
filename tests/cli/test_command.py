"""From a function to a console command: its options, its one error voice, its exit codes; every command's --help."""

from __future__ import annotations

import errno
import importlib
import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin

import pytest
import typer
from pydantic import BaseModel, Field

from swinssl.cli import command as module
from swinssl.cli.command import command, commands, run_typed
from swinssl.core.errors import Interrupted, UserError

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]


class Options(BaseModel):
    """A model as the commands have them: constraints, choices, triples, switches, None for 'as planned'."""

    seed: int = Field(3, ge=0, description="Seed of every draw.")
    decay: float | None = Field(None, gt=0, lt=1, description="Decay of the average.")
    loss: Literal["softmax", "sigmoid"] = Field("softmax", description="Loss over structures.")
    spacing: tuple[float, float, float] | None = Field(None, description="z y x in mm.")
    batch_size: Annotated[int, Field(ge=1)] = Field(2, description="Patches a step.")
    mirror: bool = Field(False, description="Mirror images too.")
    deep: bool | None = Field(None, description="Losses at lower resolutions.")


def sample(
    dataset: Annotated[str, typer.Argument(help="The data set.")],
    options: Options,
    fold: Annotated[str, typer.Option("--fold", help="Number of the fold.")] = "0",
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Do something with a data set.

    The second paragraph stands in the help as well.
    """
    behaviour = BEHAVIOURS.get(dataset)
    if behaviour is not None:
        raise behaviour
    SEEN.append((dataset, options, fold, json))


SEEN: list[tuple[str, Options, str, bool]] = []
BEHAVIOURS: dict[str, BaseException] = {
    "mend": UserError("labelsTr/a.nii.gz: value 4. Relabel it."),
    "stop": Interrupted("saved at step 30; the same command goes on."),
    "ctrl-c": KeyboardInterrupt(),
    "bug": ZeroDivisionError("division by zero"),
}


@pytest.fixture
def type_in(monkeypatch, capsys):
    """Type the sample command; gives (exit code, stdout, stderr)."""

    def run(*arguments):
        SEEN.clear()
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr(sys, "argv", ["swinssl_sample", *arguments])
        with pytest.raises(SystemExit) as end:
            command(sample)()
        return end.value.code or 0, *capsys.readouterr()

    return run


def options_of(text):
    """By flag, all that a --help says of it, in one line."""
    found = {}
    for line in text.splitlines():
        words = line.split()
        if words and words[0].startswith("-") and line.startswith("  -"):
            flag = next(word for word in words if word.startswith("--")).rstrip(",")
            found[flag] = ""
        if found and words:
            found[flag] += " ".join(["", *words])
    return found


class TestOptions:
    def test_every_field_is_an_option_with_its_help_and_default(self, type_in):
        code, text, _ = type_in("--help")
        assert code == 0 and "Do something with a data set." in text and "The second paragraph" in text
        options = options_of(text)
        for flag, parts in {
            "--seed": ("<int>", "Seed of every draw.", "[default: 3]"),
            "--decay": ("<float>", "Decay of the average."),
            "--loss": ("<softmax|sigmoid>", "Loss over structures.", "[default: softmax]"),
            "--spacing": ("<float,float,float>", "z y x in mm."),
            "--batch-size": ("<int>", "Patches a step.", "[default: 2]"),
            "--mirror": ("/ --no-mirror", "Mirror images too."),
            "--deep": ("/ --no-deep", "Losses at lower resolutions."),
            "--fold": ("Number of the fold.", "[default: 0]"),
        }.items():
            assert all(part in options[flag] for part in parts), options[flag]
        assert "default" not in options["--decay"] and "default" not in options["--spacing"]

    def test_nothing_typed_gives_the_model_s_defaults(self, type_in):
        assert type_in("a")[0] == 0
        assert [("a", Options(), "0", False)] == SEEN

    def test_what_is_typed_arrives_in_the_model(self, type_in):
        flags = "--seed 5 --decay 0.5 --loss sigmoid --spacing 2 1.5 1.25 --batch-size 4 --mirror --no-deep"
        assert type_in("a", *flags.split(), "--fold", "all", "--json")[0] == 0
        options = Options(
            seed=5, decay=0.5, loss="sigmoid", spacing=(2, 1.5, 1.25), batch_size=4, mirror=True, deep=False
        )
        assert [("a", options, "all", True)] == SEEN

    @pytest.mark.parametrize(
        ("flags", "words"),
        [
            ("--seed -1", ("--seed", "-1", "greater than or equal to 0")),
            ("--decay 1", ("--decay", "1.0", "less than 1")),
            ("--decay nan", ("--decay", "nan")),
            ("--batch-size 0", ("--batch-size", "0", "greater than or equal to 1")),
            ("--seed x", ("--seed", "valid integer")),
            ("--loss dice", ("error: --loss dice: unknown. Choose one of softmax, sigmoid. See --help.",)),
            ("--loss sigmod", ("error: --loss sigmod: unknown. Did you mean sigmoid? Choose one of softmax",)),
            ("--spacing 1 1", ("--spacing", "3")),
            ("--sede 1", ("--sede", "--seed")),
        ],
    )
    def test_a_value_that_cannot_be_names_its_flag(self, type_in, flags, words):
        code, out, err = type_in("a", *flags.split())
        assert code == 2 and out == "" and SEEN == []
        assert "Traceback" not in err and all(word in err for word in words), err

    def test_a_missing_argument_is_named(self, type_in):
        code, _, err = type_in()
        assert code == 2 and "Missing argument 'dataset'" in err


class TestRunTyped:
    def test_runs_in_this_process_and_takes_the_same_words(self):
        SEEN.clear()
        run_typed(sample, ["a", "--seed", "9"])
        assert [("a", Options(seed=9), "0", False)] == SEEN

    @pytest.mark.parametrize("arguments", [["a", "--seed", "-1"], ["a", "--seed", "x"], ["a", "--sede", "1"], []])
    def test_words_that_do_not_fit_are_a_user_error(self, arguments):
        with pytest.raises(UserError, match=r"--se|dataset"):
            run_typed(sample, arguments)

    @pytest.mark.parametrize("name", BEHAVIOURS)
    def test_errors_of_the_function_are_the_caller_s(self, name):
        with pytest.raises(type(BEHAVIOURS[name])) as error:
            run_typed(sample, [name])
        assert str(error.value) == str(BEHAVIOURS[name])


class TestSubCommands:
    @pytest.fixture
    def type_in(self, monkeypatch, capsys):
        def run(*arguments):
            SEEN.clear()
            monkeypatch.setenv("COLUMNS", "200")
            monkeypatch.setattr(sys, "argv", ["swinssl_samples", *arguments])
            with pytest.raises(SystemExit) as end:
                commands("Several things.", first=sample, import_=sample)()
            return end.value.code or 0, *capsys.readouterr()

        return run

    def test_help_lists_them_and_each_has_its_own(self, type_in):
        code, out, _ = type_in("--help")
        assert code == 0 and "Several things." in out
        assert [line.split()[0] for line in out.split("Commands:")[1].splitlines() if line] == ["first", "import"]
        assert "--batch-size" in type_in("import", "--help")[1]

    def test_each_takes_its_words_and_keeps_the_exit_codes(self, type_in):
        assert type_in("import", "a", "--seed", "5")[0] == 0 and [("a", Options(seed=5), "0", False)] == SEEN
        assert type_in("first", "mend") == (2, "", "error: labelsTr/a.nii.gz: value 4. Relabel it.\n")
        assert type_in("first", "ctrl-c")[0] == 130

    def test_none_or_an_unknown_one_is_the_user_s_to_mend(self, type_in):
        assert type_in()[0] == 2
        assert "No such command 'second'" in type_in("second")[2]


class TestExitCodes:
    def test_2_where_the_user_can_mend_it(self, type_in):
        code, out, err = type_in("mend")
        assert (code, out, err) == (2, "", "error: labelsTr/a.nii.gz: value 4. Relabel it.\n")

    def test_130_where_work_was_stopped_after_saving(self, type_in):
        code, out, err = type_in("stop")
        assert (code, out, err) == (130, "", "\nstopped: saved at step 30; the same command goes on.\n")

    def test_130_on_ctrl_c(self, type_in):
        code, out, err = type_in("ctrl-c")
        assert (code, out, err) == (130, "", "\nstopped: Rerun the command to resume.\n")

    def test_a_bug_is_raised_on(self, monkeypatch):
        monkeypatch.setattr(sys, "argv", ["swinssl_sample", "bug"])
        with pytest.raises(ZeroDivisionError):
            command(sample)()

    @pytest.mark.parametrize(
        ("number", "remedy"),
        [
            (errno.ENOSPC, "Free some space there"),
            (errno.EDQUOT, "Free some space there"),
            (errno.EROFS, "choose another folder"),
            (errno.EACCES, "Change its permissions"),
            (errno.EPERM, "Change its permissions"),
            (errno.ENOTDIR, "It is where a folder should be"),
            (errno.EEXIST, "It is where a folder should be"),
        ],
    )
    def test_2_where_the_machine_is_to_blame(self, type_in, monkeypatch, number, remedy):
        monkeypatch.setitem(BEHAVIOURS, "disk", OSError(number, os.strerror(number), "out/a.json"))
        code, _, err = type_in("disk")
        assert code == 2 and err.count("\n") == 1
        assert err.startswith(f"error: out/a.json: {os.strerror(number)}. ") and remedy in err
        assert set(module.USER_ERRNOS) >= {number}

    def test_an_error_without_a_file_name_is_said_all_the_same(self, type_in, monkeypatch):
        monkeypatch.setitem(BEHAVIOURS, "disk", OSError(errno.ENOSPC, "No space left on device"))
        assert type_in("disk")[2].startswith("error: a file: No space left on device. ")

    def test_a_file_in_the_way_of_a_folder_is_the_one_that_is_named(self, type_in, monkeypatch, tmp_path):
        (tmp_path / "results").touch()
        with pytest.raises(OSError) as error:
            (tmp_path / "results" / "Dataset001" / "tiny").mkdir(parents=True)
        monkeypatch.setitem(BEHAVIOURS, "disk", error.value)
        assert type_in("disk")[2].startswith(f"error: {tmp_path / 'results'}: ")

    def test_another_error_of_the_system_is_a_bug(self, monkeypatch):
        monkeypatch.setitem(BEHAVIOURS, "disk", FileNotFoundError(errno.ENOENT, "No such file or directory", "x"))
        monkeypatch.setattr(sys, "argv", ["swinssl_sample", "disk"])
        with pytest.raises(FileNotFoundError):
            command(sample)()


PROGRAM = """if True:
    import sys, time
    from swinssl.cli.command import command
    from swinssl.core.errors import Interrupted, UserError

    def sample(what: str) -> None:
        "Do it."
        if what == "mend":
            raise UserError("a.json: broken. Write it again.")
        if what == "bug":
            raise ZeroDivisionError
        if what == "wait":
            print("waiting", flush=True)
            time.sleep(30)

    sys.argv[0] = "swinssl_sample"
    command(sample)()
"""


class TestRealProcess:
    """The same once more where nothing stands between the command and the system."""

    @pytest.mark.parametrize(("what", "code"), [("fine", 0), ("mend", 2), ("bug", 1)])
    def test_exit_codes_and_tracebacks(self, what, code):
        done = subprocess.run([sys.executable, "-c", PROGRAM, what], capture_output=True, text=True, check=False)
        assert done.returncode == code
        assert ("Traceback" in done.stderr) == (what == "bug")
        assert ("error: a.json: broken. Write it again." in done.stderr) == (what == "mend")

    @pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
    @pytest.mark.parametrize("request_to_end", [signal.SIGINT, signal.SIGTERM])
    def test_ctrl_c_and_a_schedulers_request_to_end(self, request_to_end):
        running = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "wait"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Where the tests run in the background, a shell has made them deaf to it, and their children with them.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        assert running.stdout.readline() == "waiting\n"
        running.send_signal(request_to_end)
        _, err = running.communicate(timeout=20)
        assert running.returncode == 130 and err == "\nstopped: Rerun the command to resume.\n"


HELP = """if True:
    import importlib, sys
    name, entry = sys.argv[1].split(":")
    sys.argv = [sys.argv[2], "--help"]
    try:
        getattr(importlib.import_module(name), entry)()
    except SystemExit as end:
        assert not end.code, end.code
    heavy = {"torch", "numpy", "scipy", "nibabel", "SimpleITK", "skimage", "matplotlib", "blosc2", "batchgenerators"}
    print("HEAVY", *sorted(heavy & set(sys.modules)))
"""


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_of_every_command_is_whole_and_needs_no_heavy_import(script):
    done = subprocess.run(
        [sys.executable, "-c", HELP, SCRIPTS[script], script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].lower().startswith(f"usage: {script} ")
    # A method's options stand in its own file, beside what it computes with numpy.
    imported = set(lines[-1].split()) - ({"numpy"} if script.startswith("swinssl_pretrain_") else set())
    assert imported == {"HEAVY"}
    for flag, text in options_of(done.stdout.split("HEAVY")[0]).items():
        sentence = re.sub(r" \[[^]]*\]$", "", text)  # default, range
        assert flag == "--help" or sentence.endswith("."), text


def _choices(command):
    """(flag, choices) of every option of a command that takes one of several words."""
    for parameter in command.params:
        annotation = getattr(parameter, "type_descriptor", parameter).annotation if parameter.opts else None
        words = {
            word
            for part in (annotation, *get_args(annotation))
            if get_origin(part) is Literal
            for word in get_args(part)
        }
        if words and all(isinstance(word, str) for word in words):
            yield max(parameter.opts, key=len), words


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_misspelt_choice_of_every_command_names_the_nearest(script, monkeypatch, capsys):
    name, entry = SCRIPTS[script].split(":")
    main = getattr(importlib.import_module(name), entry)
    if not hasattr(main, "app"):
        pytest.skip("runs other commands")
    whole = typer.main.get_command(main.app)
    assert script != "swinssl_plan" or "--network" in dict(_choices(whole))
    for sub, one in getattr(whole, "commands", {"": whole}).items():
        for flag, words in _choices(one):
            word = max(words, key=len)
            monkeypatch.setattr(sys, "argv", [script, *filter(None, [sub]), flag, f"{word}x"])
            with pytest.raises(SystemExit) as end:
                main()
            error = capsys.readouterr().err
            assert end.value.code == 2
            assert f"error: {flag} {word}x: unknown. Did you mean {word}? Choose one of " in error, error
            assert all(choice in error for choice in words) and "Value error" not in error and "Usage" not in error
