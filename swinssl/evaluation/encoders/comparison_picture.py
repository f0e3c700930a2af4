"""Pictures of a comparison of two encoders: CKA as curve and heat maps, and what their heads look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from swinssl.core.pictures import new_figure, save_figure, spare_the_run
from swinssl.evaluation.encoders.attention_span import AttentionSpan
from swinssl.evaluation.encoders.encoder_comparison import LETTERS, Block, Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CKA_PICTURE, CKA_DRAWING, ATTENTION_PICTURE = "cka.png", "cka.svg", "attention.png"
# Okabe and Ito's blue and vermilion; of the maps cividis: colour-blind readers see both as others do.
COLOURS = ("#0072B2", "#D55E00")
HEAT, UNDEFINED = "cividis", "#CC79A7"
# A bar is so many standard errors long on either side.
BAR = 2.0
MOST_LABELS = 16
# Names of more letters stand in two lines.
LONG_NAMES = 110
DOTS_PER_INCH = 130


def draw(comparison: Comparison, folder: Path) -> tuple[str, ...]:
    """Write `cka.png`, `cka.svg` and `attention.png` into a folder; the names of those that could be drawn."""
    drawn = []
    for draw_one, name in (
        (cka_figure, CKA_PICTURE),
        (cka_figure, CKA_DRAWING),
        (attention_figure, ATTENTION_PICTURE),
    ):
        with spare_the_run(folder / name):
            save_figure(draw_one(comparison), folder / name, dots_per_inch=DOTS_PER_INCH)
            drawn.append(name)
    return tuple(drawn)


def cka_figure(comparison: Comparison) -> Figure:
    """Above the curve over blocks with its standard errors, below the three full matrices on one scale."""
    figure = new_figure(12, 7.4)
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[3, 3.9])[:, 0]
    above.suptitle(_title(comparison), fontsize=11)
    _draw_curve(above.subplots(), comparison)
    axes = below.subplots(1, 3)
    image: Any = None
    for one, (rows, columns) in zip(axes, ((0, 1), (0, 0), (1, 1)), strict=True):
        image = _draw_matrix(one, comparison, rows, columns)
    below.colorbar(image, ax=list(axes), shrink=0.9, pad=0.01, label="CKA")
    return figure


def attention_figure(comparison: Comparison) -> Figure:
    """A column an encoder: distance and entropy of every head, and those of even attention."""
    figure = new_figure(12, 7.5)
    figure.suptitle("What the heads look at: each dot is a head", fontsize=11)
    axes = figure.subplots(2, 2, sharex="col", sharey="row")
    for column, (letter, encoder, blocks, spans) in enumerate(
        zip(LETTERS, comparison.plan.encoders, comparison.plan.blocks, comparison.attention, strict=True)
    ):
        distance, entropy = axes[0][column], axes[1][column]
        distance.set_title(f"{letter}: {encoder.name}", fontsize=10, pad=18)
        _draw_heads(distance, blocks, spans, lambda s: s.distance_mm, lambda s: s.even_distance_mm, COLOURS[column])
        _draw_heads(entropy, blocks, spans, lambda s: s.entropy, lambda s: s.even_entropy, COLOURS[column])
        entropy.set_xlabel("block")
        distance.legend(fontsize=9, loc="upper left")
    axes[0][0].set_ylabel("mean attention distance, mm")
    axes[1][0].set_ylabel("entropy, nats")
    for row in axes:
        row[0].set_ylim(bottom=0)
    return figure


def _title(comparison: Comparison) -> str:
    plan = comparison.plan
    names = [f"{letter}: {encoder.name}" for letter, encoder in zip(LETTERS, plan.encoders, strict=True)]
    between = "   " if sum(map(len, names)) <= LONG_NAMES else "\n"
    crops = plan.batch_size * plan.minibatches
    cases = f"{len(plan.cases)} cases of {plan.dataset_name}"
    return f"{between.join(names)}\n{crops} crops of {cases} that {plan.new_to_both}"


def _draw_curve(axes: Axes, comparison: Comparison) -> None:
    first, second = comparison.plan.blocks
    curve = comparison.curve
    at = [first.index(point.first) + 1 for point in curve]
    values = np.array([point.cka for point in curve])
    error = BAR * np.nan_to_num([point.standard_error for point in curve])
    label = ("same block" if first == second else "last block of each stage") + " of A and B"
    label += f", +- {BAR:g} standard errors" if error.any() else ""
    axes.errorbar(at, values, yerr=error, color=COLOURS[0], marker="o", markersize=5, capsize=3, label=label)
    axes.set_ylim(min(0.0, float(np.nanmin(values - error, initial=0.0))) - 0.02, 1.05)
    _stages_along_x(axes, first)
    axes.set_xlim(0.5, len(first) + 0.5)
    axes.set_xlabel("block of A" if first != second else "block")
    axes.set_ylabel("CKA between A and B")
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower left", fontsize=9)


def _draw_matrix(axes: Axes, comparison: Comparison, rows: int, columns: int) -> Any:
    from matplotlib import colormaps

    matrix = comparison.part(rows, columns).matrix
    colours = colormaps[HEAT].with_extremes(bad=UNDEFINED)
    across, down = comparison.plan.blocks[columns], comparison.plan.blocks[rows]
    image = axes.imshow(
        np.ma.masked_invalid(matrix),
        cmap=colours,
        vmin=0,
        vmax=1,
        extent=(0.5, len(across) + 0.5, len(down) + 0.5, 0.5),
        interpolation="nearest",
        aspect="auto",
    )
    axes.set_box_aspect(1)
    for place in _boundaries(across):
        axes.axvline(place, color="white", linewidth=1)
    for place in _boundaries(down):
        axes.axhline(place, color="white", linewidth=1)
    axes.set_title("A and B" if rows != columns else f"{LETTERS[rows]} with itself", fontsize=10)
    axes.set_xticks(_labelled(len(across)))
    axes.set_yticks(_labelled(len(down)))
    axes.tick_params(labelsize=8)
    axes.set_xlabel(f"block of {LETTERS[columns]}")
    axes.set_ylabel(f"block of {LETTERS[rows]}")
    return image


def _draw_heads(
    axes: Axes,
    blocks: Sequence[Block],
    spans: Sequence[AttentionSpan],
    of_heads: Callable[[AttentionSpan], Any],
    even: Callable[[AttentionSpan], float],
    colour: str,
) -> None:
    for number, span in enumerate(spans, 1):
        values = of_heads(span)
        # A name that begins with _ stays out of the legend.
        labels = ("a head", "even attention over the window") if number == 1 else ("_head", "_even")
        # Heads lie beside each other, so that none hides another.
        beside = number + np.linspace(-0.25, 0.25, len(values)) if len(values) > 1 else [number]
        axes.scatter(beside, values, color=colour, s=14, alpha=0.8, zorder=3, label=labels[0])
        axes.hlines(even(span), number - 0.4, number + 0.4, color="black", linewidth=1.2, label=labels[1])
    _stages_along_x(axes, blocks)
    axes.set_xlim(0.5, len(blocks) + 0.5)
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _stages_along_x(axes: Axes, blocks: Sequence[Block]) -> None:
    """Block numbers as ticks, a line between stages and the stage's name above."""
    axes.set_xticks(_labelled(len(blocks)))
    edges = [0.5, *_boundaries(blocks), len(blocks) + 0.5]
    for place in edges[1:-1]:
        axes.axvline(place, color="grey", linewidth=0.8, linestyle=":")
    for stage, (start, stop) in enumerate(pairwise(edges), 1):
        axes.text(
            (start + stop) / 2,
            0.99,
            f"stage {stage}",
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="bottom",
            fontsize=9,
            color="dimgrey",
        )


def _boundaries(blocks: Sequence[Block]) -> list[float]:
    """Where one stage ends and the next begins, blocks numbered from 1."""
    return [number + 0.5 for number, (a, b) in enumerate(pairwise(blocks), 1) if a.stage != b.stage]


def _labelled(count: int) -> list[int]:
    """Block numbers that get a label: all of them, or every so many."""
    return list(range(1, count + 1, -(-count // MOST_LABELS)))
