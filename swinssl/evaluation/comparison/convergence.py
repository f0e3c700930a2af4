"""How fast a training converges, from its `log.jsonl`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swinssl.core import files
from swinssl.core.errors import UserError

LOG_FILE = "log.jsonl"
SCORE, LOSS = "validation_score", "loss"
SHARE = 0.95


@dataclass(frozen=True)
class TrainingCurve:
    """A run's curves.

    Args:
        loss: (step, training loss).
        scores: (step, validation Dice).
    """

    model: str
    loss: tuple[tuple[int, float], ...]
    scores: tuple[tuple[int, float], ...]

    @property
    def steps_to_converge(self) -> int | None:
        """The first validated step at which the Dice is 95 % of the last one; None without a Dice above 0."""
        if not self.scores or self.scores[-1][1] <= 0:
            return None
        return next(step for step, score in self.scores if score >= SHARE * self.scores[-1][1])


def read_curve(given: str) -> TrainingCurve:
    """The curves of `NAME=PATH`, PATH being a log.jsonl or the folder of a run.

    Raises:
        UserError: there is no such log.
    """
    name, _, where = given.partition("=")
    if not name or not where:
        raise UserError(f"--log {given}: expected NAME=FOLDER. Say which model the log is of.")
    path = Path(where) / LOG_FILE if Path(where).is_dir() else Path(where)
    try:
        lines = files.read_text(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read ({reason}). Give the {LOG_FILE} of a training run.") from None
    entries = [entry for line in lines if (entry := _entry(line))]
    if not entries:
        raise UserError(f"{path}: no step is logged in it. Give the {LOG_FILE} of a training run.")
    return TrainingCurve(name, _curve(entries, LOSS), _curve(entries, SCORE))


def _entry(line: str) -> dict[str, Any] | None:
    """None for the last line of a killed run, which may be cut off."""
    try:
        entry = json.loads(line)
    except json.JSONDecodeError:
        return None
    return entry if isinstance(entry, dict) and "step" in entry else None


def _curve(entries: list[dict[str, Any]], name: str) -> tuple[tuple[int, float], ...]:
    return tuple((int(entry["step"]), float(entry[name])) for entry in entries if entry.get(name) is not None)
