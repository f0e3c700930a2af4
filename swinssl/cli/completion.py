"""Completion of `swinssl` in a shell: commands at once, the options of a command once its module is imported."""

from __future__ import annotations

import importlib
from typing import Any

import typer
from typer.core import TyperGroup

from swinssl.cli.command import TYPER
from swinssl.cli.program import COMMANDS


class _Commands(TyperGroup):
    """The commands of the program, each imported when its options are asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, name: str) -> Any:
        entry = COMMANDS.get(name.replace("-", "_"))
        if entry is None:
            return None
        module, _, attribute = entry.target.partition(":")
        app = getattr(getattr(importlib.import_module(module), attribute), "app", None)
        return typer.main.get_command(app) if app is not None else None

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        from typer._click.shell_completion import CompletionItem

        words = [entry for name, entry in COMMANDS.items() if name.startswith(incomplete.replace("-", "_"))]
        return [CompletionItem(entry.name, help=entry.summary) for entry in words]


def completion_app() -> typer.Typer:
    """The program for completion alone."""
    app = typer.Typer(**{**TYPER, "add_completion": True}, cls=_Commands)
    app.callback()(lambda: None)
    return app
