"""Read a JSON file as a pydantic model."""

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
        what: name of the file's kind in messages ("plans").
        remedy: what the user does if it is missing or invalid.
        version: required value of its `version`; None if it has none.
        upgrade: converts content of earlier versions to this version and returns other content unchanged.

    Raises:
        UserError: missing, not JSON, of another version, or with an invalid field.
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
    """The first invalid field, what is wrong, and its value."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']} (found {_short(first['input'])})"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
