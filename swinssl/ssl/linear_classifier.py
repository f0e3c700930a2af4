"""A linear classifier of tokens: multinomial logistic regression on the concatenated maps of an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

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
