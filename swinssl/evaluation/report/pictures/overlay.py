"""A picture of the worst and the median case: reference and prediction as contours on the image, in three planes.

Each plane is the one where the two maps differ most in the structure with the lowest Dice.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from swinssl.core.errors import UserError
from swinssl.core.geometry import Spacing
from swinssl.core.pictures import new_figure, save_figure, spare_the_run
from swinssl.evaluation.pairing import Pair
from swinssl.evaluation.report.pictures.shown_case import COLOURS, box_around, image_on, window_of
from swinssl.evaluation.report.pictures.shown_plane import PLANES, draw_legend, draw_plane
from swinssl.evaluation.results import CaseResult, Evaluation
from swinssl.imageio.volume import Geometry, Volume
from swinssl.metrics.structures import Structure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

OVERLAYS_FILE = "overlays.png"
INCHES, DOTS_PER_INCH = 3.6, 140


def draw_overlays(evaluation: Evaluation, path: Path, *, images: Mapping[str, Path], ct: bool) -> bool:
    """Write the picture.

    Args:
        images: image file by case; a case without one is drawn on black.
        ct: whether images are CT, shown in a soft-tissue window; else in the range of their own intensities.

    Returns:
        Whether there is one: not where no case has a Dice, or where drawing failed, which a warning says.
    """
    if evaluation.worst is None or evaluation.median is None:
        return False
    shown = {"worst": evaluation.worst}
    if evaluation.median is not evaluation.worst:
        shown["median"] = evaluation.median
    with spare_the_run(path):
        structures = _to_draw(evaluation.structures, tuple(shown.values()))
        colours = dict(zip((s.name for s in structures), COLOURS, strict=False))
        scenes = {rank: _scene(case, structures, images.get(case.case_id)) for rank, case in shown.items()}
        figure = _figure(scenes, colours, ct=ct)
        count = len(evaluation.structures)
        few = None if len(colours) == count else f"the {len(colours)} of {count} structures with the lowest Dice"
        draw_legend(figure, colours, title=few)
        save_figure(figure, path, dots_per_inch=DOTS_PER_INCH)
        return True
    return False


@dataclass(frozen=True, eq=False)
class _Scene:
    """A case as it is drawn, cropped to its structures, axes (z, y, x) to superior, anterior, right.

    Args:
        image: (Z, Y, X), or None.
        masks: reference and prediction (2, Z, Y, X) of each structure.
        focus: the structure that the planes go through.
    """

    case: CaseResult
    image: NDArray | None
    masks: dict[str, NDArray[np.bool_]]
    spacing: Spacing
    focus: str

    def planes(self) -> tuple[int, int, int]:
        """Along each axis where the focus differs most, of the planes in which both maps have it, if there are any."""
        z, y, x = (self._plane(tuple({0, 1, 2} - {axis})) for axis in range(3))
        return z, y, x

    def _plane(self, others: tuple[int, ...]) -> int:
        reference, prediction = self.masks[self.focus]
        in_both = reference.any(axis=others) & prediction.any(axis=others)
        differing, either = (mask.sum(axis=others) for mask in (reference ^ prediction, reference | prediction))
        # Where nothing differs, the largest plane.
        return int(max(range(len(in_both)), key=lambda i: (in_both[i], differing[i], either[i])))


def _to_draw(structures: Sequence[Structure], cases: Sequence[CaseResult]) -> tuple[Structure, ...]:
    """As many as there are colours: the worst of each case, then by Dice; in the order of the data set."""
    worst = {case.worst_structure for case in cases}

    def rank(structure: Structure) -> tuple[bool, float]:
        found = [case.metrics[structure.name].overlap.dice for case in cases if structure.name in case.metrics]
        return structure.name not in worst, min((dice for dice in found if dice is not None), default=np.inf)

    chosen = {structure.name for structure in sorted(structures, key=rank)[: len(COLOURS)] if rank(structure)[1] <= 1}
    return tuple(structure for structure in structures if structure.name in chosen)


def _scene(case: CaseResult, structures: Sequence[Structure], image_path: Path | None) -> _Scene:
    reference, prediction, geometry = Pair(case.case_id, case.prediction, case.reference).read()
    labels, _ = Volume(np.stack([reference, prediction]), geometry).canonical()
    image = None if image_path is None else _image_on(labels.geometry, image_path)
    annotated = [structure for structure in structures if structure.name in case.metrics]
    values = [value for structure in annotated for value in structure.values]
    either = np.isin(labels.array[0], values) | np.isin(labels.array[1], values)
    box = box_around(either, labels.geometry.spacing)
    masks = {structure.name: np.isin(labels.array[:, *box], structure.values) for structure in annotated}
    return _Scene(
        case,
        None if image is None else image[box],
        {name: mask for name, mask in masks.items() if mask.any()},
        labels.geometry.spacing,
        case.worst_structure or structures[0].name,
    )


def _image_on(grid: Geometry, path: Path) -> NDArray | None:
    """The image's voxels, where it lies on the labels' grid."""
    try:
        return image_on(grid, path)
    except UserError as error:
        logger.warning("no image in %s: %s", OVERLAYS_FILE, error)
        return None


# --- drawing


def _figure(scenes: Mapping[str, _Scene], colours: Mapping[str, str], *, ct: bool) -> Figure:
    figure = new_figure(3 * INCHES, len(scenes) * (INCHES + 0.3) + 0.7)
    rows: Any = figure.subfigures(len(scenes), 1, squeeze=False)[:, 0]
    for row, (rank, scene) in zip(rows, scenes.items(), strict=True):
        dice = scene.case.metrics[scene.focus].overlap.dice
        lowest = f"; lowest: {scene.focus} {dice:.3f}" if len(scene.case.metrics) > 1 else ""
        row.suptitle(f"{rank} case: {scene.case.case_id}, Dice {scene.case.dice:.3f}{lowest}", fontsize=11)
        window = None if scene.image is None else window_of(scene.image, ct=ct)
        for axis, axes in enumerate(row.subplots(1, 3)):
            draw_plane(
                axes,
                scene.image,
                scene.masks,
                axis=axis,
                index=scene.planes()[axis],
                spacing=scene.spacing,
                window=window,
                colours=colours,
            )
            axes.set_title(PLANES[axis][0], fontsize=9)
    return figure
