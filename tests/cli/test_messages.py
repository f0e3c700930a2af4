"""What messages, help texts and documents tell a user to type exists: every command, and every option of a command."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import typer

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "swinssl"
# Stands for what an f-string fills in.
HOLE = "\N{REPLACEMENT CHARACTER}"
FLAG = re.compile(rf"(?<![\w{HOLE}<-])--(?!no-[{HOLE}<])[a-z][a-z0-9-]*[a-z0-9](?![\w{HOLE}]|-[{HOLE}<])")
COMMAND = re.compile(rf"\bswinssl_(?!data\b)[a-z][a-z_]*(?:<[a-z]+>|[{HOLE}])?")
# After a command's name, what belongs to it: up to the end of the clause, the line or the code span.
CLAUSE = re.compile(r"(?:[.,;:)](?=\s|$)|[`\n|]|\bor\b|\band\b)")
# Options of programs that are not ours, and in which messages they may stand.
SLURM = {
    *("--array", "--time", "--cpus-per-task", "--requeue", "--signal", "--job-name", "--output", "--nodes"),
    *("--ntasks", "--open-mode", "--gpus-per-node", "--mem"),
}
FOREIGN = {
    "torchrun": {"--standalone", "--nproc-per-node", "--no-python", "--max-restarts"},
    "pip": {"--index-url", "--force-reinstall"},
    "SBATCH": SLURM,
    "Slurm": SLURM,
    "container": {"--shm-size"},
    "run.py": {"--all"},
    "dask": {"--nthreads", "--nworkers"},
    "benchmarks/": {"--quick", "--edge", "--threads"},
}
# Modules that run another program: a string that is nothing but a flag is an argument of that.
RUN_OTHERS = ("provenance.py", "diagnosis/machine.py", "peers/nnunet_peer.py", "peers/nnunet_side.py")
# Commands that run what is in a folder; in others a flag may be anybody's.
OWNERS = {"ssl": "swinssl_pretrain_"}


@dataclass(frozen=True)
class Message:
    """A text that a user may read, and where it is from."""

    where: str
    text: str


@cache
def options() -> dict[str, set[str]]:
    """By command, and by command and sub-command, the options that it takes."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    found: dict[str, set[str]] = {}
    for name, entry in scripts.items():
        module, _, attribute = entry.partition(":")
        main = getattr(importlib.import_module(module), attribute)
        if "app" not in main.__code__.co_freevars:  # the doctor, which starts where typer cannot be imported
            found[name] = set(FLAG.findall(inspect.getsource(importlib.import_module(module))))
            continue
        command = typer.main.get_command(inspect.getclosurevars(main).nonlocals["app"])
        parts = getattr(command, "commands", {"": command})
        for part, one in parts.items():
            own = {flag for parameter in one.params for flag in (*parameter.opts, *parameter.secondary_opts)}
            found[f"{name} {part}".strip()] = own | {"--help"}
        found[name] = set().union(*(found[f"{name} {part}".strip()] for part in parts))
    return found


def messages_of(path: Path) -> Iterator[Message]:
    """All strings of a module: of docstrings only those that are the help of a command."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    where = str(path.relative_to(ROOT))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented)
        and not (isinstance(node, ast.FunctionDef) and path.parent.name == "cli")
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (str(v.value) if isinstance(v, ast.Constant) else HOLE for v in node.values)
            yield Message(f"{where}:{node.lineno}", "".join(parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside | docstrings:
            yield Message(f"{where}:{node.lineno}", node.value)


def documents() -> Iterator[Message]:
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        for number, paragraph in enumerate(text.split("\n\n")):
            yield Message(f"{path.relative_to(ROOT)} paragraph {number + 1}", paragraph)


def all_messages() -> list[Message]:
    code = [message for path in sorted(PACKAGE.rglob("*.py")) for message in messages_of(path)]
    return [*code, *documents()]


def matching(command: str) -> list[str]:
    """Our commands that a name in a message may mean; `swinssl_pretrain_<method>` means nine."""
    stem = re.split(rf"[<{HOLE}]", command)[0]
    if stem == command:
        return [command] if command in options() else []
    return [name for name in options() if " " not in name and name.startswith(stem)]


def faults(message: Message) -> list[str]:
    """What a message names and does not exist."""
    found: list[str] = []
    known = set().union(*options().values())
    foreign = set().union(*(flags for program, flags in FOREIGN.items() if program in message.text))
    if message.where.partition(":")[0].endswith(RUN_OTHERS) and " " not in message.text:
        return []
    names = COMMAND.findall(message.text)
    found += [f"there is no command {name}" for name in names if not matching(name)]
    found += [f"no command has {flag}" for flag in FLAG.findall(message.text) if flag not in known | foreign]
    for match in COMMAND.finditer(message.text):
        clause = CLAUSE.split(message.text[match.end() :], maxsplit=1)[0]
        taken = foreign.union(*(options()[name] for name in matching(match[0])))
        found += [f"{match[0]} has no {flag}" for flag in FLAG.findall(clause) if flag not in taken]
    found += wrong_owner(message, foreign)
    return [f"{message.where}: {fault}: {message.text[:200]!r}" for fault in dict.fromkeys(found)]


def wrong_owner(message: Message, foreign: set[str]) -> list[str]:
    """Flags in messages of one command's code, without another command's name, which that command does not have."""
    prefix = next((p for folder, p in OWNERS.items() if f"swinssl/{folder}/" in message.where), None)
    if prefix is None or COMMAND.search(message.text):
        return []
    own = set().union(*(flags for name, flags in options().items() if name.startswith(prefix)))
    return [f"no {prefix}* has {f}" for f in FLAG.findall(message.text) if f not in own | foreign]


def test_messages_name_only_commands_and_options_that_exist():
    messages = all_messages()
    naming = [message for message in messages if FLAG.search(message.text) or COMMAND.search(message.text)]
    flags = [message for message in naming if FLAG.search(message.text)]
    wrong = [fault for message in naming for fault in faults(message)]
    print(
        f"{len(messages)} texts, {len(flags)} name an option, {len(naming)} an option or a command, {len(wrong)} wrong"
    )
    assert len(flags) > 200  # the walk finds them
    assert not wrong, "\n".join(wrong)


def test_a_wrong_option_is_found():
    """Of each kind: no command has it, the named command does not, the folder's commands do not."""
    for where, text in (
        ("swinssl/x.py:1", "Train with --learning-rate 0.1."),
        ("swinssl/x.py:1", "Run swinssl_evaluate --init ENCODER."),
        ("swinssl/ssl/x.py:1", "Choose another --name."),
        ("swinssl/x.py:1", "Run swinssl_trian."),
    ):
        assert len(faults(Message(where, text))) == 1, text
    assert not faults(Message("swinssl/x.py:1", "Run swinssl_plan DATASET --init ENCODER, then --name another."))
