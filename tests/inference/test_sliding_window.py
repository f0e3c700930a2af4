"""Sliding-window logits against a straightforward computation that keeps every sum, written here in float64."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.made_models import smooth_noise

from swinssl.core.errors import UserError
from swinssl.inference.sliding_window import SlidingWindow, window_starts

CPU = torch.device("cpu")
PATCH = (8, 12, 16)


class PlaceAware(torch.nn.Module):
    """Logits that depend on the neighbourhood and on the place in the window, so that every weight matters."""

    def __init__(self, channels=1, structures=3, patch=PATCH, seed=0):
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.kernel = torch.randn(structures, channels, 3, 3, 3, generator=draw)
        self.bias = torch.randn(structures, *patch, generator=draw)

    def forward(self, image):
        return torch.nn.functional.conv3d(image, self.kernel, padding=1) + self.bias


def naive_logits(image, networks, patch, overlap, mirror_axes=()):
    """The definition: pad, take every window, weight, add, divide."""
    volume = image.shape[1:]
    missing = [max(0, p - n) for n, p in zip(volume, patch, strict=True)]
    padded = np.pad(image, [(0, 0), *((m // 2, m - m // 2) for m in missing)])
    distance = [np.arange(p) - (p - 1) / 2 for p in patch]
    z, y, x = (np.exp(-0.5 * (d / (p / 8)) ** 2) for d, p in zip(distance, patch, strict=True))
    weight = z[:, None, None] * y[None, :, None] * x[None, None, :]
    total, weights = 0.0, np.zeros(padded.shape[1:])
    starts = []
    for n, p in zip(padded.shape[1:], patch, strict=True):
        number = max(1, math.ceil((n - p) / (p * (1 - overlap))) + 1)
        starts.append([0] if number == 1 else [round(i * (n - p) / (number - 1)) for i in range(number)])
    for corner in itertools.product(*starts):
        here = tuple(slice(s, s + p) for s, p in zip(corner, patch, strict=True))
        window = torch.from_numpy(padded[(slice(None), *here)])[None]
        outputs = []
        for network in networks:
            for flips in itertools.chain.from_iterable(
                itertools.combinations(mirror_axes, n) for n in range(len(mirror_axes) + 1)
            ):
                axes = [axis + 2 for axis in flips]
                outputs.append(network(window.flip(axes)).flip(axes)[0].double().numpy())
        if isinstance(total, float):
            total = np.zeros((len(outputs[0]), *padded.shape[1:]))
        total[(slice(None), *here)] += np.mean(outputs, axis=0) * weight
        weights[here] += weight
    inside = tuple(slice(m // 2, m // 2 + n) for n, m in zip(volume, missing, strict=True))
    return (total / weights)[(slice(None), *inside)]


SHAPES = {
    "the patch": PATCH,
    "larger, z longest": (37, 20, 21),
    "larger, y longest": (11, 50, 18),
    "larger, x longest": (9, 14, 61),
    "two slices": (2, 40, 33),
    "one slice": (1, 12, 16),
    "smaller everywhere": (5, 7, 9),
    "smaller along one": (30, 5, 40),
}


class TestLogits:
    @pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
    @pytest.mark.parametrize("overlap", [0.0, 0.5, 0.75])
    def test_equal_the_definition(self, shape, overlap):
        image, network = smooth_noise((1, *shape)), PlaceAware()
        found = SlidingWindow([network], PATCH, CPU, overlap=overlap).logits(image).numpy()
        np.testing.assert_allclose(found, naive_logits(image, [network], PATCH, overlap), atol=2e-5)

    @pytest.mark.parametrize("mirror_axes", [(), (2,), (0, 1), (0, 1, 2)])
    def test_are_the_mean_over_networks_and_mirror_images(self, mirror_axes):
        image, networks = smooth_noise((2, 10, 30, 20)), [PlaceAware(channels=2, seed=seed) for seed in range(3)]
        found = SlidingWindow(networks, PATCH, CPU, mirror_axes=mirror_axes).logits(image).numpy()
        np.testing.assert_allclose(found, naive_logits(image, networks, PATCH, 0.5, mirror_axes), atol=2e-5)

    @pytest.mark.parametrize("batch_size", [2, 5, 100])
    def test_do_not_depend_on_how_many_windows_are_computed_at_once(self, batch_size):
        image, network = smooth_noise((1, 20, 30, 40)), PlaceAware()
        one = SlidingWindow([network], PATCH, CPU).logits(image)
        several = SlidingWindow([network], PATCH, CPU, batch_size=batch_size).logits(image)
        torch.testing.assert_close(several, one, atol=1e-5, rtol=0)

    def test_of_a_constant_network_are_that_constant(self):
        """The weights cancel, in the corners too, where a window weighs 4e-11."""

        class Constant(torch.nn.Module):
            def forward(self, image):
                return torch.full((len(image), 2, *image.shape[2:]), 7.0)

        logits = SlidingWindow([Constant()], PATCH, CPU).logits(smooth_noise((1, 23, 29, 31)))
        torch.testing.assert_close(logits, torch.full_like(logits, 7.0))

    def test_carry_no_gradient_and_leave_the_callers_mode_alone(self):
        network = torch.nn.Conv3d(1, 2, 3, padding=1)
        slabs = SlidingWindow([network], PATCH, CPU).slabs(smooth_noise((1, 20, 20, 20)))
        assert not next(slabs).logits.requires_grad
        assert torch.is_grad_enabled()


class TestSlabs:
    @pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
    def test_cover_the_volume_once_in_order(self, shape):
        slabs = [
            (s.axis, s.start, s.logits.shape)
            for s in SlidingWindow([PlaceAware()], PATCH, CPU).slabs(smooth_noise((1, *shape)))
        ]
        axis = slabs[0][0]
        across = [n for i, n in enumerate(shape) if i != axis]
        stop = 0
        for own, start, (_, planes, *size) in slabs:
            assert (own, start, size) == (axis, stop, across)
            stop += planes
        assert stop == shape[axis]

    def test_go_along_the_axis_of_which_a_patch_is_the_smallest_share(self):
        window = SlidingWindow([PlaceAware()], PATCH, CPU)
        for axis, shape in enumerate([(80, 24, 32), (16, 80, 32), (8, 24, 99)]):
            assert next(window.slabs(smooth_noise((1, *shape)))).axis == axis

    def test_never_hold_more_than_a_patch_of_that_axis(self):
        for slab in SlidingWindow([PlaceAware()], PATCH, CPU).slabs(smooth_noise((1, 60, 20, 20))):
            assert slab.logits.untyped_storage().nbytes() == 4 * 3 * PATCH[0] * 20 * 20

    @pytest.mark.parametrize("strips", [2, 3, 1000])
    @pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
    def test_in_strips_they_are_the_same_to_the_bit(self, shape, strips):
        window = SlidingWindow([PlaceAware()], PATCH, CPU, overlap=0.3, mirror_axes=(1,))
        image = smooth_noise((1, *shape))
        whole, found = window.logits(image), torch.full((3, *shape), torch.nan)
        for slab in window.slabs(image, strips=strips):
            slab.place_in(found).copy_(slab.logits)
        assert torch.equal(found, whole)

    def test_in_strips_neighbouring_voxels_are_together_in_one_of_them(self):
        window = SlidingWindow([PlaceAware()], PATCH, CPU)
        slabs = list(window.slabs(smooth_noise((1, 30, 9, 100)), strips=3))
        assert {slab.axis for slab in slabs} == {2}
        assert sorted({(slab.offset[0], slab.logits.shape[2]) for slab in slabs}) == [(0, 10), (9, 11), (19, 11)]

    def test_strips_divide_the_memory_of_the_sums(self):
        window = SlidingWindow([PlaceAware()], PATCH, CPU)
        image = smooth_noise((1, 60, 20, 40))
        assert window.sum_bytes((60, 20, 40), 3) == 4 * 3 * PATCH[0] * 20 * 40
        for slab in window.slabs(image, strips=4):
            assert slab.logits.untyped_storage().nbytes() <= 4 * 3 * PATCH[0] * 20 * 11

    def test_report_every_window_of_every_strip(self):
        seen = []
        window = SlidingWindow([PlaceAware()], PATCH, CPU, batch_size=3)
        for _ in window.slabs(smooth_noise((1, 20, 30, 40)), strips=3, on_windows=seen.append):
            pass
        assert sum(seen) == window.count((20, 30, 40), strips=3) > window.count((20, 30, 40))

    def test_report_every_window(self):
        seen = []
        window = SlidingWindow([PlaceAware()], PATCH, CPU, batch_size=3)
        for _ in window.slabs(smooth_noise((1, 20, 30, 40)), on_windows=seen.append):
            pass
        assert sum(seen) == window.count((20, 30, 40)) == 4 * 4 * 4


class TestMemory:
    """A GPU that runs out of memory, played by a network."""

    def test_running_out_halves_the_batch_and_loses_nothing(self):
        batches = []

        class Small(PlaceAware):
            def forward(self, image):
                batches.append(len(image))
                if len(image) > 2:
                    raise torch.OutOfMemoryError("CUDA out of memory")
                return super().forward(image)

        image = smooth_noise((1, 20, 30, 40))
        found = SlidingWindow([Small()], PATCH, CPU, batch_size=8).logits(image)
        torch.testing.assert_close(found, SlidingWindow([PlaceAware()], PATCH, CPU).logits(image), atol=1e-5, rtol=0)
        assert batches[:3] == [8, 4, 2] and max(batches[3:]) == 2

    def test_no_room_for_a_single_window_is_said_with_the_remedy(self):
        class Full(torch.nn.Module):
            def forward(self, image):
                raise torch.OutOfMemoryError("CUDA out of memory")

        with pytest.raises(UserError, match="--device cpu"):
            SlidingWindow([Full()], PATCH, CPU, batch_size=2).logits(smooth_noise((1, 20, 20, 20)))

    def test_other_errors_are_bugs_and_stay_what_they_are(self):
        class Broken(torch.nn.Module):
            def forward(self, image):
                raise RuntimeError("shapes do not fit")

        with pytest.raises(RuntimeError, match="shapes do not fit"):
            SlidingWindow([Broken()], PATCH, CPU, batch_size=4).logits(smooth_noise((1, 20, 20, 20)))


class TestWindowStarts:
    @settings(max_examples=200, deadline=None)
    @given(size=st.integers(1, 400), patch=st.integers(16, 128), overlap=st.floats(0, 0.9))
    def test_cover_the_axis_with_at_least_the_overlap(self, size, patch, overlap):
        starts = window_starts(size, patch, overlap)
        assert starts[0] == 0 and starts[-1] == max(0, size - patch)
        steps = np.diff(starts)
        assert (steps > 0).all() and (steps <= math.ceil(patch * (1 - overlap))).all()
        assert not len(steps) or steps.max() - steps.min() <= 1  # evenly spread

    @pytest.mark.parametrize(
        ("size", "patch", "expected"),
        [(128, 128, [0]), (129, 128, [0, 1]), (192, 96, [0, 48, 96]), (100, 40, [0, 20, 40, 60]), (50, 40, [0, 10])],
    )
    def test_are_nnunets(self, size, patch, expected):
        """ceil((size - patch) / (patch / 2)) + 1 windows, evenly spread and rounded."""
        assert window_starts(size, patch, 0.5) == expected
