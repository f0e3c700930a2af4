"""Augmentation: what is drawn, that it can be replayed, each change against its formula or another implementation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage, stats

from swinssl.core.rng import KeyedRng
from swinssl.training.augmentation.intensity import Blur, Brightness, Contrast, Gamma, LowResolution, Noise
from swinssl.training.augmentation.pipeline import (
    AUGMENTATIONS,
    Augmentation,
    AugmentationEntry,
    apply,
    draw_augmentation,
)
from swinssl.training.augmentation.spatial import Cells, SpatialChange, Vote, rotation

PATCH = (12, 16, 14)
RECIPE = {"patch_size": (32, 32, 32), "channels": 2, "mirror_axes": (0, 1, 2), "spacing": (1.0, 1.0, 1.0)}


def image_and_label(size, *, channels=2, codes=4, seed=0):
    generator = np.random.default_rng(seed)
    image = torch.from_numpy(generator.random((channels, *size), dtype=np.float32))
    smooth = ndimage.gaussian_filter(generator.standard_normal(size), 1.5)
    label = np.digitize(smooth, np.quantile(smooth, np.linspace(0, 1, codes + 1)[1:-1])).astype(np.uint8)
    label[label == codes - 1] = 255  # the reserved code takes part like any other
    return image, torch.from_numpy(label)


def spatial(matrix, patch_size=PATCH):
    return Augmentation(patch_size, SpatialChange(tuple(map(tuple, np.asarray(matrix, float).tolist())), patch_size))


class TestDrawing:
    def test_the_same_draws_give_the_same_augmentation_and_others_another(self):
        drawn = [draw_augmentation(KeyedRng(1, step, 0), **RECIPE) for step in range(20)]
        assert drawn == [draw_augmentation(KeyedRng(1, step, 0), **RECIPE) for step in range(20)]
        assert len(set(drawn)) > 15

    def test_frequencies_are_those_of_the_recipe(self):
        n = 4000
        drawn = [draw_augmentation(KeyedRng(0, step, 0), **RECIPE) for step in range(n)]
        changes = [change for a in drawn for change in a.intensity]
        counts = {
            **{kind: sum(isinstance(c, kind) for c in changes) for kind in {type(c) for c in changes}},
            "inverted": sum(isinstance(c, Gamma) and c.inverted for c in changes),
            "spatial": sum(a.spatial is not None for a in drawn),
            "mirror z": sum(0 in a.mirrored for a in drawn),
        }
        expected = {
            Noise: 0.1,
            Blur: 0.2,
            Brightness: 0.15,
            Contrast: 0.15,
            LowResolution: 0.25,
            Gamma: 0.4,
            "inverted": 0.1,
            "spatial": 1 - 0.8**2,
            "mirror z": 0.5,
        }
        for what, p in expected.items():
            # Four standard deviations; a count of gamma is a sum of two independent ones, which is narrower still.
            assert counts[what] / n == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / n)), what

    def test_parameters_keep_to_the_ranges_of_the_recipe_on_both_sides_of_one(self):
        drawn = [draw_augmentation(KeyedRng(0, step, 0), **RECIPE) for step in range(2000)]
        changes = [change for a in drawn for change in a.intensity]
        gammas = [g for c in changes if isinstance(c, Gamma) for g in c.gammas]
        assert 0.7 <= min(gammas) < 0.75
        assert 1.45 < max(gammas) <= 1.5
        assert np.mean(np.array(gammas) < 1) == pytest.approx(0.5, abs=0.05)
        assert max(c.sigma for c in changes if isinstance(c, Noise)) <= 0.1
        blurred = [s for c in changes if isinstance(c, Blur) for s in c.sigmas]
        assert np.mean([s is None for s in blurred]) == pytest.approx(0.5, abs=0.08)
        zooms = [z for c in changes if isinstance(c, LowResolution) for z in c.zooms if z is not None]
        assert 0.5 <= min(zooms) < max(zooms) <= 1
        scales = [abs(np.linalg.det(a.spatial.matrix)) ** (1 / 3) for a in drawn if a.spatial]
        assert 0.7 <= min(scales) < 0.75
        assert 1.35 < max(scales) <= 1.4

    def test_parameters_are_distributed_as_in_the_recipe(self):
        """Each parameter against its distribution in nnU-Net v2, one in a thousand (Kolmogorov-Smirnov)."""
        drawn = [draw_augmentation(KeyedRng(0, step, 0), **RECIPE) for step in range(6000)]
        changes = [change for a in drawn for change in a.intensity]

        def two_sided(low, high):
            return lambda x: np.where(x < 1, 0.5 * (x - low) / (1 - low), 0.5 + 0.5 * (x - 1) / (high - 1))

        def uniform(low, high):
            return stats.uniform(low, high - low).cdf

        matrices = [np.array(a.spatial.matrix) for a in drawn if a.spatial]
        zooms = np.array([np.linalg.det(m) ** (1 / 3) for m in matrices])
        turns = [m / z for m, z in zip(matrices, zooms, strict=True)]
        turned = [not np.allclose(m, np.eye(3)) for m in turns]
        # Of the rotations about z, y and x, multiplied in this order: the angle about y is that of one entry.
        about_y = np.degrees(np.arcsin([m[0, 2] for m, is_turned in zip(turns, turned, strict=True) if is_turned]))
        samples = {
            "zoom": (zooms[~np.isclose(zooms, 1)], uniform(0.7, 1.4)),
            "rotation": (np.abs(about_y), uniform(0, 30)),
            "noise": ([c.sigma for c in changes if isinstance(c, Noise)], uniform(0, 0.1)),
            "blur": ([x for c in changes if isinstance(c, Blur) for s in c.sigmas for x in s or ()], uniform(0.5, 1)),
            "brightness": ([f for c in changes if isinstance(c, Brightness) for f in c.factors], two_sided(0.75, 1.25)),
            "contrast": ([f for c in changes if isinstance(c, Contrast) for f in c.factors], two_sided(0.75, 1.25)),
            "low resolution": (
                [z for c in changes if isinstance(c, LowResolution) for z in c.zooms if z is not None],
                uniform(0.5, 1),
            ),
            "gamma": ([g for c in changes if isinstance(c, Gamma) for g in c.gammas], two_sided(0.7, 1.5)),
        }
        for what, (values, distribution) in samples.items():
            assert len(values) > 500 and stats.kstest(values, distribution).pvalue > 1e-3, what

    def test_a_new_row_does_not_shift_the_draws_of_the_others(self, monkeypatch):
        def draw_offset(rng, form, *, factors):
            return Brightness(tuple(rng.uniform(*factors, form.channels).tolist()))

        before = [draw_augmentation(KeyedRng(0, step, 0), **RECIPE) for step in range(50)]
        row = AugmentationEntry(1.0, draw_offset, {"factors": (2.0, 3.0)})
        monkeypatch.setattr("swinssl.training.augmentation.pipeline.AUGMENTATIONS", {"new": row, **AUGMENTATIONS})
        for step, old in enumerate(before):
            new = draw_augmentation(KeyedRng(0, step, 0), **RECIPE)
            assert isinstance(new.intensity[0], Brightness) and min(new.intensity[0].factors) >= 2
            assert (new.spatial, new.intensity[1:], new.mirrored) == (old.spatial, old.intensity, old.mirrored)

    def test_each_row_can_be_left_out_without_shifting_the_others(self, monkeypatch):
        before = draw_augmentation(KeyedRng(0, 4, 0), **RECIPE)
        table = {name: AugmentationEntry(1.0, row.draw, row.parameters) for name, row in AUGMENTATIONS.items()}
        monkeypatch.setattr("swinssl.training.augmentation.pipeline.AUGMENTATIONS", table)
        every = draw_augmentation(KeyedRng(0, 4, 0), **RECIPE)
        assert len(every.intensity) == 7 and set(before.intensity) <= set(every.intensity)
        del table["noise"]
        assert draw_augmentation(KeyedRng(0, 4, 0), **RECIPE).intensity == every.intensity[1:]

    def test_only_allowed_axes_are_mirrored(self):
        recipe = {**RECIPE, "mirror_axes": (0, 1)}
        mirrored = {draw_augmentation(KeyedRng(0, step, 0), **recipe).mirrored for step in range(60)}
        assert mirrored == {(), (0,), (1,), (0, 1)}

    def test_a_rotation_turns_millimetres_not_voxels(self):
        spacing = np.array([2.0, 1.5, 1.0])
        for step in range(40):
            drawn = draw_augmentation(KeyedRng(0, step, 0), **{**RECIPE, "spacing": tuple(spacing)}).spatial
            if drawn is not None:
                in_mm = spacing[:, None] * np.array(drawn.matrix) / spacing
                gram = in_mm.T @ in_mm
                np.testing.assert_allclose(gram, np.eye(3) * gram[0, 0], atol=1e-12)

    @pytest.mark.parametrize(
        ("changes", "flat"),
        [
            ({"patch_size": (32, 128, 128)}, 0),
            ({"spacing": (5.0, 1.0, 1.0)}, 0),
            ({"patch_size": (128, 128, 32)}, 2),
            ({"patch_size": (32, 96, 96)}, None),
        ],
    )
    def test_few_or_thick_slices_are_turned_in_their_plane_only(self, changes, flat):
        drawn = [draw_augmentation(KeyedRng(0, step, 0), **{**RECIPE, **changes}) for step in range(200)]
        matrices = np.array([a.spatial.matrix for a in drawn if a.spatial is not None])
        low = [c for a in drawn for c in a.intensity if isinstance(c, LowResolution)]
        assert {c.kept_axis for c in low} == {flat}
        if flat is None:
            assert np.abs(matrices[:, 0, 1]).max() > 0.1
        else:
            unit = np.eye(3)[flat]
            np.testing.assert_allclose(matrices[:, flat], np.tile(unit, (len(matrices), 1)), atol=1e-12)
            np.testing.assert_allclose(matrices[:, :, flat], np.tile(unit, (len(matrices), 1)), atol=1e-12)
            others = [a for a in range(3) if a != flat]
            assert matrices[:, others[0], others[0]].min() < -0.5  # beyond 90 degrees


class TestSpatial:
    def test_nothing_drawn_changes_nothing_and_reads_only_the_patch(self):
        image, label = image_and_label(PATCH)
        plain = Augmentation(PATCH)
        assert plain.read_size == PATCH
        out_image, out_label = apply(plain, image, label)
        assert torch.equal(out_image, image)
        assert torch.equal(out_label, label)

    @pytest.mark.parametrize("patch_size", [(12, 12, 12), (9, 9, 9)])
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_a_quarter_turn_equals_rot90(self, axis, patch_size):
        angles = [0.0, 0.0, 0.0]
        angles[axis] = math.pi / 2
        turned = spatial(rotation(tuple(angles)), patch_size)
        image, label = image_and_label(turned.read_size)
        out_image, out_label = apply(turned, image, label)
        inner = tuple(slice((n - p) // 2, (n - p) // 2 + p) for n, p in zip(turned.read_size, patch_size, strict=True))
        plane = tuple(a for a in range(3) if a != axis)
        # out[i, j] is source[-j, i] about the centre, which is numpy's turn from the second axis to the first.
        expected = np.rot90(label[inner].numpy(), k=-1, axes=plane)
        np.testing.assert_array_equal(out_label.numpy(), expected)
        expected = np.rot90(image[(slice(None), *inner)].numpy(), k=-1, axes=tuple(a + 1 for a in plane))
        np.testing.assert_allclose(out_image.numpy(), expected, atol=1e-5)

    @pytest.mark.parametrize("seed", range(4))
    def test_image_equals_scipys_linear_interpolation_at_the_same_places(self, seed):
        change = spatial(rotation((0.3, -0.5, 0.2 * seed)) * (0.75 + 0.2 * seed))
        image, label = image_and_label(change.read_size, seed=seed)
        out, _ = apply(change, image, label)
        matrix = np.array(change.spatial.matrix)
        centre, middle = (np.array(change.read_size) - 1) / 2, (np.array(PATCH) - 1) / 2
        for channel, result in zip(image.numpy(), out.numpy(), strict=True):
            expected = ndimage.affine_transform(
                channel.astype(float), matrix, offset=centre - matrix @ middle, output_shape=PATCH, order=1
            )
            np.testing.assert_allclose(result, expected, atol=2e-5)

    @pytest.mark.parametrize("seed", range(4))
    def test_label_equals_the_argmax_of_each_labels_own_interpolation(self, seed):
        change = spatial(rotation((0.3, -0.5, 0.2 * seed)) * (0.75 + 0.2 * seed))
        image, label = image_and_label(change.read_size, seed=seed)
        _, out = apply(change, image, label)
        codes = label.unique()
        masks = (label[None] == codes[:, None, None, None]).double()
        # grid_sample in double precision on a grid made here: another route to the same scores.
        matrix = torch.tensor(change.spatial.matrix, dtype=torch.float64)
        axes = [torch.arange(p, dtype=torch.float64) - (p - 1) / 2 for p in PATCH]
        offsets = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1) @ matrix.T
        grid = (offsets / (torch.tensor(label.shape) / 2)).flip(-1)
        scores = F.grid_sample(masks[None], grid[None], align_corners=False)[0]
        expected = codes[scores.argmax(0)]
        differing = out != expected
        top = scores.topk(2, dim=0).values
        assert not (differing & (top[0] - top[1] > 1e-5)).any()  # only where two labels tie to rounding
        assert differing.float().mean() < 1e-3

    def test_equal_votes_go_to_the_lower_code(self):
        label = torch.tensor([[[255, 1], [255, 1]], [[255, 1], [255, 1]]], dtype=torch.uint8)
        for x, code in ((0.5, 1), (0.4, 255)):
            out, vote = label.new_empty(1), Vote(label)
            vote.fill(out, Cells.at(tuple(torch.tensor([value]) for value in (0.5, 0.5, x)), label.shape))
            vote.settle()
            assert out.tolist() == [code]

    def test_what_is_read_covers_every_sample_and_little_more(self):
        for seed in range(40):
            generator = np.random.default_rng(seed)
            matrix = rotation(tuple(generator.uniform(-0.6, 0.6, 3))) * generator.uniform(0.7, 1.4)
            change = spatial(matrix, tuple(generator.integers(5, 20, 3).tolist())).spatial
            places = torch.stack(change.source_places(torch.device("cpu")), -1)
            assert places.min() >= 0
            high = places.reshape(-1, 3).max(0).values
            assert (high.floor() + 1 <= torch.tensor(change.read_size) - 1).all()
            assert (torch.tensor(change.read_size) - 1 - high <= 3).all()
            assert all((n - p) % 2 == 0 for n, p in zip(change.read_size, change.patch_size, strict=True))

    def test_mirroring_turns_image_and_label_together(self):
        image, label = image_and_label(PATCH)
        out_image, out_label = apply(Augmentation(PATCH, mirrored=(0, 2)), image, label)
        np.testing.assert_array_equal(out_image.numpy(), image.numpy()[:, ::-1, :, ::-1])
        np.testing.assert_array_equal(out_label.numpy(), label.numpy()[::-1, :, ::-1])


class TestIntensity:
    @pytest.fixture
    def image(self):
        return image_and_label((20, 24, 22))[0] * torch.tensor([1.0, 0.5]).view(2, 1, 1, 1)

    @pytest.mark.parametrize(
        "change",
        [
            Noise(0.05, KeyedRng(0, 3, 1)),
            Blur(((0.6, 0.9, 1.0), None)),
            Brightness((0.8, 1.2)),
            Contrast((0.8, 1.2)),
            LowResolution((0.6, None)),
            Gamma((0.7, 1.5), inverted=False),
            Gamma((0.7, 1.5), inverted=True),
        ],
        ids=lambda change: type(change).__name__,
    )
    def test_a_change_leaves_its_input_alone_and_can_be_replayed(self, image, change):
        before = image.clone()
        first = change.apply(image)
        assert torch.equal(image, before)
        assert torch.equal(change.apply(image), first)
        assert first.shape == image.shape
        assert first.dtype == torch.float32
        assert not torch.equal(first, image)

    def test_noise_is_scaled_by_each_channels_deviation(self, image):
        added = Noise(0.08, KeyedRng(0, 0, 0)).apply(image) - image
        expected = 0.08 * image.std((1, 2, 3), correction=0)
        np.testing.assert_allclose(added.std((1, 2, 3)), expected, rtol=0.03)

    def test_noise_is_normal_and_its_voxels_do_not_know_of_each_other(self):
        image = torch.from_numpy(np.random.default_rng(0).random((1, 64, 64, 64), dtype=np.float32))
        n = ((Noise(1.0, KeyedRng(3, 1, 4)).apply(image) - image) / image.std(correction=0)).double().numpy().ravel()
        assert stats.kstest(n, "norm").statistic < 1.63 / math.sqrt(n.size)  # one in a hundred
        assert abs(np.mean(n**4) - 3) < 5 * math.sqrt(96 / n.size)
        for step in (1, 2, 3, 4, 64):
            assert abs(np.mean(n[step:] * n[:-step])) < 4 / math.sqrt(n.size)

    def test_blur_equals_scipys_gaussian_filter(self, image):
        out = Blur(((0.6, 0.9, 1.0), None)).apply(image)
        expected = ndimage.gaussian_filter(image[0].double().numpy(), (0.6, 0.9, 1.0), mode="nearest", truncate=4)
        np.testing.assert_allclose(out[0], expected, atol=2e-4)  # where they round the kernel's reach
        assert torch.equal(out[1], image[1])

    def test_contrast_keeps_mean_and_range(self, image):
        out = Contrast((0.75, 1.25)).apply(image)
        np.testing.assert_allclose(out.mean((1, 2, 3)), image.mean((1, 2, 3)), rtol=0.01)
        assert out[0].std() == pytest.approx(0.75 * image[0].std().item(), rel=1e-3)
        assert out.amin() >= image.amin()
        assert (out.amax((1, 2, 3)) <= image.amax((1, 2, 3))).all()

    @pytest.mark.parametrize("inverted", [False, True])
    def test_gamma_keeps_mean_and_deviation_and_follows_its_formula(self, image, inverted):
        out = Gamma((0.7, 1.5), inverted=inverted).apply(image)
        np.testing.assert_allclose(out.mean((1, 2, 3)), image.mean((1, 2, 3)), atol=1e-5)
        np.testing.assert_allclose(out.std((1, 2, 3)), image.std((1, 2, 3)), rtol=1e-4)
        for channel, result, gamma in zip(image.double().numpy(), out.double().numpy(), (0.7, 1.5), strict=True):
            x = -channel if inverted else channel
            powered = ((x - x.min()) / (x.max() - x.min())) ** gamma * (x.max() - x.min()) + x.min()
            retained = (powered - powered.mean()) / powered.std() * x.std() + x.mean()
            np.testing.assert_allclose(result, -retained if inverted else retained, atol=1e-4)

    def test_a_constant_patch_stays_finite(self):
        flat = torch.full((1, 8, 8, 8), 0.3)
        for change in (Gamma((0.7,), False), Gamma((1.4,), True), Contrast((1.2,)), Noise(0.1, KeyedRng(0, 0, 0))):
            np.testing.assert_allclose(change.apply(flat), flat, atol=1e-5)

    def test_low_resolution_samples_down_but_for_the_kept_axis(self):
        ramp = torch.arange(16.0).view(1, 16, 1, 1).expand(1, 16, 16, 16).contiguous()
        assert torch.allclose(LowResolution((0.5,), kept_axis=0).apply(ramp), ramp)
        coarse = LowResolution((0.5,), kept_axis=1).apply(ramp)
        assert len(coarse.unique()) > 8
        assert not torch.allclose(coarse, ramp)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_what_the_cpu_gives():
    for step in range(30):
        drawn = draw_augmentation(KeyedRng(0, step, 0), **RECIPE)
        image, label = image_and_label(drawn.read_size, seed=step)
        expected_image, expected_label = apply(drawn, image, label)
        found_image, found_label = apply(drawn, image.cuda(), label.cuda())
        np.testing.assert_allclose(found_image.cpu(), expected_image, atol=1e-4)
        assert (found_label.cpu() != expected_label).float().mean() < 1e-4
