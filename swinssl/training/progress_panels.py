"""Which numbers of a log share a panel: terms of the loss and health of the features, which only pretraining has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TERM = "loss_"


@dataclass(frozen=True)
class Panel:
    """Numbers of one scale, over the steps.

    Args:
        heading: what they are, and which values mean what.
        curves: what each is called, by its name in the log.
        bottom, top: of the axis, where a bound says something; else it follows the values.
        reference: a value to compare with, and what it is called.
    """

    heading: str
    curves: Mapping[str, str]
    bottom: float | None = None
    top: float | None = None
    reference: tuple[float, str] | None = None


HEALTH = (
    Panel("feature deviation (0 collapse, 1 random directions)", {"feature_deviation": "all"}, bottom=0.0),
    Panel("effective rank (directions that images differ in)", {"effective_rank": "all"}, bottom=1.0),
    Panel("uniformity (0 collapse)", {"uniformity": "all"}, top=0.0),
    Panel("alignment (distance of two views of a sample)", {"alignment": "all"}, bottom=0.0),
    # From 0 to 1 it would be a flat line: a healthy teacher stays near the top for most of a run.
    Panel(
        "teacher's entropy, share of the largest (0 and 1 collapse)",
        {"teacher_entropy": "of crops", "patch_teacher_entropy": "of tokens"},
    ),
    Panel(
        "teacher's information, nats (0: it says the same of every image)",
        {"teacher_information": "of crops", "patch_teacher_information": "of tokens"},
        bottom=0.0,
    ),
    Panel("rotation accuracy", {"rotation_accuracy": "all"}, bottom=0.0, top=1.0, reference=(0.25, "chance")),
)


def term_panels(log: Sequence[Mapping[str, Any]]) -> list[Panel]:
    """One for each term of the loss, in the log's order; none where a single term is all of the loss.

    Terms come without their weights: cross-entropies near 9 beside squared errors of 0.04, so each has its own scale.
    """
    names = [name for name in _logged(log) if name.startswith(TERM)]
    if len(names) < 2:
        return []
    return [Panel(f"term of the loss: {(own := name.removeprefix(TERM))}", {name: own}) for name in names]


def health_panels(log: Sequence[Mapping[str, Any]]) -> list[Panel]:
    """Those of `HEALTH` that the log has numbers for, with the curves that it has."""
    there = _logged(log)
    panels = []
    for panel in HEALTH:
        curves = {name: label for name, label in panel.curves.items() if name in there}
        if curves:
            panels.append(Panel(panel.heading, curves, panel.bottom, panel.top, panel.reference))
    return panels


def _logged(log: Sequence[Mapping[str, Any]]) -> dict[str, None]:
    """Names that any entry has, in order of appearance."""
    return dict.fromkeys(name for entry in log for name in entry)
