"""Segmentation losses over exclusive labels (softmax) or regions (sigmoid): sums of terms, one value per sample.

Structures that were not annotated in a case ("partial labels") and voxels with the ignore label are masked. With
softmax, a structure that was not annotated is joined with the background, since its voxels are labelled so: their
probabilities are added. With sigmoid it is left out. Voxels beyond the volume (`outside_code`) count as background.

The index terms (`dice`, `tversky`) have two forms: -log(index) of the structures that the patch shows (`log`; Wong et
al. 2018, arXiv 1809.00076, eq. 2) or 1 - index of all (`linear`). They agree where the index is near 1. Near 0 the
gradient of 1 - index is proportional to the structure's probability: once the first steps have taught the network that
nearly everything is background, small structures have next to no gradient left and stay at Dice 0 for many hundreds of
steps. The gradient of -log(index) does not depend on the probability.

In the formulas p is a probability, g the label (0 or 1), and sums run over the voxels that are not ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from swinssl.dataset.labels import LabelSet
from swinssl.training.losses.registry import DEFAULT, LOSSES

# Keeps the Dice of an empty structure defined; nnU-Net's value.
SMOOTH = 1e-5
# Focusing parameter of the focal loss; the authors' choice.
FOCAL_GAMMA = 2.0
# Weights of false positives and false negatives in the Tversky index; the authors' best pair.
TVERSKY_FALSE_POSITIVE, TVERSKY_FALSE_NEGATIVE = 0.3, 0.7

DiceForm = Literal["log", "linear"]
Activation = Literal["softmax", "sigmoid"]
SegmentationLoss = Callable[..., Tensor]


@dataclass(frozen=True, eq=False)
class Outputs:
    """Activated logits beside their label.

    Args:
        nll: -log of the probability of each voxel's label: (B, Z, Y, X) with softmax, (B, S, Z, Y, X) with sigmoid.
        probabilities: (B, S, Z, Y, X) of the structures.
        background: (B, Z, Y, X) log-probability of the background; None with sigmoid, which has none.
        truth: (B, S, Z, Y, X) 0 or 1.
        valid: (B, Z, Y, X) whether the voxel counts.
        present: (B, S) whether the structure was looked for in the sample; None: all were.
    """

    nll: Tensor
    probabilities: Tensor
    background: Tensor | None
    truth: Tensor
    valid: Tensor
    present: Tensor | None

    def voxel_mean(self, values: Tensor) -> Tensor:
        """(B,) mean of `values` (the shape of `nll`) over valid voxels and, with sigmoid, looked-for structures."""
        if values.dim() == self.valid.dim():
            return _mean(values, self.valid)
        structures = values.shape[1]
        by_structure = _mean(values.flatten(0, 1), self.valid.repeat_interleave(structures, dim=0))
        by_structure = by_structure.view(values.shape[:2])
        weight = torch.ones_like(by_structure) if self.present is None else self.present.to(by_structure.dtype)
        return (by_structure * weight).sum(1) / weight.sum(1).clamp_min(1.0)

    def index_mean(self, numerator: Tensor, denominator: Tensor, true_sizes: Tensor, form: DiceForm) -> Tensor:
        """(B,) loss of an index (numerator + s) / (denominator + s), s = 1e-5, each argument (B, S).

        The mean is over the structures that were looked for and, in the `log` form, are in the patch: of one that is
        not there the index says nothing, and the voxel term keeps it away. 0 where there are none.
        """
        weight = torch.ones_like(denominator) if self.present is None else self.present.to(denominator.dtype)
        if form == "log":
            weight = weight * (true_sizes > 0)
            losses = (denominator + SMOOTH).log() - (numerator + SMOOTH).log()
        else:
            losses = 1.0 - (numerator + SMOOTH) / (denominator + SMOOTH)
        return (losses * weight).sum(1) / weight.sum(1).clamp_min(1.0)


Term = Callable[[Outputs, DiceForm], Tensor]
# By function name, which rows of `LOSSES` give.
TERMS: dict[str, Term] = {}


def term(function: Term) -> Term:
    """Register a term under the name of its function."""
    TERMS[function.__name__] = function
    return function


@term
def cross_entropy(outputs: Outputs, form: DiceForm) -> Tensor:
    """Mean of -log p over voxels, p the probability of the label; binary, for each structure, with sigmoid."""
    return outputs.voxel_mean(outputs.nll)


@term
def focal(outputs: Outputs, form: DiceForm) -> Tensor:
    """Mean of -(1 - p)^2 log p over voxels, p the probability of the label; without class weights.

    Source: Lin et al. 2017, arXiv 1708.02002, eq. 4 with gamma = 2.
    """
    # expm1 keeps 1 - p where p is near 1.
    return outputs.voxel_mean((-torch.expm1(-outputs.nll)).pow(FOCAL_GAMMA) * outputs.nll)


@term
def dice(outputs: Outputs, form: DiceForm) -> Tensor:
    """Soft Dice, 2 sum(p g) / (sum(p) + sum(g)) of each structure, without background.

    Source: Milletari et al. 2016, arXiv 1606.04797, with sums instead of sums of squares; nnU-Net's smooth term 1e-5.
    """
    probabilities, truth = outputs.probabilities, outputs.truth
    seen = outputs.valid[:, None].to(probabilities.dtype)
    true_sizes = (truth * seen).sum((2, 3, 4))
    overlap = (probabilities * truth * seen).sum((2, 3, 4))
    sizes = (probabilities * seen).sum((2, 3, 4)) + true_sizes
    return outputs.index_mean(2 * overlap, sizes, true_sizes, form)


@term
def tversky(outputs: Outputs, form: DiceForm) -> Tensor:
    """Tversky index of each structure, without background: TP / (TP + 0.3 FP + 0.7 FN).

    TP = sum(p g), FP = sum(p (1 - g)), FN = sum((1 - p) g). Missed voxels weigh more than false alarms; with 0.5 and
    0.5 it is the soft Dice.

    Source: Salehi et al. 2017, arXiv 1706.05721, eq. 3 and table 1.
    """
    probabilities, truth = outputs.probabilities, outputs.truth
    seen = outputs.valid[:, None].to(probabilities.dtype)
    true_sizes = (truth * seen).sum((2, 3, 4))
    overlap = (probabilities * truth * seen).sum((2, 3, 4))
    false_positive = (probabilities * seen).sum((2, 3, 4)) - overlap
    false_negative = true_sizes - overlap
    weighted = TVERSKY_FALSE_POSITIVE * false_positive + TVERSKY_FALSE_NEGATIVE * false_negative
    return outputs.index_mean(overlap, overlap + weighted, true_sizes, form)


@term
def generalised_dice(outputs: Outputs, form: DiceForm) -> Tensor:
    """Generalised Dice loss, 1 - 2 sum_l w_l sum(p g) / sum_l w_l (sum(p) + sum(g)), w_l = 1 / sum(g)^2.

    Classes l are the structures and, with softmax, the background. A class that the patch does not show, or that was
    not looked for, has weight 0. 0 where every voxel is ignored.

    Source: Sudre et al. 2017, arXiv 1707.03237, eq. 1.
    """
    probabilities, truth, present = outputs.probabilities, outputs.truth, outputs.present
    seen = outputs.valid[:, None].to(probabilities.dtype)
    sizes = (truth * seen).sum((2, 3, 4))
    predicted = (probabilities * seen).sum((2, 3, 4))
    overlap = (probabilities * truth * seen).sum((2, 3, 4))
    shown = sizes > 0 if present is None else (sizes > 0) & present.bool()
    if outputs.background is not None:
        is_background = (1 - truth.sum(1, keepdim=True)) * seen
        background = outputs.background.exp()[:, None]
        sizes = torch.cat((is_background.sum((2, 3, 4)), sizes), 1)
        predicted = torch.cat(((background * seen).sum((2, 3, 4)), predicted), 1)
        overlap = torch.cat(((background * is_background).sum((2, 3, 4)), overlap), 1)
        shown = torch.cat((sizes[:, :1] > 0, shown), 1)
    weights = shown / sizes.clamp_min(1).square()
    # Only their ratios matter; as shares of 1 they are far above the smooth term.
    weights = weights / weights.sum(1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
    return 1.0 - (2 * (weights * overlap).sum(1) + SMOOTH) / ((weights * (predicted + sizes)).sum(1) + SMOOTH)


def segmentation_loss(
    name: str = DEFAULT, *, labels: LabelSet, activation: Activation = "softmax", form: DiceForm = "log"
) -> SegmentationLoss:
    """A loss of the table, as a function of logits, label codes and what was looked for.

    Args:
        name: row of `LOSSES`.
        activation: `softmax` over background and exclusive structures; `sigmoid` over structures that may overlap.
        form: of the index terms.

    Returns:
        `loss(logits, codes, present=None)`: logits (B, 1 + S, Z, Y, X) with softmax, (B, S, Z, Y, X) with sigmoid, in
        any precision; codes (B, Z, Y, X); present (B, S) whether a structure was looked for in a sample, None: all
        were. It returns (B,) float32, 0 where every voxel is ignored.
    """
    activate = softmax_outputs if activation == "softmax" else sigmoid_outputs
    first, *others = (TERMS[row_term] for row_term in LOSSES[name].terms)

    def loss(logits: Tensor, codes: Tensor, *, present: Tensor | None = None) -> Tensor:
        outputs = activate(logits, codes, labels=labels, present=present)
        total = first(outputs, form)
        for other in others:
            total = total + other(outputs, form)
        return total

    return loss


def softmax_outputs(logits: Tensor, codes: Tensor, *, labels: LabelSet, present: Tensor | None) -> Outputs:
    """Outputs over background and exclusive structures; arguments as of `segmentation_loss`."""
    valid = codes != labels.ignore_code
    target = _classes(codes, labels)
    logits = logits.float()
    if present is not None and not bool(present.all()):
        logits = _join_absent_with_background(logits, present)
        # A value of a structure that is said to be absent has no channel left; count it as background.
        target = target * _of_class(present, target)
    log_probabilities = logits.log_softmax(dim=1)
    nll = -log_probabilities.gather(1, target[:, None])[:, 0]
    probabilities = log_probabilities[:, 1:].exp()
    truth = F.one_hot(target, logits.shape[1]).movedim(-1, 1)[:, 1:].to(probabilities.dtype)
    return Outputs(nll, probabilities, log_probabilities[:, 0], truth, valid, present)


def sigmoid_outputs(logits: Tensor, codes: Tensor, *, labels: LabelSet, present: Tensor | None) -> Outputs:
    """Outputs over structures that may overlap, or exclusive ones, each for itself; as of `segmentation_loss`."""
    valid = codes != labels.ignore_code
    logits = logits.float()
    truth = torch.stack([_among(codes, chosen) for chosen in labels.structure_codes], dim=1).to(logits.dtype)
    nll = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return Outputs(nll, logits.sigmoid(), None, truth, valid, present)


def deep_loss(losses: list[Tensor]) -> Tensor:
    """Losses at falling resolutions, weighted 1, 1/2, 1/4 ..., the weights adding up to 1."""
    weights = [0.5**level for level in range(len(losses))]
    weighted = [weight * loss for weight, loss in zip(weights, losses, strict=True)]
    return torch.stack(weighted).sum(0) / sum(weights)


def _mean(values: Tensor, valid: Tensor) -> Tensor:
    return (values * valid).flatten(1).sum(1) / valid.flatten(1).sum(1).clamp_min(1)


def _classes(codes: Tensor, labels: LabelSet) -> Tensor:
    """Channel index of each voxel: 0 background, s + 1 structure s of `labels.names`."""
    table = torch.zeros(int(labels.outside_code) + 1, dtype=torch.long)
    for structure, chosen in enumerate(labels.structure_codes):
        table[list(chosen)] = structure + 1
    return table.to(codes.device)[codes.long()]


def _among(codes: Tensor, chosen: tuple[int, ...]) -> Tensor:
    return torch.isin(codes, torch.tensor(chosen, device=codes.device, dtype=codes.dtype))


def _join_absent_with_background(logits: Tensor, present: Tensor) -> Tensor:
    absent = ~F.pad(present.bool(), (1, 0), value=True)[:, :, None, None, None]
    with_background = absent.clone()
    with_background[:, 0] = True
    background = logits.masked_fill(~with_background, -torch.inf).logsumexp(1, keepdim=True)
    # A finite stand-in for -inf, whose product with a zero target would be NaN.
    finite = logits.masked_fill(absent, torch.finfo(logits.dtype).min / 2)
    return torch.cat((background, finite[:, 1:]), dim=1)


def _of_class(present: Tensor, target: Tensor) -> Tensor:
    looked_for = F.pad(present.bool(), (1, 0), value=True)
    return looked_for.gather(1, target.flatten(1)).view_as(target).long()
