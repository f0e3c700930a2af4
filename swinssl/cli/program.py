"""The program `swinssl`: every command by its name, `swinssl check` as `swinssl_check`.

It starts with the standard library alone; a command's module is imported once the command is known.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from swinssl.core.provenance import __version__
from swinssl.ssl.methods.registry import METHODS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

EXIT_USER_ERROR = 2
COMPLETION_VARIABLE = "_SWINSSL_COMPLETE"
COMPLETION_FLAGS = ("--install-completion", "--show-completion")


@dataclass(frozen=True)
class Entry:
    """A command of the program.

    Args:
        name: as typed; also of the script `swinssl_<name>`.
        summary: one line for `swinssl --help`.
        entry: module and name of its entry point; by default `swinssl.cli.<name>:main`.
    """

    name: str
    summary: str
    entry: str = ""

    @property
    def target(self) -> str:
        """`module:attribute` of the entry point."""
        return self.entry or f"swinssl.cli.{self.name}:main"

    @property
    def words(self) -> str:
        """The name as the help shows it: `pretrain smit`."""
        return self.name.replace("pretrain_", "pretrain ", 1)


GROUPS: dict[str, tuple[Entry, ...]] = {
    "Data": (
        Entry("check", "List every problem of a raw data set, with its remedy."),
        Entry("convert", "Convert other data set layouts to raw data sets."),
        Entry("plan", "Measure a raw data set and plan preprocessing and training."),
        Entry("preprocess", "Crop, normalise, resample and store the cases."),
        Entry("plan_and_preprocess", "Plan, then preprocess."),
    ),
    "Pretraining": tuple(
        Entry(f"pretrain_{name}", method.summary, f"swinssl.cli.pretrain:{name}") for name, method in METHODS.items()
    ),
    "Training and prediction": (
        Entry("train", "Fine-tune one fold, or several as a cross-validation."),
        Entry("predict", "Segment images with a trained model."),
        Entry("model", "Export, import, verify and list trained models."),
        Entry("weights", "Import, export and list encoders."),
        Entry("network", "Show the layers and parameters of a network."),
    ),
    "Evaluation": (
        Entry("evaluate", "Compare predictions with references."),
        Entry("compare", "Compare several models on the same test cases."),
        Entry("benchmark", "Run pretrainings x tasks x shots x seeds and report."),
        Entry("cka", "Compare two encoders block by block."),
    ),
    "Help": (
        Entry("demo", "Run every step on phantom CTs in a few minutes."),
        Entry("doctor", "Describe the environment, devices and versions."),
    ),
}
COMMANDS: dict[str, Entry] = {entry.name: entry for group in GROUPS.values() for entry in group}


def main() -> None:
    """Run the command that was typed after `swinssl`."""
    words = sys.argv[1:]
    if COMPLETION_VARIABLE in os.environ or (words and words[0].split("=")[0] in COMPLETION_FLAGS):
        _complete()
    elif not words or words[0] in ("--help", "-h", "help"):
        from swinssl.core.terminal import print_lines

        print_lines(help_text())
        raise SystemExit(0 if words else EXIT_USER_ERROR)
    elif words[0] == "--version":
        from swinssl.core.terminal import print_lines

        print_lines(f"swinssl {__version__}")
    else:
        entry, arguments = _typed(words)
        # The command sees itself as its own script: messages, records and `--gpus` need no second rule.
        sys.argv = [f"swinssl_{entry.name}", *arguments]
        module, _, attribute = entry.target.partition(":")
        getattr(importlib.import_module(module), attribute)()


def help_text() -> str:
    """The commands in groups."""
    width = max(len(entry.words) for entry in COMMANDS.values())
    lines = [
        "Usage: swinssl COMMAND [ARGUMENTS]...",
        "",
        "Segment 3D medical images: from a raw data set to a trained model and its predictions.",
    ]
    for group, entries in GROUPS.items():
        lines += ["", f"{group}:", *(f"  {entry.words:<{width}}  {entry.summary}" for entry in entries)]
    lines += [
        "",
        "Options:",
        f"  {'--version':<{width}}  Print the version.",
        f"  {'--install-completion':<{width}}  Complete commands and options with the Tab key in this shell.",
        f"  {'--show-completion':<{width}}  Print the completion script of this shell.",
        f"  {'--help':<{width}}  Show this message.",
        "",
        "swinssl COMMAND --help explains a command. swinssl_COMMAND is the same command.",
    ]
    return "\n".join(lines)


def _typed(words: Sequence[str]) -> tuple[Entry, Sequence[str]]:
    """The command and its arguments; `pretrain smit` is `pretrain_smit`, and hyphens are underscores."""
    first, *others = words
    name = first.replace("-", "_").removeprefix("swinssl_")
    if name == "pretrain":
        method = others[0].replace("-", "_") if others else ""
        if method in METHODS:
            return COMMANDS[f"pretrain_{method}"], others[1:]
        what = f"pretrain {others[0]}" if others else "pretrain"
        if others and others[0] in ("--help", "-h"):
            summaries = (f"  {name}: {COMMANDS[f'pretrain_{name}'].summary}" for name in METHODS)
            from swinssl.core.terminal import print_lines

            print_lines("\n".join(["Usage: swinssl pretrain METHOD DATASET... [OPTIONS]", "", *summaries]))
            raise SystemExit(0)
        _refuse(what, method, METHODS, "method")
    if name not in COMMANDS:
        _refuse(first, name, COMMANDS, "command")
    return COMMANDS[name], others


def _refuse(typed: str, name: str, known: Iterable[str], kind: str) -> None:
    """Exit 2 with the nearest name."""
    from swinssl.core.terminal import print_message

    names = list(known)
    near = difflib.get_close_matches(name, names, n=1) if name else []
    prefix = "pretrain " if kind == "method" else ""
    hint = f" Did you mean swinssl {prefix}{near[0]}?" if near else ""
    missing = f"no such {kind}" if name else f"no {kind}"
    listed = f"Choose one of {', '.join(names)}." if kind == "method" else "swinssl --help lists the commands."
    print_message("error", f"swinssl {typed}: {missing}.{hint} {listed}")
    raise SystemExit(EXIT_USER_ERROR)


def _complete() -> None:
    """Answer the shell, or install what asks."""
    from swinssl.cli.completion import completion_app

    completion_app()(prog_name="swinssl")
