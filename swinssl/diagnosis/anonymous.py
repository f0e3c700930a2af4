"""A report that can be shown to anyone: no home folder, user name or host name."""

from __future__ import annotations

import dataclasses
import getpass
import platform
import re
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

# Names that identify nobody and are words besides.
COMMON = {
    "root",
    "user",
    "users",
    "admin",
    "administrator",
    "ubuntu",
    "localhost",
    "runner",
    "home",
    "docker",
    "default",
}


def anonymised(value: T) -> T:
    """`value` (strings, lists, tuples, dicts, dataclasses) with `~` for the home folder and the names blanked out."""
    return _walk(value, _replacements())


def _replacements() -> list[tuple[re.Pattern[str], str]]:
    found = [(re.compile(re.escape(home) + r"(?=$|[\\/\s:;,)'\"])"), "~") for home in _homes()]
    for name, shown in ((_user(), "<user>"), (platform.node(), "<host>"), (platform.node().split(".")[0], "<host>")):
        if len(name) > 1 and name.lower() not in COMMON:
            found.append((re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])", re.IGNORECASE), shown))
    return found


def _homes() -> list[str]:
    try:
        homes = {str(Path.home()), str(Path.home().resolve())}
    except (OSError, RuntimeError):
        return []
    return sorted((home for home in homes if len(home) > 1), key=len, reverse=True)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""


def _walk(value: Any, replacements: list[tuple[re.Pattern[str], str]]) -> Any:
    if isinstance(value, str):
        for pattern, shown in replacements:
            value = pattern.sub(shown.replace("\\", r"\\"), value)
        return value
    if isinstance(value, dict):
        return {key: _walk(item, replacements) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_walk(item, replacements) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return type(value)(**{name: _walk(item, replacements) for name, item in fields.items()})
    return value
