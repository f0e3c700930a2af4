"""The figures of a study, written into its folder: those of each setting, and those over all of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from swinssl.core.pictures import spare_the_run
from swinssl.evaluation.comparison.score_table import ScoreTable
from swinssl.evaluation.comparison.study import ModelStudy
from swinssl.evaluation.encoders import cka_curves
from swinssl.evaluation.report.figures import (
    convergence,
    critical_difference,
    differences,
    few_shot,
    large_table,
    modality,
    order,
    organ_groups,
    scaling,
    scores,
    task_accuracy,
)
from swinssl.evaluation.report.figures.style import save

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_study(
    study: ModelStudy,
    table: ScoreTable,
    folder: Path,
    *,
    groups: Mapping[str, Sequence[str]] | None = None,
    cka: Mapping[str, cka_curves.Curve] | None = None,
) -> tuple[str, ...]:
    """Write every figure that there are data for, as SVG and PNG, and the table of all scores.

    Args:
        table: what the study compared.
        groups: structures by group.
        cka: curves of swinssl_cka by name.

    Returns:
        names of the figures; those of a setting lie in a folder of its name.
    """
    drawn: list[str] = []
    for name, one in study.settings.items():
        inner = folder_of(name)
        part = table.settings[name]
        of_setting: dict[str, Callable[[], Figure | None]] = {
            differences.NAME: partial(differences.differences_figure, one),
            scores.NAME: partial(scores.scores_figure, one),
            order.NAME: partial(order.order_figure, one),
            organ_groups.NAME: partial(organ_groups.organ_groups_figure, part, groups or {}, metric=study.metric),
        }
        if one.ranking:
            of_setting[critical_difference.NAME] = partial(critical_difference.critical_difference_figure, one.ranking)
        drawn += [str(Path(inner) / file) for file in _save(of_setting, folder / inner)]
    over_all: dict[str, Callable[[], Figure | None]] = {
        task_accuracy.NAME: partial(task_accuracy.task_accuracy_figure, table, metric=study.metric),
        modality.NAME: partial(modality.modality_figure, table, metric=study.metric),
        convergence.NAME: partial(convergence.convergence_figure, study.curves),
        few_shot.NAME: partial(few_shot.few_shot_figure, table, metric=study.metric),
        cka_curves.NAME: partial(cka_curves.cka_curves_figure, {"": cka or {}}),
        "volumes": partial(scaling.scaling_figure, table, "volumes", metric=study.metric),
        "parameters": partial(scaling.scaling_figure, table, "parameters", metric=study.metric),
    }
    large_table.write_table(large_table.large_table(table, metric=study.metric), folder)
    return (*drawn, *_save(over_all, folder))


def folder_of(setting: str) -> str:
    """The folder of a setting's figures, by its name; empty for a single one."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", setting)


def _save(figures: Mapping[str, Callable[[], Figure | None]], folder: Path) -> list[str]:
    """Draw what there are data for; the names of the figures that were written."""
    drawn = []
    for name, draw in figures.items():
        with spare_the_run(folder / name):
            if (figure := draw()) is not None:
                save(figure, folder, name)
                drawn.append(name)
    return drawn
