"""Lists in messages and notes: named as far as a reader wants to read."""

from __future__ import annotations

from collections.abc import Sequence

MOST = 10


def listed(items: Sequence[object], *, most: int = MOST) -> str:
    """`a, b, c`; of a long list the first ones `and 7 more`."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(map(str, items[:most])) + more


def counted(number: int, noun: str) -> str:
    """`1 case`, `2 cases`."""
    return f"{number} {noun}{'s' * (number != 1)}"
