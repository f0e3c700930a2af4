"""Segmentation losses: cross-entropy + soft Dice, over exclusive labels or over regions, one value a sample.

Masked are structures that nobody looked for in a case ("partial labels") and voxels with the ignore label.

The Dice term is -log(Dice) of the structures that the patch shows (`log`), or 1 - Dice of all (`linear`, the paper's).
They agree where Dice is near 1. Where it is near 0 the gradient of 1 - Dice is proportional to the structure's
probability: once the first steps have taught the network that nearly everything is background, small structures have
next to no gradient left and stay at Dice 0 for many hundreds of steps. That of -log(Dice) does not depend on it.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from swinssl.dataset.labels import LabelSet

# Keeps the Dice of an empty structure defined; nnU-Net's value.
SMOOTH = 1e-5

DiceForm = Literal["log", "linear"]


def softmax_loss(
    logits: Tensor, codes: Tensor, *, labels: LabelSet, present: Tensor | None = None, dice: DiceForm = "log"
) -> Tensor:
    """Cross-entropy + soft Dice, over background and exclusive structures.

    Args:
        logits: (B, 1 + S, Z, Y, X).
        codes: (B, Z, Y, X) label codes; `labels.outside_code` counts as background.
        present: (B, S) whether structure s was looked for in the sample; None: all were. What was not looked for is
            joined with the background, since its voxels are labelled so: their probabilities are added.
        dice: form of the Dice term.

    Returns:
        (B,) loss of each sample; 0 where every voxel is ignored.

    Source: paper section 4; nnU-Net, Dice without background and with smooth term 1e-5. The logarithm: Wong et
    al., 2018 (arXiv 1809.00076), equation 2.
    """
    valid = codes != labels.ignore_code
    target = _classes(codes, labels)
    logits = logits.float()
    if present is not None and not bool(present.all()):
        logits = _join_absent_with_background(logits, present)
        # A value of a structure that is said to be absent has no channel left; count it as background.
        target = target * _of_class(present, target)
    log_probabilities = logits.log_softmax(dim=1)
    entropy = -log_probabilities.gather(1, target[:, None])[:, 0]
    cross_entropy = _mean(entropy, valid)
    probabilities = log_probabilities[:, 1:].exp()
    truth = F.one_hot(target, logits.shape[1]).movedim(-1, 1)[:, 1:].to(probabilities.dtype)
    return cross_entropy + _dice_term(probabilities, truth, valid, present, dice)


def sigmoid_loss(
    logits: Tensor, codes: Tensor, *, labels: LabelSet, present: Tensor | None = None, dice: DiceForm = "log"
) -> Tensor:
    """Binary cross-entropy + soft Dice, over structures that may overlap; or exclusive ones, each for itself.

    Args:
        logits: (B, S, Z, Y, X); the others as in `softmax_loss`, but an absent structure is left out.

    Returns:
        (B,) loss of each sample.
    """
    valid = codes != labels.ignore_code
    logits = logits.float()
    truth = torch.stack([_among(codes, chosen) for chosen in labels.structure_codes], dim=1).to(logits.dtype)
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    by_structure = _mean(entropy.flatten(0, 1), valid.repeat_interleave(logits.shape[1], dim=0)).view(truth.shape[:2])
    weight = torch.ones_like(by_structure) if present is None else present.to(by_structure.dtype)
    cross_entropy = (by_structure * weight).sum(1) / weight.sum(1).clamp_min(1.0)
    return cross_entropy + _dice_term(logits.sigmoid(), truth, valid, present, dice)


def deep_loss(losses: list[Tensor]) -> Tensor:
    """Losses at falling resolutions, weighted 1, 1/2, 1/4 ..., the weights adding up to 1."""
    weights = [0.5**level for level in range(len(losses))]
    weighted = [weight * loss for weight, loss in zip(weights, losses, strict=True)]
    return torch.stack(weighted).sum(0) / sum(weights)


def _dice_term(probabilities: Tensor, truth: Tensor, valid: Tensor, present: Tensor | None, form: DiceForm) -> Tensor:
    """(B,) mean over the structures that were looked for and, in the `log` form, are there; 0 where there are none."""
    seen = valid[:, None].to(probabilities.dtype)
    true_sizes = (truth * seen).sum((2, 3, 4))
    overlap = (probabilities * truth * seen).sum((2, 3, 4))
    sizes = (probabilities * seen).sum((2, 3, 4)) + true_sizes
    weight = torch.ones_like(sizes) if present is None else present.to(sizes.dtype)
    if form == "log":
        # Of a structure that is not there Dice says nothing: cross-entropy keeps it away.
        weight = weight * (true_sizes > 0)
        terms = (sizes + SMOOTH).log() - (2 * overlap + SMOOTH).log()
    else:
        terms = 1.0 - (2 * overlap + SMOOTH) / (sizes + SMOOTH)
    return (terms * weight).sum(1) / weight.sum(1).clamp_min(1.0)


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
    kept = logits.masked_fill(absent, torch.finfo(logits.dtype).min / 2)
    return torch.cat((background, kept[:, 1:]), dim=1)


def _of_class(present: Tensor, target: Tensor) -> Tensor:
    looked_for = F.pad(present.bool(), (1, 0), value=True)
    return looked_for.gather(1, target.flatten(1)).view_as(target).long()
