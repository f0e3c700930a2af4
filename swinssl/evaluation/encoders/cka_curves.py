"""Figure 8 of the paper: CKA between encoders before and after fine-tuning, block by block, for several models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.core.pictures import legend_name, new_figure
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
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The points of a curve, as in cka.json.
Curve = list[dict[str, Any]]

NAME = "cka_curves"
COLUMNS = 3
MOST_LABELS = 20
REMEDY = "Give the cka.json of swinssl_cka, or its folder."


def read_cka(given: str) -> tuple[str, Curve]:
    """The curve of `NAME=PATH`, PATH being a cka.json or its folder.

    Raises:
        UserError: it is not such a file.
    """
    name, _, where = given.partition("=")
    if not name or not where:
        raise UserError(f"--cka {given}: expected NAME=FOLDER. Say which model it is of.")
    path = Path(where) / "cka.json" if Path(where).is_dir() else Path(where)
    content = files.read_json(path, what="comparison of encoders", remedy=REMEDY)
    if not isinstance(content, dict) or not content.get("curve"):
        raise UserError(f"{path}: no curve in it. {REMEDY}")
    return name, content["curve"]


def cka_curves_figure(panels: Mapping[str, Mapping[str, Curve]]) -> Figure | None:
    """A line a model over the blocks of encoder A, bars of two standard errors; None without curves.

    Args:
        panels: by title the curves that share one, by model.
    """
    panels = {title: curves for title, curves in panels.items() if curves}
    if not panels:
        return None
    models = list(dict.fromkeys(model for curves in panels.values() for model in curves))
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(WIDTH, 0.5 + rows * (2.7 if columns == 1 else 2.1))
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for one, (title, curves) in zip(axes.flat, panels.items(), strict=False):
        _draw(one, curves, models, title)
    for one in axes.flat[len(panels) :]:
        one.set_visible(False)
    lowest = min(one.get_ylim()[0] for one in axes.flat)
    axes[0][0].set_ylim(min(0.0, lowest), 1.05)
    for one in axes[:, 0]:
        one.set_ylabel("CKA, 2 standard errors", fontsize=SMALL)
    figure.suptitle("How alike encoders are: 1 the same but for rotation and scale", fontsize=TEXT)
    legend_below(figure, axes[0][0])
    return figure


def _draw(axes: Axes, curves: Mapping[str, Curve], models: Sequence[str], title: str) -> None:
    colours, dashes, markers = colour_of(models), dash_of(models), marker_of(models)
    longest = max((len(curve), model) for model, curve in curves.items())[1]
    names = [point["block_A"] for point in curves[longest]]
    for model, curve in curves.items():
        at = [names.index(point["block_A"]) + 1 if point["block_A"] in names else np.nan for point in curve]
        values = [np.nan if point["cka"] is None else point["cka"] for point in curve]
        error = [2 * (point["standard_error"] or 0) for point in curve]
        axes.errorbar(
            at,
            values,
            yerr=error,
            label=legend_name(model),
            color=colours[model],
            linestyle=dashes[model],
            marker=markers[model],
            markersize=4,
            linewidth=1.2,
            capsize=2,
        )
    for place, (before, after) in enumerate(pairwise(names), 1):
        if before.split(".")[0] != after.split(".")[0]:
            axes.axvline(place + 0.5, color="grey", linewidth=0.8, linestyle=":")
    step = -(-len(names) // MOST_LABELS)
    axes.set_xticks(range(1, len(names) + 1, step), names[::step])
    axes.set_xlabel("block (stage.block)", fontsize=SMALL)
    axes.set_title(title, fontsize=TEXT)
    plain(axes)
