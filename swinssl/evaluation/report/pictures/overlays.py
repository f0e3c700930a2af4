"""Figure 5 of the paper: what several models drew on the same cases, against the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from swinssl.core.errors import UserError
from swinssl.core.geometry import Box, Spacing
from swinssl.core.pictures import new_figure
from swinssl.evaluation.report.figures.style import SMALL
from swinssl.evaluation.report.html.case_summary import case_score, mean_score, worst_first
from swinssl.evaluation.report.html.content import Case
from swinssl.evaluation.report.pictures.shown_case import COLOURS, box_around, canonical_map, image_on, window_of
from swinssl.evaluation.report.pictures.shown_plane import draw_legend, draw_plane
from swinssl.metrics.structures import Structure

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
    structures = _drawn(cases, models) if cases else []
    if not scenes or not models or not structures:
        return None
    colours = dict(zip((one.name for one in structures), COLOURS, strict=False))
    figure = new_figure(INCHES * len(models) + 0.3, (INCHES + 0.35) * len(scenes) + 0.6)
    axes = figure.subplots(len(scenes), len(models), squeeze=False)
    for row, scene in zip(axes, scenes, strict=True):
        case, shown = scene.case, scene.shown
        window = None if scene.image is None else window_of(scene.image, ct=case.ct)
        for one, model in zip(row, models, strict=True):
            prediction = scene.predictions.get(model, np.zeros_like(scene.reference))
            both = np.stack([scene.reference[shown], prediction[shown]])
            masks = {s.name: np.isin(both, s.values) for s in structures}
            draw_plane(
                one,
                None if scene.image is None else scene.image[shown],
                masks,
                axis=AXIAL,
                index=0,
                spacing=scene.spacing,
                window=window,
                colours=colours,
            )
            said = [] if (mean := mean_score(case, model)) is None else [f"{mean:.3f}"]
            said += [] if model in scene.predictions else ["no prediction"]
            one.set_title(f"{model}: {', '.join(said) or 'no score'}", fontsize=SMALL)
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
    """A case on its canonical grid: axes (z, y, x) to superior, anterior, right."""

    case: Case
    reference: NDArray
    predictions: dict[str, NDArray]
    image: NDArray | None
    spacing: Spacing

    @property
    def plane(self) -> int:
        """Of the axial planes with reference, the one where predictions differ most from it; else its largest."""
        across = (1, 2)
        wrong = [(one != self.reference).sum(axis=across) for one in self.predictions.values()]
        size = (self.reference > 0).sum(axis=across)
        differing = np.sum(wrong, axis=0) if wrong else size
        return int(max(range(len(size)), key=lambda i: (size[i] > 0, differing[i], size[i])))

    @property
    def shown(self) -> Box:
        """The plane alone, and of it a square in mm round what anyone drew there."""
        plane = self.plane
        drawn = np.logical_or.reduce([one[plane] > 0 for one in (self.reference, *self.predictions.values())])
        if not drawn.any():
            return slice(plane, plane + 1), slice(None), slice(None)
        _, *box = box_around(drawn[None], self.spacing)
        mm = self.spacing[1:]
        ends = [part.indices(n)[:2] for part, n in zip(box, drawn.shape, strict=True)]
        longest = max((stop - start) * one for (start, stop), one in zip(ends, mm, strict=True))
        y, x = (_widened(*own, round(longest / one), n) for own, one, n in zip(ends, mm, drawn.shape, strict=True))
        return slice(plane, plane + 1), y, x


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
    return _Scene(case, reference, predictions, image, grid.spacing)


def _widened(start: int, stop: int, length: int, size: int) -> slice:
    """So long, round the same middle, as far as the array goes."""
    more = max(0, length - (stop - start))
    first = max(0, min(start - more // 2, size - length))
    return slice(first, min(size, max(stop, first + length)))
