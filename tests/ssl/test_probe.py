"""The frozen probe: the classifier against closed forms, the Dice against encoders that see everything or nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support.toy_dataset import make_preprocessed
from support.toy_pretraining import IMAGES
from torch import nn

from swinssl.core.errors import UserError
from swinssl.ssl.method import Images
from swinssl.ssl.probe import LinearClassifier, Probe, tokens_of_maps

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_preprocessed(tmp_path_factory.mktemp("work"), cases=5)


class Sees(nn.Module):
    """An encoder whose finest map is a function of the image's first voxel under each token; the others are zero."""

    def __init__(self, function):
        super().__init__()
        self.function, self.nothing = function, nn.Parameter(torch.zeros(1))

    def forward(self, image):
        finest = self.function(image[:, :, ::2, ::2, ::2])
        coarser = [finest[:, :1, :: 2**i, :: 2**i, :: 2**i] * 0 for i in range(1, 5)]
        return [finest, *coarser]


class TestClassifier:
    @pytest.mark.parametrize("rare", [0.5, 0.1, 0.01])
    def test_its_border_is_that_of_the_best_dice_although_classes_were_drawn_alike(self, rare):
        # Two normal classes of deviation 1 at 0 and 2, said apart at a border: shares of each that lie above it.
        def dice(border):
            above = [0.5 * math.erfc((border - mean) / math.sqrt(2)) for mean in (0.0, 2.0)]
            right, said = rare * above[1], rare * above[1] + (1 - rare) * above[0]
            left = (1 - rare) * (1 - above[0])
            return right / (said + rare) + left / ((1 - said) + (1 - rare))

        best = max((i / 100 for i in range(400)), key=dice)
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(40_000, 1, generator=generator)
        classes = torch.arange(40_000) % 2
        found = LinearClassifier.fit(x + 2.0 * classes[:, None], classes, torch.tensor([1 - rare, rare]))
        slope, offset = (found.weight[1] - found.weight[0]).item(), (found.bias[1] - found.bias[0]).item()
        assert -offset / slope == pytest.approx(best, abs=0.15)

    def test_maps_and_tokens_are_the_same_features(self):
        generator = torch.Generator().manual_seed(0)
        maps = [torch.randn(1, c, *(8 // 2**i,) * 3, generator=generator) for i, c in enumerate((2, 3, 4))]
        classifier = LinearClassifier(torch.randn(5, 9, generator=generator), torch.randn(5, generator=generator))
        where = torch.randint(8, (50, 3), generator=generator)
        plain = tokens_of_maps(maps, where) @ classifier.weight.T + classifier.bias
        logits = classifier.of_maps(maps)[0][(slice(None), *where.unbind(1))].T
        torch.testing.assert_close(logits, plain, rtol=1e-5, atol=1e-5)
        first = where[0]
        expected = torch.cat([one[0][(slice(None), *(first // 2**i))] for i, one in enumerate(maps)])
        assert torch.equal(tokens_of_maps(maps, where)[0], expected)


class TestProbe:
    def test_an_encoder_that_sees_the_structures_has_dice_1_and_a_blind_one_has_none(self, folder):
        probe = Probe.open(folder, IMAGES, cases=2)
        by_intensity = {}
        for case in (*probe.fitted, *probe.measured):
            image, label = case.image()[0, ::2, ::2, ::2], case.label()[::2, ::2, ::2]
            by_intensity |= {round(float(v), 3): int(c) for v, c in zip(image.ravel(), label.ravel(), strict=True)}
        assert len(probe.measured) == 2 and not {c.folder for c in probe.fitted} & {c.folder for c in probe.measured}

        def truth(image):
            # What the label says of each intensity: the toy's images are their labels plus noise that is looked up.
            codes = np.vectorize(lambda v: by_intensity.get(round(float(v), 3), 0))(image.numpy())
            return torch.nn.functional.one_hot(torch.from_numpy(codes[:, 0]), 4).movedim(-1, 1).float()

        assert probe.measure(Sees(truth))["score"] > 0.9
        blind = probe.measure(Sees(lambda image: torch.zeros(1, 4, *image.shape[2:])))
        assert blind == {"score": 0.0, "dice_shell": 0.0, "dice_core": 0.0}

    @pytest.mark.parametrize("patch", [(32, 32, 32), (32, 64, 32)], ids=str)
    def test_windows_cover_a_volume_once_whatever_its_shape(self, folder, patch):
        probe = Probe.open(folder, Images(patch, IMAGES.spacing, 1), cases=2)
        for case in probe.measured:
            seen = np.zeros([math.ceil(n / 2) for n in case.shape])
            image = np.zeros_like(seen)
            for part, maps in probe._windows(Sees(lambda image: image), case):
                seen[part] += 1
                z, y, x = seen[part].shape
                image[part] = maps[0][0, 0, :z, :y, :x].numpy()
            assert (seen == 1).all()
            assert np.array_equal(image, case.image()[0, ::2, ::2, ::2])

    def test_the_same_cases_and_the_same_answer_every_time(self, folder):
        first, second = (
            Probe.open(folder, IMAGES, cases=2).measure(Sees(lambda image: image.repeat(1, 2, 1, 1, 1)))
            for _ in range(2)
        )
        assert first == second

    def test_refuses_another_grid_and_too_few_labels(self, folder, tmp_path):
        with pytest.raises(
            UserError, match=r"spacing .*Run swinssl_plan_and_preprocess for it with the same --spacing"
        ):
            Probe.open(folder, Images(IMAGES.patch_size, (2.0, 1.0, 1.0), 1), cases=2)
        one = make_preprocessed(tmp_path, cases=1)
        with pytest.raises(UserError, match="1 cases are annotated in full, and 2 are needed"):
            Probe.open(one, IMAGES, cases=2)
