"""Figure 5 of the paper: what several models drew on the same cases, against the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from swinssl.errors import UserError
from swinssl.evaluation.figures.style import SMALL, new_figure
from swinssl.evaluation.html_report.case_summary import case_score, mean_score, worst_first
from swinssl.evaluation.html_report.content import Case
from swinssl.evaluation.shown_case import COLOURS, box_around, canonical_map, image_on, window_of
from swinssl.evaluation.shown_plane import draw_legend, draw_plane
from swinssl.evaluation.structure import Structure
from swinssl.imageio.volume import Triple

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "overlays"
INCHES = 2.1
AXIAL = 0


def typical_cases(cases: Sequence[Case]) -> list[Case]:
    """The case that models are worst at on the average, one in the middle, and the best: as many as have scores."""
    ranked = [case for case in worst_first(cases) if case_score(case) is not None]
    places = dict.fromkeys((0, (len(ranked) - 1) // 2, len(ranked) - 1)) if ranked else {}
    return [ranked[place] for place in places]


def overlays_figure(cases: Sequence[Case], models: Sequence[str]) -> Figure | None:
    """A row a case, a column a model: the axial plane in which they differ most from the reference, taken together.

    A case whose reference cannot be read is left out, a prediction that cannot be is said to be missing. None without
    a case.
    """
    scenes = [scene for case in cases if (scene := _scene(case, models)) is not None]
    if not scenes or not models:
        return None
    structures = _drawn(cases, models)
    colours = dict(zip((one.name for one in structures), COLOURS, strict=False))
    figure = new_figure(INCHES * len(models) + 0.3, (INCHES + 0.35) * len(scenes) + 0.6)
    axes = figure.subplots(len(scenes), len(models), squeeze=False)
    for row, scene in zip(axes, scenes, strict=True):
        case, plane = scene.case, scene.plane
        window = None if scene.image is None else window_of(scene.image, ct=case.ct)
        for one, model in zip(row, models, strict=True):
            both = np.stack([scene.reference, scene.predictions.get(model, np.zeros_like(scene.reference))])
            masks = {s.name: np.isin(both, s.values) for s in structures}
            draw_plane(
                one,
                scene.image,
                {name: mask for name, mask in masks.items() if mask.any()},
                axis=AXIAL,
                index=plane,
                spacing=scene.spacing,
                window=window,
                colours=colours,
            )
            mean = mean_score(case, model)
            one.set_title(f"{model}: {'no prediction' if mean is None else f'{mean:.3f}'}", fontsize=SMALL)
        row[0].set_ylabel(case.case, fontsize=SMALL)
    draw_legend(figure, colours)
    return figure


def _drawn(cases: Sequence[Case], models: Sequence[str]) -> list[Structure]:
    """As many structures as there are colours: those with the lowest scores; in the order of the data set."""

    def lowest(structure: Structure) -> float:
        values = [case.scores.get(model, {}).get(structure.name) for case in cases for model in models]
        return min((value for value in values if value is not None), default=np.inf)

    structures = cases[0].structures
    chosen = sorted(structures, key=lowest)[: len(COLOURS)]
    return [structure for structure in structures if structure in chosen]


@dataclass(frozen=True, eq=False)
class _Scene:
    """A case cropped to what anyone drew; axes (z, y, x) to superior, anterior, right."""

    case: Case
    reference: NDArray
    predictions: dict[str, NDArray]
    image: NDArray | None
    spacing: Triple

    @property
    def plane(self) -> int:
        """Of the axial planes with reference, the one where predictions differ most from it; else its largest."""
        across = (1, 2)
        wrong = [(one != self.reference).sum(axis=across) for one in self.predictions.values()]
        size = (self.reference > 0).sum(axis=across)
        differing = np.sum(wrong, axis=0) if wrong else size
        return int(max(range(len(size)), key=lambda i: (size[i] > 0, differing[i], size[i])))


def _scene(case: Case, models: Sequence[str]) -> _Scene | None:
    """None where the reference cannot be read."""
    try:
        reference, grid = canonical_map(case.case, case.reference, case.reference)
    except UserError:
        return None
    predictions: dict[str, NDArray] = {}
    for model in models:
        try:
            predictions[model], _ = canonical_map(case.case, case.predictions.get(model, Path()), case.reference)
        except UserError:
            continue
    try:
        image: NDArray | None = image_on(grid, case.image)
    except UserError:
        image = None
    either = np.logical_or.reduce([array > 0 for array in (reference, *predictions.values())])
    box = box_around(either, grid.spacing) if either.any() else (slice(None),) * 3
    cropped = {name: array[box] for name, array in predictions.items()}
    return _Scene(case, reference[box], cropped, None if image is None else image[box], grid.spacing)
