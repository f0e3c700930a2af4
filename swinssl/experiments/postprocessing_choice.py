"""Whether predictions get better when only the largest component of a structure is kept: measured, case by case.

As nnU-Net does, all foreground is tried as one mask first, then each structure on top of what that left. A trial counts
only if the mean Dice over the cases rises by `LEAST_GAIN`, and no more cases fall than rise. Structures that come in
several parts, tumours and lesions, need no rule of their own: where parts are real, removing them costs Dice.

Where the networks have learnt from some of the cases, the criterion is stricter: no case may fall, and at least
`LEAST_BETTER` rise. Predictions of training cases have fewer false islands than others, and are whole more often, so
that they show too small a gain and too small a harm. docs/training.md has what was measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swinssl.core.terminal import track
from swinssl.dataset.labels import LabelSet
from swinssl.evaluation.pairing import Pair
from swinssl.evaluation.results import CaseResult, Evaluation
from swinssl.inference.postprocessing import MeasuredOn, Postprocessing, Trial, postprocess
from swinssl.metrics.case_metrics import case_overlaps

# Of the mean Dice; below it is noise, and every removal can also remove what is real.
LEAST_GAIN = 0.001
LEAST_BETTER = 2

Dice = Mapping[str, float | None]


def choose_postprocessing(
    evaluation: Evaluation,
    labels: LabelSet,
    *,
    fold_sha256: Mapping[str, str],
    measured_on: MeasuredOn = "validation cases",
    strict: bool = False,
) -> Postprocessing:
    """What to clean up, from raw predictions.

    Args:
        evaluation: of these predictions; their files are read again.
        labels: of the model. Regions overlap, so that nothing is tried with them.
        fold_sha256: by fold, of the weights that predicted.
        measured_on: what the cases are.
        strict: there are few of them, or the networks have learnt from some: no case may get worse.
    """
    applied: list[Trial] = []
    rejected: list[Trial] = []
    if not labels.regions:
        cases = [_Measured.of(case, evaluation, labels) for case in track(evaluation.cases, "trying post-processing")]
        raw, each = [case.raw for case in cases], [case.each for case in cases]
        if len(labels.names) > 1:
            together = [case.together for case in cases]
            trial = _trial(labels.names, raw, together)
            helps = _helps(trial, strict=strict) and not _costs_a_structure(labels.names, raw, together)
            (applied if helps else rejected).append(trial)
            if helps:
                raw, each = together, [case.together_then_each for case in cases]
        for name in labels.names:
            trial = _trial((name,), raw, each)
            (applied if _helps(trial, strict=strict) else rejected).append(trial)
    return Postprocessing(
        measured_on=measured_on,
        least_gain=LEAST_GAIN,
        applied=tuple(applied),
        rejected=tuple(rejected),
        fold_sha256=dict(fold_sha256),
    )


@dataclass(frozen=True)
class _Measured:
    """Dice of the annotated structures of one case: as predicted, with the largest component of all foreground, and of
    each structure, alone and on top of that.
    """

    raw: Dice
    together: Dice
    each: Dice
    together_then_each: Dice

    @classmethod
    def of(cls, case: CaseResult, evaluation: Evaluation, labels: LabelSet) -> _Measured:
        reference, prediction, _ = Pair(case.case_id, case.prediction, case.reference).read()
        annotated = [structure for structure in evaluation.structures if structure.name in case.metrics]

        def dice(cleaned: NDArray) -> Dice:
            found = case_overlaps(reference, cleaned, structures=annotated, ignore=labels.ignore_value)
            return {name: overlap.dice for name, overlap in found.items()}

        raw = {name: metrics.overlap.dice for name, metrics in case.metrics.items()}
        # What is removed of one structure touches no other, so that all can be measured at once.
        singly = tuple((name,) for name in labels.names)
        cleaned = prediction.copy()
        postprocess(cleaned, singly, labels)
        each = dice(cleaned)
        np.copyto(cleaned, prediction)
        postprocess(cleaned, (labels.names,), labels)
        together = dice(cleaned)
        if np.array_equal(cleaned, prediction):
            return cls(raw, raw, each, each)
        postprocess(cleaned, singly, labels)
        return cls(raw, together, each, dice(cleaned))


def _trial(names: tuple[str, ...], before: Sequence[Dice], after: Sequence[Dice]) -> Trial:
    changes = [
        (was, _mean(now.get(name) for name in names))
        for old, now in zip(before, after, strict=True)
        if (was := _mean(old.get(name) for name in names)) is not None
    ]
    return Trial(
        structures=names,
        before=_mean(_means(names, before).values()),
        after=_mean(_means(names, after).values()),
        # A Dice of 0 that vanishes was of voxels that are not in the reference: removing them is right.
        better=sum(now is None or now > was for was, now in changes),
        worse=sum(now is not None and now < was for was, now in changes),
        cases=len(changes),
    )


def _helps(trial: Trial, *, strict: bool) -> bool:
    if trial.before is None or trial.after is None or trial.after - trial.before < LEAST_GAIN:
        return False
    return trial.worse == 0 and trial.better >= LEAST_BETTER if strict else trial.worse <= trial.better


def _costs_a_structure(names: Sequence[str], before: Sequence[Dice], after: Sequence[Dice]) -> bool:
    """Whether any structure's own mean falls, which the mean over all of them could hide."""
    old, now = _means(names, before), _means(names, after)
    return any(was is not None and (own := now[name]) is not None and own < was for name, was in old.items())


def _means(names: Sequence[str], cases: Sequence[Dice]) -> dict[str, float | None]:
    """Per structure, the mean over the cases that have a Dice, as an evaluation reports it."""
    return {name: _mean(case.get(name) for case in cases) for name in names}


def _mean(values: Iterable[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
