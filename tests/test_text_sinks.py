"""Every place that shows a name takes the one way in which names are text; a module that goes past it is found."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import swinssl

PACKAGE = Path(swinssl.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
# Who may use what, and what the others use instead.
WAYS = {
    "rich": ({"cli/tables.py", "core/terminal.py"}, "swinssl.cli.tables"),
    "csv": ({"core/text.py"}, "swinssl.core.text"),
    "html": ({"core/text.py", "evaluation/report/html/inline_svg.py"}, "swinssl.core.text.html_text"),
    "matplotlib.figure": ({"core/pictures.py"}, "swinssl.core.pictures.new_figure"),
    "matplotlib.pyplot": (set(), "swinssl.core.pictures.new_figure"),
}
CALLS = {
    "savefig": ({"core/pictures.py"}, "swinssl.core.pictures.save_figure"),
    "basicConfig": ({"core/terminal.py"}, "swinssl.core.terminal.start_log"),
}
# It is run apart, as a script, and speaks JSON.
OWN_PRINT = {"core/terminal.py", "diagnosis/import_trial.py"}


def place(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def at_run_time(tree: ast.AST) -> list[ast.AST]:
    """All nodes but those that only a type checker sees."""
    nodes, left = [], [tree]
    while left:
        node = left.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            left += node.orelse
            continue
        nodes.append(node)
        left += ast.iter_child_nodes(node)
    return nodes


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def ways_past(source: str, where: str) -> list[str]:
    """What a module does by itself, and what to use instead."""
    nodes = at_run_time(ast.parse(source))
    names = {name for node in nodes for name in imported(node)}
    found = [
        f"{where}: imports {module}; use {instead}"
        for module, (allowed, instead) in WAYS.items()
        if where not in allowed and any(name == module or name.startswith(f"{module}.") for name in names)
    ]
    called = [node.func for node in nodes if isinstance(node, ast.Call)]
    attributes = {func.attr for func in called if isinstance(func, ast.Attribute)}
    found += [f"{where}: calls {n}; use {i}" for n, (ok, i) in CALLS.items() if where not in ok and n in attributes]
    prints = any(isinstance(func, ast.Name) and func.id == "print" for func in called)
    if prints and where not in OWN_PRINT and "swinssl.core.terminal.print" not in names:
        found.append(f"{where}: calls Python's print; import print from swinssl.core.terminal")
    return found


@pytest.mark.parametrize("path", MODULES, ids=place)
def test_no_module_shows_text_by_itself(path):
    assert ways_past(path.read_text(encoding="utf-8"), place(path)) == []


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("print('x')", "swinssl.core.terminal"),
        ("def f():\n    from rich.table import Table", "swinssl.cli.tables"),
        ("import csv", "swinssl.core.text"),
        ("from matplotlib import pyplot", "swinssl.core.pictures"),
        ("from matplotlib.figure import Figure", "swinssl.core.pictures"),
        ("figure.savefig('x.png')", "swinssl.core.pictures"),
        ("import logging\nlogging.basicConfig()", "swinssl.core.terminal"),
        ("import html", "swinssl.core.text"),
    ],
)
def test_one_that_did_would_be_found(source, said):
    assert [said in line for line in ways_past(source, "cli/new.py")] == [True]


def test_what_only_a_type_checker_sees_is_free():
    assert ways_past("if TYPE_CHECKING:\n    from rich.table import Table", "cli/new.py") == []
