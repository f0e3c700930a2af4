"""Figure 8 of the paper: CKA between encoders before and after fine-tuning, block by block, for several models."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from swinssl import files
from swinssl.errors import UserError
from swinssl.evaluation.figures.style import SMALL, TEXT, WIDTH, colour_of, dash_of, marker_of, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "cka_curves"
REMEDY = "Give the cka.json of swinssl_cka, or its folder."


def read_cka(given: str) -> tuple[str, list[dict[str, Any]]]:
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


def cka_curves_figure(curves: Mapping[str, list[dict[str, Any]]]) -> Figure | None:
    """A line a model over the blocks of encoder A, bars of two standard errors; None without curves."""
    if not curves:
        return None
    colours, dashes, markers = colour_of([*curves]), dash_of([*curves]), marker_of([*curves])
    figure = new_figure(WIDTH, 3.2)
    axes = figure.subplots()
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
            label=model,
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
    axes.set_xticks(range(1, len(names) + 1), names)
    axes.set_ylim(min(0.0, axes.get_ylim()[0]), 1.05)
    axes.set_xlabel("block (stage.block)", fontsize=SMALL)
    axes.set_ylabel("CKA, 2 standard errors", fontsize=SMALL)
    axes.set_title("How alike encoders are: 1 the same but for rotation and scale", fontsize=TEXT, loc="left")
    axes.legend(fontsize=SMALL, loc="lower left")
    plain(axes)
    return figure
