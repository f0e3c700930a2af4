"""Self-distillation: the student's distribution over prototypes is drawn to the teacher's sharpened, centred one."""

from __future__ import annotations

import torch
from torch import Tensor

from swinssl.core.devices import sum_over_ranks

STUDENT_TEMPERATURE = 0.1
# Of the past in a centre.
CENTRE_MOMENTUM = 0.9


def teacher_distribution(logits: Tensor, centre: Tensor, *, temperature: float) -> Tensor:
    """softmax((logits - centre) / temperature), float32.

    Args:
        logits: (..., K) of the teacher.
        centre: (K,).
    """
    return ((logits.detach().float() - centre) / temperature).softmax(-1)


def distillation_error(student: Tensor, teacher: Tensor, *, temperature: float = STUDENT_TEMPERATURE) -> Tensor:
    """Cross-entropy of the student's softmax with the teacher's distribution.

    Args:
        student: (..., K) logits.
        teacher: (..., K) distribution.

    Returns:
        (...) float32.

    Source: arXiv 2605.18491, section 3.2, item 6; DINO, arXiv 2104.14294, eq. 1 to 3.
    """
    return -(teacher * (student.float() / temperature).log_softmax(-1)).sum(-1)


def across_views(student: Tensor, teacher: Tensor) -> Tensor:
    """(B,) mean error over the pairs of a student's and a teacher's view of a sample that are not the same view.

    Args:
        student: (B, V, K) logits.
        teacher: (B, V, K) distribution.
    """
    views = student.shape[1]
    errors = [
        distillation_error(student[:, seen], teacher[:, other])
        for seen in range(views)
        for other in range(views)
        if seen != other
    ]
    return torch.stack(errors).mean(0)


def over_masked_tokens(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """(B,) error over the masked tokens of each view, mean over tokens, then over views.

    Args:
        student: (B, V, N, K) logits of the masked view's tokens.
        teacher: (B, V, N, K) distributions of the same view's tokens, unmasked.
        mask: (B, V, N) booleans.
    """
    errors = distillation_error(student, teacher) * mask
    return (errors.sum(-1) / mask.sum(-1).clamp_min(1)).mean(-1)


def entropy_share(distribution: Tensor) -> float:
    """Mean entropy of (..., K) distributions as a share of the largest there is, log K."""
    entropy = -(distribution * distribution.clamp_min(1e-12).log()).sum(-1).mean()
    return float(entropy / torch.log(torch.tensor(float(distribution.shape[-1]))))


def information(distribution: Tensor) -> float:
    """What a row of (..., K) distributions says of its sample, in nats: entropy of the mean less the mean entropy.

    0 where the teacher says the same of everything, sharp or not; at most the log of the number of rows.
    """
    rows = distribution.flatten(0, -2)
    mean = rows.mean(0)
    return float((rows * (rows.clamp_min(1e-12) / mean.clamp_min(1e-12)).log()).sum(-1).mean())


class Centre:
    """The running mean of the teacher's logits, over all that the batch shows on all ranks.

    Taking it off keeps one prototype from winning everywhere; sharpening keeps all from winning alike (DINO).

    Args:
        prototypes: K.
    """

    def __init__(self, prototypes: int, *, device: torch.device) -> None:
        self.value = torch.zeros(prototypes, device=device)
        self._sum = torch.zeros(prototypes + 1, device=device)  # of the step's parts; the last is how many there were

    def observe(self, logits: Tensor) -> None:
        """Take in (..., K) raw logits of the teacher for the next update."""
        rows = logits.detach().float().flatten(0, -2)
        self._sum[:-1] += rows.sum(0)
        self._sum[-1] += len(rows)

    def update(self) -> None:
        """After the optimiser's step: move towards the mean of what was observed since the last one.

        The first mean is taken as it is. Public code starts from zero; then for dozens of steps what all images have in
        common is a sharp target, and the student learns to say the same of all.
        """
        summed = sum_over_ranks(self._sum)
        if summed[-1] > 0:
            mean = summed[:-1] / summed[-1]
            self.value = self.value.lerp(mean, 1.0 - CENTRE_MOMENTUM) if self.value.any() else mean
        self._sum.zero_()
