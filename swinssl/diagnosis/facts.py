"""What a probe gives: names and plain values, the unit at the end of the name (`free_gb` counts 10^9 bytes)."""

from __future__ import annotations

from typing import Any

Facts = dict[str, Any]

# The only name in the facts of a probe that failed.
FAILED = "probe_failed"
UNITS = {"_mb_per_s": " MB/s", "_gb": " GB", "_seconds": " s"}


def as_text(section: str, facts: Facts) -> str:
    """A section in one line: `memory: total 23.5 GB, free 20.1 GB`."""
    return f"{section}: " + (", ".join(_shown(name, value) for name, value in facts.items()) or "-")


def _shown(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return f"{name.replace('_', ' ')} {'yes' if value else 'no'}"
    ending = next((ending for ending in UNITS if name.endswith(ending)), "")
    if isinstance(value, float):
        value = f"{value:.3g}" if value < 1000 else f"{value:.0f}"
    if isinstance(value, (list, dict)):
        value = " + ".join(map(str, value)) or "none"
    return f"{name.removesuffix(ending).replace('_', ' ')} {value}{UNITS.get(ending, '')}"
