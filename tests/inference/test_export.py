"""Export against dense trilinear interpolation of all logits, written here corner by corner in float32."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage
from support.made_models import smooth_noise

from swinssl.dataset.labels import LabelSet
from swinssl.imageio.volume import AxisMap, Geometry
from swinssl.inference.export import export
from swinssl.inference.sliding_window import Slab
from swinssl.inference.source_grid import SourceGrid

ORGANS = LabelSet(names=("a", "b", "c", "d"), values=((2,), (5,), (7,), (300,)))
REGIONS = LabelSet(
    names=("whole", "core", "enhancing"), values=((1, 2, 3), (2, 3), (3,)), regions=True, region_order=(1, 2, 3)
)


def logits_of(labels, shape, seed=0):
    channels = [smooth_noise(shape, seed=seed + i, sigma=1.5) for i in range(labels.num_outputs)]
    return torch.from_numpy(np.stack(channels))


def slabs_of(logits, axis=0, sizes=(3, 1, 4, 100)):
    """Logits (K, Z, Y, X) cut into slabs of some planes each."""
    moved, start = logits.movedim(1 + axis, 1), 0
    for planes in itertools.cycle(sizes):
        if start >= moved.shape[1]:
            return
        yield Slab(axis, start, moved[:, start : start + planes].contiguous())
        start += planes


def whole(shape, new_shape):
    """The way back of a file that was not cropped and whose axes are canonical."""
    return SourceGrid(Geometry.from_parts(new_shape, spacing=(1, 1, 1)), tuple((0, n) for n in new_shape), shape)


def trilinear(logits, new_shape):
    """(K, *new_shape) float32: voxel centres aligned, the edge continued."""
    lower, upper, weight = [], [], []
    for n, m in zip(logits.shape[1:], new_shape, strict=True):
        at = np.clip((np.arange(m) + 0.5) * (n / m) - 0.5, 0, n - 1)
        lower.append(np.floor(at).astype(int))
        upper.append(np.ceil(at).astype(int))
        weight.append((at - np.floor(at)).astype(np.float32))
    values, out = logits.numpy(), np.zeros((len(logits), *new_shape), np.float32)
    for a, b, c in itertools.product((0, 1), repeat=3):
        z, y, x = (upper[i] if side else lower[i] for i, side in enumerate((a, b, c)))
        wz, wy, wx = (weight[i] if side else 1 - weight[i] for i, side in enumerate((a, b, c)))
        share = (wz[:, None, None] * wy[None, :, None]) * wx[None, None, :]
        out += values[np.ix_(range(len(values)), z, y, x)] * share
    return out


GRIDS = {
    "finer": ((12, 16, 14), (19, 25, 23)),
    "coarser": ((24, 26, 22), (11, 17, 9)),
    "finer slices only": ((6, 20, 20), (31, 20, 20)),
    "mixed": ((30, 12, 17), (8, 31, 17)),
    "the same": ((9, 10, 11), (9, 10, 11)),
    "one slice to many": ((1, 15, 15), (6, 20, 20)),
    "many slices to one": ((9, 15, 15), (1, 20, 20)),
    "two slices": ((2, 40, 40), (2, 33, 55)),
}


class TestLabelMap:
    @pytest.mark.parametrize("labels", [ORGANS, REGIONS], ids=["exclusive", "regions"])
    @pytest.mark.parametrize("axis", [0, 1, 2])
    @pytest.mark.parametrize(("shape", "new_shape"), GRIDS.values(), ids=GRIDS)
    def test_is_that_of_the_dense_interpolation_in_every_voxel(self, shape, new_shape, axis, labels):
        logits = logits_of(labels, shape)
        found = export(slabs_of(logits, axis), whole(shape, new_shape), labels).label_map
        dense = trilinear(logits, new_shape)
        expected = labels.output_to_raw(dense > 0 if labels.regions else dense.argmax(0))
        assert np.count_nonzero(found != expected) == 0
        assert len(np.unique(expected)) > 2

    def test_agrees_with_torchs_interpolation_up_to_rounding(self):
        shape, new_shape = (20, 24, 22), (33, 41, 37)
        logits = logits_of(ORGANS, shape)
        found = export(slabs_of(logits), whole(shape, new_shape), ORGANS).label_map
        dense = torch.nn.functional.interpolate(logits[None], new_shape, mode="trilinear")[0]
        first, second = dense.topk(2, dim=0).values
        clear = (first - second).numpy() > 1e-5
        assert clear.mean() > 0.999
        np.testing.assert_array_equal(found[clear], ORGANS.output_to_raw(dense.argmax(0).numpy())[clear])

    def test_has_no_repeated_slices_where_the_file_has_thinner_ones(self):
        """A ramp along z changes its structure within a source slice, not at its border."""
        ramp = torch.linspace(-1, 1, 4)[:, None, None].expand(4, 5, 5)
        logits = torch.stack([torch.zeros_like(ramp), ramp - 0.1])
        labels = LabelSet(names=("a",), values=((1,),))
        found = export(slabs_of(logits), whole((4, 5, 5), (40, 5, 5)), labels).label_map[:, 2, 2]
        # The ramp passes 0.1 at z = 1.65 of the coarse grid, whose voxel centres lie at 10 z + 4.5 of the fine one.
        np.testing.assert_array_equal(found, np.arange(40) > 10 * 1.65 + 4.5)

    def test_takes_the_first_of_equal_logits(self):
        logits = torch.zeros(5, 4, 4, 4)
        assert (export(slabs_of(logits), whole((4, 4, 4), (7, 7, 7)), ORGANS).label_map == 0).all()

    def test_of_more_than_256_structures(self):
        labels = LabelSet(names=tuple(f"s{i}" for i in range(300)), values=tuple((i + 1,) for i in range(300)))
        logits = torch.zeros(301, 3, 4, 5)
        logits[290] = 1
        assert (export(slabs_of(logits), whole((3, 4, 5), (4, 4, 5)), labels).label_map == 290).all()

    def test_of_more_than_eight_regions(self):
        order = tuple(range(1, 13))
        names, values = tuple(f"r{i}" for i in order), tuple((i,) for i in order)
        labels = LabelSet(names=names, values=values, regions=True, region_order=order)
        logits = -torch.ones(12, 3, 4, 5)
        logits[3], logits[10, :, :2] = 1, 1
        found = export(slabs_of(logits), whole((3, 4, 5), (3, 4, 5)), labels).label_map
        assert (found[:, :2] == 11).all() and (found[:, 2:] == 4).all()  # the later region over the earlier


class TestSourceGrid:
    @pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
    @pytest.mark.parametrize("flips", list(itertools.product((False, True), repeat=3)))
    def test_puts_the_crop_where_it_was_in_the_file(self, order, flips):
        axes = AxisMap(order, flips)
        canonical = Geometry.from_parts((7, 9, 11), spacing=(3, 2, 1))
        logits = logits_of(ORGANS, (5, 4, 6))
        crop = ((1, 6), (3, 7), (4, 10))
        expected = np.zeros((7, 9, 11), np.uint16)
        expected[1:6, 3:7, 4:10] = ORGANS.output_to_raw(logits.argmax(0).numpy())
        # The grid of a file whose voxels, brought to canonical axes by `axes`, are those of `canonical`.
        back = AxisMap(tuple(order.index(i) for i in range(3)), tuple(flips[order.index(i)] for i in range(3)))
        source = canonical.mapped(back)
        source_grid = SourceGrid(source, crop, (5, 4, 6))
        found = export(slabs_of(logits, axis=1), source_grid, ORGANS).label_map
        assert found.shape == source.shape
        np.testing.assert_array_equal(axes.apply(found), expected)


class TestProbabilities:
    @pytest.mark.parametrize("labels", [ORGANS, REGIONS], ids=["exclusive", "regions"])
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_are_those_of_the_interpolated_logits(self, labels, axis):
        shape, new_shape = (9, 12, 10), (14, 17, 8)
        logits = logits_of(labels, shape)
        found = export(slabs_of(logits, axis), whole(shape, new_shape), labels, probabilities=True)
        dense = torch.from_numpy(trilinear(logits, new_shape))
        expected = dense.sigmoid() if labels.regions else dense.softmax(0)
        np.testing.assert_allclose(found.probabilities, expected.numpy(), atol=1e-6)
        assert found.probabilities.dtype == np.float32

    def test_outside_the_crop_say_background_for_certain(self):
        source_grid = SourceGrid(Geometry.from_parts((6, 6, 6), spacing=(1, 1, 1)), ((1, 4), (0, 6), (2, 5)), (3, 6, 3))
        outside = np.ones((6, 6, 6), bool)
        outside[1:4, :, 2:5] = False
        exclusive = export(
            slabs_of(logits_of(ORGANS, (3, 6, 3))), source_grid, ORGANS, probabilities=True
        ).probabilities
        regions = export(
            slabs_of(logits_of(REGIONS, (3, 6, 3))), source_grid, REGIONS, probabilities=True
        ).probabilities
        assert (exclusive[0][outside] == 1).all() and (exclusive[1:, outside] == 0).all()
        assert (regions[:, outside] == 0).all()
        assert (exclusive[0][~outside] < 1).all()

    def test_interpolation_undoes_the_alignment_of_preprocessing(self):
        """A ramp brought to the plan's grid as images are, and back as logits are, is the ramp again inside."""
        ramp = np.linspace(0, 1, 30)[None, None, :].repeat(8, 0).repeat(8, 1)
        there = ndimage.zoom(ramp, (1, 1, 0.5), order=1, mode="nearest", grid_mode=True).astype(np.float32)
        labels = LabelSet(names=("a",), values=((1,),))
        logits = torch.stack([torch.zeros(there.shape), torch.from_numpy(there)])
        back = export(slabs_of(logits), whole(there.shape, ramp.shape), labels, probabilities=True).probabilities[1]
        logit = np.log(back / (1 - back))
        np.testing.assert_allclose(logit[..., 1:-1], ramp[..., 1:-1], atol=1e-5)
