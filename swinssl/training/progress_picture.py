"""The picture of a run: loss, validation scores and learning rate over the steps, from its log.

A pretraining's log also has the terms of the loss and the health of the features, which get panels of their own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swinssl.core.pictures import legend_name, new_figure, save_figure, spare_the_run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Okabe and Ito's colours, told apart by colour-blind readers and in print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
# More curves than this would hide each other; the mean is always drawn.
MOST_CURVES = 8
PREFIX = "validation_"
UNTRAINED = f"{PREFIX}untrained"
SCORE = "Dice of whole volumes"
# Of a column, and of the panels of loss or scores, of a term or a health number, and of the rate.
WIDTH, HIGH, MIDDLE, LOW = 8.0, 3.0, 1.5, 1.0


def draw_progress(log: Sequence[dict[str, Any]], path: Path, *, title: str, score: str = SCORE) -> None:
    """Write `path` (PNG) from the entries of `log.jsonl`; other arguments as of `progress_figure`."""
    with spare_the_run(path):
        save_figure(progress_figure(log, title=title, score=score), path, dots_per_inch=100)


def progress_figure(log: Sequence[dict[str, Any]], *, title: str, score: str = SCORE, width: float = WIDTH) -> Figure:
    """Left loss, its terms, scores and rate; right the health of the features; each only if the log has it.

    Args:
        log: entries of `log.jsonl`.
        title: of the picture.
        score: what the validation scores are.
        width: of a column, in inches.
    """
    terms, health = term_panels(log), health_panels(log)
    validated = [entry for entry in log if f"{PREFIX}score" in entry]
    rows = [HIGH, *[MIDDLE] * len(terms), *([HIGH] if validated else []), LOW]
    height = max(sum(rows) if validated or terms else 4.5, MIDDLE * len(health))
    figure = new_figure(width + 0.75 * width * bool(health), height)
    halves = figure.subfigures(1, 2, width_ratios=[4, 3], squeeze=False)[0] if health else [figure]
    left, right = halves[0], halves[-1]
    axes = left.subplots(len(rows), 1, sharex=True, height_ratios=rows)
    steps = [entry["step"] for entry in log]

    loss = axes[0]
    loss.plot(steps, _curve(log, "loss"), color=COLOURS[0], linewidth=1)
    loss.set_ylabel("training loss")
    loss.set_title(title, fontsize=10)
    for one, panel in zip(axes[1:], terms, strict=False):
        _draw_panel(one, panel, log)
    if validated:
        _draw_scores(axes[-2], validated, score)
    rate = axes[-1]
    rate.plot(steps, _curve(log, "learning_rate"), color=COLOURS[6], linewidth=1)
    rate.set_ylabel("rate")
    rate.set_xlabel("step")
    columns = [*axes]
    if health:
        beside = right.subplots(len(health), 1, sharex=True, squeeze=False)[:, 0]
        for one, panel in zip(beside, health, strict=True):
            _draw_panel(one, panel, log)
        beside[0].sharex(rate)
        beside[-1].set_xlabel("step")
        columns += [*beside]
    for one in columns:
        one.grid(alpha=0.3)
        one.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_panel(axes: Axes, panel: Panel, log: Sequence[dict[str, Any]]) -> None:
    for (name, label), colour in zip(panel.curves.items(), COLOURS, strict=False):
        axes.plot([entry["step"] for entry in log], _curve(log, name), color=colour, linewidth=1, label=label)
    if panel.reference is not None:
        _draw_reference(axes, *panel.reference)
    axes.set_title(panel.heading, fontsize=9, loc="left")
    axes.set_ylim(panel.bottom, panel.top)
    # Numbers in full: an offset in the corner is overlooked.
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.locator_params(axis="y", nbins=4)
    if len(panel.curves) > 1 or panel.reference is not None:
        axes.legend(fontsize=8, loc="best")


def _curve(log: Sequence[dict[str, Any]], name: str) -> list[float]:
    # What an entry lacks, or could not be measured, is a gap.
    return [math.nan if (value := entry.get(name)) is None else float(value) for entry in log]


def _draw_reference(axes: Axes, value: float, label: str) -> None:
    axes.axhline(value, color="grey", linestyle="--", linewidth=1, label=label)


def _draw_scores(axes: Axes, validated: Sequence[dict[str, Any]], score: str) -> None:
    steps = [entry["step"] for entry in validated]
    names = [name for name in validated[-1] if name.startswith(PREFIX) and name not in (f"{PREFIX}score", UNTRAINED)]
    # Of many structures the worst are those one looks for.
    names.sort(key=lambda name: validated[-1][name] if validated[-1][name] is not None else 2.0)
    for name, colour in zip(names[:MOST_CURVES], COLOURS, strict=False):
        label = legend_name(name.removeprefix(f"{PREFIX}dice_"))
        axes.plot(steps, _curve(validated, name), color=colour, linewidth=1, marker=".", markersize=3, label=label)
    scores = _curve(validated, f"{PREFIX}score")
    axes.plot(steps, scores, color="black", linewidth=2, label="mean")
    # Nobody may have measured it.
    untrained = validated[-1].get(UNTRAINED, math.nan)
    if math.isfinite(untrained):
        _draw_reference(axes, untrained, "encoder as it began")
    best = max(range(len(scores)), key=lambda i: (scores[i], i))
    axes.annotate(
        f"{scores[best]:.3f}", (steps[best], scores[best]), textcoords="offset points", xytext=(0, 6), ha="center"
    )
    axes.set_ylabel(score)
    axes.set_ylim(0, 1)
    hidden = len(names) - MOST_CURVES
    axes.legend(fontsize=8, loc="lower right", title=f"(the worst {MOST_CURVES})" if hidden > 0 else None)


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
