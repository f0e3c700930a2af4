"""Reports for other programs: one JSON value on stdout."""

from __future__ import annotations

import json
from typing import Any

from swinssl.core.terminal import print_lines


def print_json(content: Any, *, without_none: bool = False) -> None:
    """Print `content`; pydantic models and paths in it as JSON has them.

    Raises:
        ValueError: a number is not finite, which JSON has no word for.
    """
    from pydantic_core import to_jsonable_python

    print_lines(json.dumps(to_jsonable_python(content, exclude_none=without_none), indent=2, allow_nan=False))
