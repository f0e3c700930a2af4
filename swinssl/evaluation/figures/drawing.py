"""The figures of a study, written into its folder: those of each setting, and those over all of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swinssl.evaluation.figures import (
    cka_curves,
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
from swinssl.evaluation.figures.style import save
from swinssl.evaluation.score_table import ScoreTable
from swinssl.evaluation.study import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_study(
    study: Study,
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
        ranking = one.ranking
        of_setting = {
            differences.NAME: differences.differences_figure(one),
            scores.NAME: scores.scores_figure(one),
            order.NAME: order.order_figure(one),
            critical_difference.NAME: ranking and critical_difference.critical_difference_figure(ranking),
            organ_groups.NAME: organ_groups.organ_groups_figure(
                table.settings[name], groups or {}, metric=study.metric
            ),
        }
        drawn += [str(Path(inner) / file) for file in _save(of_setting, folder / inner)]
    over_all = {
        task_accuracy.NAME: task_accuracy.task_accuracy_figure(table, metric=study.metric),
        modality.NAME: modality.modality_figure(table, metric=study.metric),
        convergence.NAME: convergence.convergence_figure(study.curves),
        few_shot.NAME: few_shot.few_shot_figure(table, metric=study.metric),
        cka_curves.NAME: cka_curves.cka_curves_figure({"": cka or {}}),
        "volumes": scaling.scaling_figure(table, "volumes", metric=study.metric),
        "parameters": scaling.scaling_figure(table, "parameters", metric=study.metric),
    }
    large_table.write_table(large_table.large_table(table, metric=study.metric), folder)
    return (*drawn, *_save(over_all, folder))


def folder_of(setting: str) -> str:
    """The folder of a setting's figures, by its name; empty for a single one."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", setting)


def _save(figures: Mapping[str, Figure | Any], folder: Path) -> list[str]:
    drawn = {name: figure for name, figure in figures.items() if figure is not None}
    for name, figure in drawn.items():
        save(figure, folder, name)
    return list(drawn)
