"""JSON files that one pydantic model reads, checks and writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from swinssl.core import files
from swinssl.core.errors import UserError

M = TypeVar("M", bound=BaseModel)


def read_model(
    model: type[M],
    path: Path,
    *,
    what: str,
    remedy: str,
    version: int | None = None,
    upgrade: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> M:
    """The content of a JSON file as a model.

    Args:
        what: what the file is, for the message ("plans").
        remedy: what the user does when it is missing or does not fit.
        version: value that its `version` must have; None where it has none.
        upgrade: makes content of this version from that of an earlier one, and leaves all other as it is.

    Raises:
        UserError: missing, not JSON, of another version, or with a field that does not fit.
    """
    content = files.read_json(path, what=what, remedy=remedy)
    if upgrade is not None and isinstance(content, dict):
        content = upgrade(content)
    if version is not None:
        found = content.get("version") if isinstance(content, dict) else None
        if found != version:
            raise UserError(f"{path}: {what} version {found}; this swinssl reads version {version}. {remedy}")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path}: {first_fault(error)}. {remedy}") from None


def first_fault(error: ValidationError) -> str:
    """The first field that does not fit, what is wrong, and what it holds."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']} (found {_short(first['input'])})"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
