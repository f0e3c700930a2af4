"""Figure 7 of the paper: accuracy from few to many labelled cases, and the gap to the best."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from swinssl.core.pictures import legend_name, new_figure
from swinssl.evaluation.comparison.performance_gap import performance_gaps
from swinssl.evaluation.comparison.score_table import ScoreTable
from swinssl.evaluation.report.figures.accuracy import Accuracy, accuracy_of
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
from swinssl.metrics.registry import DICE, lower_is_better

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "few_shot"


def shot_accuracies(table: ScoreTable, *, metric: str = DICE) -> dict[tuple[str, str], Accuracy]:
    """By model and number of shots, of a table of one task; shots by rising number, words after them."""
    shots = [name for name in table.distinct(lambda score: score.shots) if name]
    shots.sort(key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0))
    parts = {name: ScoreTable(tuple(s for s in table.scores if s.shots == name)) for name in shots}
    return {
        (model, name): own
        for model in table.models
        for name, part in parts.items()
        if (own := accuracy_of(part, model, metric=metric)) is not None
    }


def few_shot_figure(table: ScoreTable, *, metric: str = DICE) -> Figure | None:
    """A column a task: accuracy with intervals above, gap to the task's best below.

    None without two kinds of shots, or where less is better or nothing was learnt: no gap is defined there.
    """
    if lower_is_better(metric):
        return None
    tasks = table.distinct(lambda score: (score.task, score.modality))
    parts = [ScoreTable(tuple(s for s in table.scores if (s.task, s.modality) == task)) for task in tasks]
    found = [
        (task, own) for task, part in zip(tasks, parts, strict=True) if (own := shot_accuracies(part, metric=metric))
    ]
    found = [
        (task, own)
        for task, own in found
        if len({shots for _, shots in own}) > 1 and max(a.mean for a in own.values()) > 0
    ]
    if not found:
        return None
    models = table.models
    colours, dashes, markers = colour_of(models), dash_of(models), marker_of(models)
    figure = new_figure(max(WIDTH * len(found) / 3, 4.2), 4.6)
    axes = figure.subplots(2, len(found), sharex="col", squeeze=False)
    for column, (task, own) in enumerate(found):
        shots = list(dict.fromkeys(shots for _, shots in own))
        gaps = performance_gaps({key: one.mean for key, one in own.items()})
        for number, model in enumerate(models):
            there = [name for name in shots if (model, name) in own]
            # Beside each other, so that no interval hides another.
            at = [shots.index(name) + 0.06 * (number - (len(models) - 1) / 2) for name in there]
            style = {"color": colours[model], "linestyle": dashes[model], "linewidth": 1.2, "markersize": 4}
            reach = np.array([own[model, name].reach for name in there]).reshape(-1, 2).T
            means = [own[model, name].mean for name in there]
            axes[0][column].errorbar(
                at, means, yerr=reach, marker=markers[model], capsize=2, label=legend_name(model), **style
            )
            axes[1][column].plot(at, [gaps[model, name] for name in there], marker=markers[model], **style)
        axes[0][column].set_title(" ".join(filter(None, task)) or "accuracy", fontsize=TEXT)
        axes[1][column].set_xticks(range(len(shots)), shots)
        axes[1][column].set_xlabel("labelled cases", fontsize=SMALL)
        for one in axes[:, column]:
            plain(one)
    axes[0][0].set_ylabel(f"mean {metric}, 95 % interval", fontsize=SMALL)
    axes[1][0].set_ylabel("gap to the best, %", fontsize=SMALL)
    legend_below(figure, axes[0][0])
    return figure
