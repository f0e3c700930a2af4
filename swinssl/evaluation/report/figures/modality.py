"""Figure 4 of the paper: how much better each method is in one modality than in another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from swinssl.core.pictures import new_figure, tick_names
from swinssl.evaluation.comparison.paired_comparison import SIGNIFICANT, Compared, compare_groups
from swinssl.evaluation.comparison.score_table import ScoreTable
from swinssl.evaluation.report.figures.style import COLOURS, SMALL, WIDTH, plain
from swinssl.metrics.registry import DICE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "modality"
COLUMNS = 3
ROW = 0.22


def modality_differences(table: ScoreTable, *, metric: str = DICE) -> dict[str, Compared]:
    """By model, the first modality less the second, over the structures that both have; of one task and its shots.

    Patients are taken for different ones (Mann and Whitney's test). Empty without two modalities.
    """
    modalities = [name for name in table.distinct(lambda score: score.modality) if name]
    if len(modalities) < 2:
        return {}
    differences = {}
    for model in table.models:
        own = ScoreTable(tuple(replace(s, model=s.modality) for s in table.scores if s.model == model and s.modality))
        if (found := compare_groups(own, modalities[0], modalities[1], metric=metric)) is not None:
            differences[model] = found
    return differences


def modality_figure(table: ScoreTable, *, metric: str = DICE) -> Figure | None:
    """A panel a task and number of shots, a row a model; None where none has two modalities.

    Filled: p < 0.05, not corrected for the number of models.
    """
    kinds = table.distinct(lambda score: (score.task, score.shots))
    found = {}
    for task, shots in kinds:
        part = ScoreTable(tuple(s for s in table.scores if (s.task, s.shots) == (task, shots)))
        if differences := modality_differences(part, metric=metric):
            found[", ".join(filter(None, (task, shots and f"{shots} shots")))] = differences
    if not found:
        return None
    columns = min(COLUMNS, len(found))
    rows = -(-len(found) // columns)
    figure = new_figure(WIDTH, rows * (0.75 + ROW * len(table.models)) + 0.5)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes, (title, differences) in zip(panels.flat, found.items(), strict=False):
        one = next(iter(differences.values()))
        patients = f"{len(one.first_values)} {one.first}, {len(one.second_values)} {one.second}"
        _draw(axes, differences, table.models)
        axes.set_title(f"{title}\n{patients} patients".strip(), fontsize=SMALL)
    for axes in panels.flat[len(found) :]:
        axes.set_visible(False)
    figure.supxlabel(
        f"{metric}, {one.first} - {one.second}: typical difference with 95 % interval; filled: p < 0.05", fontsize=SMALL
    )
    return figure


def _draw(axes: Axes, differences: Mapping[str, Compared], models: Sequence[str]) -> None:
    for row, model in enumerate(models):
        if (own := differences.get(model)) is None:
            continue
        if own.interval is not None:
            axes.hlines(row, *own.interval, color=COLOURS[0], linewidth=1.5)
        filled = COLOURS[0] if own.p < SIGNIFICANT else "white"
        axes.plot(own.effect, row, "o", color=COLOURS[0], markerfacecolor=filled, markersize=5)
    axes.axvline(0, color="black", linewidth=1)
    axes.set_yticks(range(len(models)), tick_names(models))
    axes.set_ylim(len(models) - 0.5, -0.5)
    axes.tick_params(labelbottom=True)
    plain(axes, grid="x")
