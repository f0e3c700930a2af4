"""Figure 6 of the paper: training loss and validation Dice over the steps, and where 95 % of the end is reached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from swinssl.core.pictures import legend_name, new_figure
from swinssl.evaluation.comparison.convergence import TrainingCurve
from swinssl.evaluation.report.figures.style import (
    SMALL,
    TEXT,
    WIDTH,
    colour_of,
    dash_of,
    legend_below,
    marker_of,
    plain,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "convergence"


def convergence_figure(curves: Sequence[TrainingCurve]) -> Figure | None:
    """A line a model, the mean over its runs at the steps that all of them have; None without curves."""
    if not curves:
        return None
    models = list(dict.fromkeys(curve.model for curve in curves))
    colours, dashes, markers = colour_of(models), dash_of(models), marker_of(models)
    figure = new_figure(WIDTH, 3.0)
    losses, scores = figure.subplots(1, 2)
    for model in models:
        own = [curve for curve in curves if curve.model == model]
        style = {"color": colours[model], "linestyle": dashes[model], "linewidth": 1.2}
        losses.plot(*_mean([curve.loss for curve in own]), label=legend_name(model), **style)
        scores.plot(*_mean([curve.scores for curve in own]), **style)
        # A marker a run.
        reached = [(step, dict(curve.scores)[step]) for curve in own if (step := curve.steps_to_converge) is not None]
        if reached:
            scores.scatter(*zip(*reached, strict=True), color=colours[model], marker=markers[model], s=28, zorder=3)
    losses.set_title("Training loss", fontsize=TEXT)
    scores.set_title("Validation Dice; marker: 95 % of the last", fontsize=TEXT)
    scores.set_ylim(bottom=0)
    for axes in (losses, scores):
        axes.set_xlabel("step", fontsize=SMALL)
        plain(axes)
    legend_below(figure, losses)
    return figure


def _mean(runs: Sequence[Sequence[tuple[int, float]]]) -> tuple[list[int], list[float]]:
    by_step = [dict(run) for run in runs]
    steps = sorted(set(by_step[0]).intersection(*by_step[1:]))
    return steps, [float(np.mean([own[step] for own in by_step])) for step in steps]
