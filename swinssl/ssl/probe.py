"""The frozen probe: how well a linear classifier finds structures by what the encoder makes of a few labelled cases.

Whether an encoder learns anything that a segmentation can use, and which of its states to keep, no pretext loss tells.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from swinssl.core.errors import UserError
from swinssl.core.geometry import Shape
from swinssl.core.rng import generator
from swinssl.dataset.labels import LabelSet
from swinssl.networks.swin.encoder import SwinEncoder
from swinssl.preprocessing.store import PreprocessedCase, PreprocessedDataset
from swinssl.ssl.method import Images

# Tokens of each code and case that the classifier is fitted to.
TOKENS = 1000
# Maps of the encoder, from 1/2 to 1/32, that it reads.
MAPS = 5
# What a window costs against a sample of a training step, and what fitting costs in steps.
PASSES_OF_A_STEP, FITTING = 3, 5


@dataclass(frozen=True, eq=False)
class Probe:
    """A few labelled cases, half to fit the classifier and half to measure it.

    Args:
        fitted: cases that it is fitted to.
        measured: cases whose Dice is the result.
        labels: their structures.
        images: windows that the encoder sees; side by side they cover a volume.
    """

    fitted: tuple[PreprocessedCase, ...]
    measured: tuple[PreprocessedCase, ...]
    labels: LabelSet
    images: Images

    @classmethod
    def open(cls, folder: Path, images: Images, *, cases: int) -> Probe:
        """The probe on a preprocessed data set; the same cases in every run.

        Args:
            folder: `<root>/preprocessed/<name>`.
            images: of the pretraining.
            cases: to fit, and as many to measure; fewer where there are not so many.

        Raises:
            UserError: fewer than two cases are annotated in full, or grid or channels differ from the pretraining's.
        """
        dataset = PreprocessedDataset.open(folder)
        plans = dataset.plans
        for what, its, ours in (
            ("spacing", plans.spacing, images.spacing),
            ("number of channels", len(plans.channel_names), images.channels),
        ):
            if its != ours:
                raise UserError(
                    f"--probe {folder.name}: its {what} is {its}, that of the pretraining {ours}. Run "
                    "swinssl_plan_and_preprocess for it with the same --spacing and --intensity."
                )
        opened = [dataset.case(case_id) for case_id in dataset.case_ids]
        whole = [case for case in opened if case.properties.annotated and case.properties.labels_present is None]
        if len(whole) < 2:
            raise UserError(
                f"--probe {folder.name}: {len(whole)} cases are annotated in full, and 2 are needed. Give another one."
            )
        number = min(cases, len(whole) // 2)
        order = generator(0, "cases of the probe").permutation(len(whole))
        chosen = [whole[i] for i in order[: 2 * number]]
        return cls(tuple(chosen[:number]), tuple(chosen[number:]), plans.labels, images)

    def cost(self, samples_per_step: int) -> float:
        """Of one measurement, in training steps that see so many views."""
        size = self.images.patch_size
        windows = sum(
            math.prod(math.ceil(n / edge) for n, edge in zip(case.shape, size, strict=True))
            for case in (*self.fitted, *self.measured)
        )
        return FITTING + windows / (PASSES_OF_A_STEP * samples_per_step)

    @torch.no_grad()
    def measure(self, encoder: SwinEncoder) -> dict[str, float]:
        """`score`, the mean Dice over structures, and `dice_<structure>`, each the mean over the cases that have one.

        Dice is of whole volumes at half their resolution, where the finest tokens lie.
        """
        was_training = encoder.training
        encoder.eval()
        try:
            classifier, codes = self._fit(encoder)
            found: dict[str, list[float]] = {name: [] for name in self.labels.names}
            for case in self.measured:
                for name, dice in self._dice(encoder, classifier, codes, case).items():
                    found[name].append(dice)
        finally:
            encoder.train(was_training)
        means = {f"dice_{name}": float(np.mean(values)) for name, values in found.items() if values}
        return {"score": float(np.mean(list(means.values()))) if means else 0.0, **means}

    def _fit(self, encoder: SwinEncoder) -> tuple[LinearClassifier, Tensor]:
        """The classifier, and the code of each of its classes."""
        features, codes = [], []
        seen: dict[int, int] = {}
        for case in self.fitted:
            label = self._token_codes(case)
            wanted = np.zeros(label.shape, bool)
            for code, count in zip(*np.unique(label[label >= 0], return_counts=True), strict=True):
                seen[int(code)] = seen.get(int(code), 0) + int(count)
                where = np.flatnonzero(label == code)
                draw = generator(0, f"tokens of the probe, {case.properties.case_id}", sample=int(code))
                wanted.flat[draw.choice(where, min(TOKENS, count), replace=False)] = True
            for part, maps in self._windows(encoder, case):
                here = np.argwhere(wanted[part])
                features.append(tokens_of_maps(maps, torch.from_numpy(here).to(maps[0].device)).float())
                codes.append(torch.from_numpy(label[part][tuple(here.T)]).to(maps[0].device))
        classes, indices = torch.cat(codes).unique(return_inverse=True)
        frequencies = torch.tensor([float(seen[code]) for code in classes.tolist()], device=classes.device)
        return LinearClassifier.fit(torch.cat(features), indices, frequencies), classes

    def _dice(
        self, encoder: SwinEncoder, classifier: LinearClassifier, codes: Tensor, case: PreprocessedCase
    ) -> dict[str, float]:
        """By structure, where the case or its prediction shows it."""
        label = self._token_codes(case)
        predicted = np.empty(label.shape, np.int64)
        for part, maps in self._windows(encoder, case):
            z, y, x = (range(edge.start, edge.stop) for edge in part)
            logits = classifier.of_maps(maps)[0, :, : len(z), : len(y), : len(x)]
            predicted[part] = codes[logits.argmax(0)].cpu().numpy()
        found = {}
        for name, own in zip(self.labels.names, self.labels.structure_codes, strict=True):
            true, said = np.isin(label, own), np.isin(predicted, own) & (label >= 0)
            if sizes := int(true.sum() + said.sum()):
                found[name] = 2.0 * int((true & said).sum()) / sizes
        return found

    def _token_codes(self, case: PreprocessedCase) -> NDArray[np.int64]:
        """The code of the first voxel under each token; outside the mask is background, -1 was not annotated."""
        codes = case.label()[::2, ::2, ::2].astype(np.int64)
        codes[codes == self.labels.outside_code] = 0
        codes[codes == self.labels.ignore_code] = -1
        return codes

    def _windows(
        self, encoder: SwinEncoder, case: PreprocessedCase
    ) -> Iterator[tuple[tuple[slice, slice, slice], list[Tensor]]]:
        """Where in the token grid a window lies, as far as inside the volume, and the encoder's maps of it."""
        size = self.images.patch_size
        device = next(encoder.parameters()).device
        for start in itertools.product(*(range(0, n, edge) for n, edge in zip(case.shape, size, strict=True))):
            window = _triple(start)
            image = case.image_window(window, size)
            maps = encoder(torch.from_numpy(image)[None].to(device))[:MAPS]
            z, y, x = (
                slice(first // 2, min(first + edge, n + 1) // 2)
                for first, edge, n in zip(window, size, case.shape, strict=True)
            )
            yield (z, y, x), maps


def _triple(numbers: tuple[int, ...]) -> Shape:
    z, y, x = numbers
    return z, y, x


# Weight of the squared norm, over standardised features; and steps of L-BFGS, after which little moves.
PENALTY, STEPS = 1e-3, 40
# How much of the way from "all classes alike" to the true frequencies the bias may go, in so many parts.
SHIFTS = 20


@dataclass(frozen=True)
class LinearClassifier:
    """Logits = weight @ features + bias.

    Args:
        weight: (K, D).
        bias: (K,).
    """

    weight: Tensor
    bias: Tensor

    @classmethod
    def fit(cls, features: Tensor, classes: Tensor, frequencies: Tensor) -> LinearClassifier:
        """The classifier of the lowest penalised cross-entropy, its bias shifted for the best Dice.

        Tokens drawn by class make rare ones seem frequent. A shift of the bias by the logarithm of the frequencies puts
        that right (Prentice and Pyke, 1979), but what is most often right seldom says a rare class: of the shifts
        towards that one, the one with the best mean Dice is taken, each token standing for all of its class.

        Args:
            features: (N, D) float32 of the tokens to fit, as many of each class as there are or were wanted.
            classes: (N,) from 0 to K - 1, each there.
            frequencies: (K,) of the classes where the classifier will be used.

        Returns:
            The same at every call with the same tokens.
        """
        count = len(frequencies)
        mean, deviation = features.mean(0), features.std(0).clamp_min(1e-6)
        standardised = (features - mean) / deviation
        weight = torch.zeros(count, features.shape[1], device=features.device, requires_grad=True)
        bias = torch.zeros(count, device=features.device, requires_grad=True)
        solver = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            solver.zero_grad()
            value = F.cross_entropy(standardised @ weight.T + bias, classes) + PENALTY * weight.square().sum()
            value.backward()
            return value

        with torch.enable_grad(), torch.autocast(features.device.type, enabled=False):
            solver.step(loss)  # type: ignore[arg-type, unused-ignore]
        scaled = weight.detach() / deviation
        level = bias.detach() - scaled @ mean
        drawn = torch.bincount(classes, minlength=count)
        whole = (frequencies / drawn).log()
        logits = features @ scaled.T + level
        shifts = [whole * part / SHIFTS for part in range(SHIFTS + 1)]
        best = max(shifts, key=lambda shift: _mean_dice((logits + shift).argmax(1), classes, frequencies / drawn))
        return cls(scaled, level + best)

    def of_maps(self, maps: Sequence[Tensor]) -> Tensor:
        """(B, K, Z, Y, X) logits on the grid of the first map; each map is half as fine as the one before it.

        Args:
            maps: (B, C_i, ...), the features in their order.
        """
        logits = self.bias.view(1, -1, 1, 1, 1)
        for level, (part, one) in enumerate(
            zip(self.weight.split([own.shape[1] for own in maps], dim=1), maps, strict=True)
        ):
            own = torch.einsum("kc,bczyx->bkzyx", part, one.float())
            logits = logits + F.interpolate(own, scale_factor=2**level, mode="nearest")
        return logits


def _mean_dice(said: Tensor, classes: Tensor, stands_for: Tensor) -> float:
    """Mean Dice over K classes of (N,) tokens, of which each stands for so many of its class, (K,)."""
    count, weight = len(stands_for), stands_for[classes]
    right = torch.bincount(classes[said == classes], weight[said == classes], minlength=count)
    sizes = torch.bincount(classes, weight, minlength=count) + torch.bincount(said, weight, minlength=count)
    return float((2 * right / sizes).mean())


def tokens_of_maps(maps: Sequence[Tensor], where: Tensor) -> Tensor:
    """(N, D) features of tokens of the first map of one sample: each map's, of the token that covers it.

    Args:
        maps: (1, C_i, ...) as in `LinearClassifier.of_maps`.
        where: (N, 3) indices z, y, x.
    """
    found = []
    for level, one in enumerate(maps):
        z, y, x = (where >> level).unbind(1)
        found.append(one[0][:, z, y, x].T)
    return torch.cat(found, dim=1)
