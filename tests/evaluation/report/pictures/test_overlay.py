"""The picture: what it shows of a case, which way round, and that it is drawn without an image too."""

from __future__ import annotations

import logging

import matplotlib.image
import numpy as np
import pytest
from support.made_results import GRID, evaluation, metrics, organ_map, write_description, write_maps

from swinssl.evaluation.evaluate import evaluate
from swinssl.evaluation.reference_labels import ReferenceLabels
from swinssl.evaluation.report.pictures import overlay as module
from swinssl.evaluation.report.pictures.overlay import draw_overlays
from swinssl.imageio.volume import AxisMap, Geometry
from swinssl.imageio.writer import write_volume
from swinssl.metrics.structures import Structure


@pytest.fixture
def made(tmp_path):
    maps = {"a": organ_map(), "b": organ_map(), "c": organ_map()}
    labels = ReferenceLabels.read(write_description(tmp_path / "raw"))
    references = write_maps(tmp_path / "raw" / "labelsTr", maps)
    predictions = write_maps(tmp_path / "p", {"a": organ_map(4), "b": organ_map(2), "c": organ_map()})
    return evaluate(predictions, references, labels=labels, workers=0)


def write_image(path, geometry=GRID):
    write_volume(path, np.random.default_rng(0).normal(0, 100, GRID.shape).astype(np.float32), geometry)
    return path


@pytest.mark.parametrize("ct", [True, False])
def test_a_picture_is_drawn(made, tmp_path, ct):
    images = {"a": write_image(tmp_path / "a.nii.gz")}
    assert draw_overlays(made, tmp_path / "overlays.png", images=images, ct=ct)
    picture = matplotlib.image.imread(tmp_path / "overlays.png")
    assert picture.shape[0] > 600 and picture.shape[1] > 900
    # Both colours of the structures are in it.
    for colour in module.COLOURS[:2]:
        wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        assert (np.abs(picture[..., :3] - wanted).max(axis=-1) < 0.02).sum() > 100


def test_an_image_on_another_grid_is_left_out_and_said(made, tmp_path, caplog):
    elsewhere = Geometry.from_parts(GRID.shape, spacing=GRID.spacing)
    with caplog.at_level(logging.WARNING):
        draw_overlays(made, tmp_path / "o.png", images={"a": write_image(tmp_path / "a.nii.gz", elsewhere)}, ct=False)
    assert "from the labels at the worst corner" in caplog.text and (tmp_path / "o.png").is_file()


def test_without_a_dice_there_is_no_picture(tmp_path):
    empty = np.zeros(GRID.shape, np.uint8)
    labels = ReferenceLabels.read(write_description(tmp_path))
    folders = [write_maps(tmp_path / name, {"a": empty}) for name in ("p", "r")]
    found = evaluate(*folders, labels=labels, workers=0)
    assert not draw_overlays(found, tmp_path / "o.png", images={}, ct=False) and not (tmp_path / "o.png").exists()


def scene(case, structures, image=None):
    return module._scene(case, structures, image)


def test_planes_go_where_the_structure_differs_most(made):
    drawn = scene(made.cases[1], made.structures)
    _, _, x = drawn.planes()
    reference, prediction = drawn.masks[drawn.focus]
    differing = (reference ^ prediction).sum(axis=(0, 1))
    both = reference.any(axis=(0, 1)) & prediction.any(axis=(0, 1))
    assert both[x] and differing[x] == differing[both].max()


def test_what_is_drawn_does_not_depend_on_the_storage_order(made, tmp_path):
    """A file stored with other axes is shown with the patient's right on the left all the same."""
    axes = AxisMap((1, 2, 0), (True, False, True))
    grid = GRID.mapped(axes)
    folders = [
        write_maps(tmp_path / name, {"a": axes.apply(organ_map(shift))}, geometry=grid)
        for name, shift in (("turned_p", 4), ("turned_r", 0))
    ]
    labels = ReferenceLabels(
        tmp_path / "raw" / "dataset.json", ReferenceLabels.read(tmp_path / "raw/dataset.json").labels
    )
    turned = scene(evaluate(*folders, labels=labels, workers=0).cases[0], made.structures)
    straight = scene(made.cases[0], made.structures)
    for name, masks in straight.masks.items():
        assert np.array_equal(turned.masks[name], masks)


def test_of_many_structures_the_worst_are_drawn_and_the_worst_of_each_case():
    structures = tuple(Structure.of_value(value) for value in range(1, 13))
    bad = {s.name: metrics(s.values[0], 10, 10) for s in structures}
    good = {s.name: metrics(50, s.values[0], 0) for s in structures}
    found = evaluation(bad, good, structures=structures)
    drawn = [s.name for s in module._to_draw(structures, found.cases)]
    assert drawn == [*map(str, range(1, len(module.COLOURS))), "12"]
    assert found.cases[1].worst_structure == "12"
