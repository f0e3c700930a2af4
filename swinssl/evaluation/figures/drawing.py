"""The figures of a study, written into its folder."""

from __future__ import annotations

import re
from pathlib import Path

from swinssl.evaluation.figures import critical_difference, differences, order, scores
from swinssl.evaluation.figures.style import save
from swinssl.evaluation.study import Study


def draw_study(study: Study, folder: Path) -> tuple[str, ...]:
    """Write every figure that can be drawn, as SVG and PNG; those of a setting into a folder of its name.

    Returns:
        paths within `folder`.
    """
    written: list[str] = []
    for name, one in study.settings.items():
        inner = re.sub(r"[^A-Za-z0-9._-]+", "_", name)
        figures = {
            differences.NAME: differences.differences_figure(one),
            scores.NAME: scores.scores_figure(one),
            order.NAME: order.order_figure(one),
            critical_difference.NAME: None
            if one.ranking is None
            else critical_difference.critical_difference_figure(one.ranking),
        }
        for title, figure in figures.items():
            if figure is not None:
                written += [str(Path(inner) / file) for file in save(figure, folder / inner, title)]
    return tuple(written)
