"""What DINO, iBOT and SMIT share: heads on the tokens at 1/16, and the global and the patch loss from the teacher."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from swinssl.networks.swin.encoder import SwinEncoder
from swinssl.ssl.parts.batch import Batch, StepContext
from swinssl.ssl.parts.distillation import (
    across_views,
    entropy_share,
    information,
    over_masked_tokens,
    teacher_distribution,
)
from swinssl.ssl.parts.heads import PrototypeHead, TokenNorm
from swinssl.ssl.parts.options import DistillationOptions
from swinssl.ssl.parts.pretext_network import Features, PretextNetwork
from swinssl.ssl.parts.schedules import LAST_LAYER_FROZEN, linear_rise

FIRST_TEACHER_TEMPERATURE = 0.04


def distillation_heads(encoder: SwinEncoder, *, prototypes: int, patches: bool) -> dict[str, nn.Module]:
    """A norm over the tokens, an MLP for the whole image, and another one for single tokens if `patches`."""
    width = encoder.widths[3]
    heads: dict[str, nn.Module] = {"norm": TokenNorm(width), "global": PrototypeHead(width, prototypes=prototypes)}
    if patches:
        heads["patch"] = PrototypeHead(width, prototypes=prototypes)
    return heads


def distil(
    student: PretextNetwork, seen: Features, batch: Batch, context: StepContext, *, options: DistillationOptions
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The terms `global`, and `patch` if the student has that head, (B,) each; and the teacher's entropy.

    The global term compares each view with the teacher's other view, by the mean over the normalised tokens; the patch
    term compares the masked tokens of each view with the teacher's of the same view, which the teacher sees whole.

    Args:
        seen: the student's maps of `batch`.
    """
    assert context.teacher is not None
    teacher = context.teacher.network
    temperature = linear_rise(context.share, start=FIRST_TEACHER_TEMPERATURE, end=options.teacher_temperature)
    frozen = context.share < LAST_LAYER_FROZEN
    views = (-1, batch.views)
    student_tokens = student.heads["norm"](seen.tokens)
    with torch.no_grad():
        teacher_tokens = teacher.heads["norm"](batch.encode_unmasked(teacher).tokens)

    def compared(head: str, own_rows: Tensor, their_rows: Tensor) -> tuple[Tensor, Tensor]:
        """The student's logits and the teacher's distribution, (B, V, ..., K)."""
        with torch.no_grad():
            logits = teacher.heads[head](their_rows)
        context.centres[head].observe(logits)
        distribution = teacher_distribution(logits, context.centres[head].value, temperature=temperature)
        return student.heads[head](own_rows, frozen=frozen).unflatten(0, views), distribution.unflatten(0, views)

    logits, distribution = compared("global", student_tokens.mean(1), teacher_tokens.mean(1))
    terms = {"global": across_views(logits, distribution)}
    measures = {"teacher_entropy": entropy_share(distribution), "teacher_information": information(distribution)}
    if "patch" in student.heads:
        logits, distribution = compared("patch", student_tokens, teacher_tokens)
        terms["patch"] = over_masked_tokens(logits, distribution, batch.tensors["token_mask"].flatten(2))
        measures["patch_teacher_entropy"] = entropy_share(distribution)
        measures["patch_teacher_information"] = information(distribution)
    return terms, measures
