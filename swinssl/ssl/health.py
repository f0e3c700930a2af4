"""Whether the features still tell images apart: numbers for the log, and one warning when they do not."""

from __future__ import annotations

import logging

import torch
import torch.nn.functional as F
from torch import Tensor

logger = logging.getLogger(__name__)

# Samples that the numbers are over, one batch in so many steps, and the fewest that are judged. They are seen once more
# for it, whole and without stochastic depth, whose noise would hide a collapse: 3 % of the time.
KEPT, EVERY, FEWEST = 32, 10, 16
# Deviation of unit vectors' components, as a share of what random directions have (1); at the start of training crops
# of CT have 0.05 and more.
LEAST_DEVIATION = 0.005
# Share of log K at which the teacher says nothing, or the same of everything.
MOST_ENTROPY, LEAST_ENTROPY = 0.9999, 1e-4
# Nats; at the start of training on crops of CT it has 0.03.
LEAST_INFORMATION = 0.002
# Of the run. Before, a healthy teacher too says nearly the same of everything, as its first features are alike.
WATCHED_FROM = 0.25


class Health:
    """Follows the pooled features of the last samples of this process.

    Args:
        views: of a sample.
        width: of a feature.
    """

    def __init__(self, views: int, width: int) -> None:
        self.recent = torch.zeros(0, views, width)
        self.warned = False

    def observe(self, pooled: Tensor) -> None:
        """Take in (B, V, C) pooled features; not of a run that has diverged, which its loss tells of."""
        if not torch.isfinite(pooled).all():
            return
        unit = F.normalize(pooled.detach().float().cpu(), dim=-1)
        self.recent = torch.cat([self.recent, unit])[-KEPT:]

    def numbers(self) -> dict[str, float]:
        """Numbers for the log; of fewer than two samples none.

        Returns:
            `feature_deviation`: of the components of unit features over samples, times sqrt(C): 0 is collapse, 1 random
            directions. `effective_rank`: exp of the entropy of the covariance's spectrum, 1 to min(C, samples).
            `uniformity`: log mean exp(-2 d^2) over pairs, 0 is collapse (Wang and Isola, 2005.10242); with two views
            `alignment`: mean d^2 between them.
        """
        if len(self.recent) < 2:
            return {}
        features = self.recent[:, 0]
        centred = features - features.mean(0)
        spectrum = torch.linalg.svdvals(centred).square()
        share = spectrum / spectrum.sum().clamp_min(1e-20)
        numbers = {
            "feature_deviation": float(centred.square().mean().sqrt() * features.shape[1] ** 0.5),
            "effective_rank": float(torch.exp(-(share * share.clamp_min(1e-20).log()).sum())),
            "uniformity": float(torch.pdist(features).square().mul(-2).exp().mean().log()),
        }
        if self.recent.shape[1] == 2:
            numbers["alignment"] = float((features - self.recent[:, 1]).square().sum(-1).mean())
        return numbers

    def watch(self, numbers: dict[str, float], *, share: float) -> None:
        """Warn, once, when the numbers of a step say that the run has collapsed.

        Args:
            numbers: those of `numbers`, and `teacher_entropy` and `teacher_information` where there is a teacher.
            share: of the run that is done.
        """
        if self.warned or share < WATCHED_FROM or len(self.recent) < FEWEST:
            return
        deviation, entropy = numbers.get("feature_deviation", 1.0), numbers.get("teacher_entropy", 0.5)
        information = numbers.get("teacher_information", 1.0)
        what = None
        if deviation < LEAST_DEVIATION:
            what = f"all images have nearly the same features (deviation {deviation:.1e}; 1 is that of random ones)"
        elif not LEAST_ENTROPY < entropy < MOST_ENTROPY:
            what = f"the teacher's entropy is {entropy:.5f} of the largest"
        elif information < LEAST_INFORMATION:
            what = f"the teacher says the same of every image ({information:.1e} nats tell them apart)"
        if what is not None:
            self.warned = True
            logger.warning(
                "COLLAPSE: %s. The encoder has stopped telling images apart: start anew with a lower --lr or a larger "
                "--batch-size.",
                what,
            )

    def weights(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {"recent": self.recent}

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        self.recent = weights["recent"].cpu()
