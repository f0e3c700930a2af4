"""What the cases of a report come to, in sentences: who is best, by how much, where it is worst, what is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import fmean

from swinssl.core.text import counted, listed
from swinssl.evaluation.report.html.content import Case


def models_of(cases: Iterable[Case]) -> tuple[str, ...]:
    """All models of some cases, in the order in which they come."""
    return tuple(dict.fromkeys(model for case in cases for model in (*case.scores, *case.predictions)))


def mean_score(case: Case, model: str) -> float | None:
    """Over the structures that have one."""
    found = [score for score in case.scores.get(model, {}).values() if score is not None]
    return fmean(found) if found else None


def case_score(case: Case) -> float | None:
    """Mean over the models that have one."""
    found = [score for model in case.scores if (score := mean_score(case, model)) is not None]
    return fmean(found) if found else None


def worst_first(cases: Iterable[Case]) -> list[Case]:
    """By rising score; those without one last."""

    def rank(case: Case) -> tuple[bool, float]:
        score = case_score(case)
        return score is None, score or 0.0

    return sorted(cases, key=rank)


def in_words(cases: Sequence[Case], score: str) -> list[str]:
    """A sentence or two about each of these; none without cases."""
    if not cases:
        return []
    models, tasks = models_of(cases), {case.task for case in cases}
    first = f"{counted(len(models), 'model')} on {counted(len(cases), 'case')} of {counted(len(tasks), 'task')}."
    scores = (*_means(cases, models, score), *_ranks(cases, models, score), *_lowest(cases, models, score))
    return [first, *scores, *_missing(cases)]


def _means(cases: Sequence[Case], models: Sequence[str], score: str) -> list[str]:
    scored = {model: [s for case in cases if (s := mean_score(case, model)) is not None] for model in models}
    means = sorted(((fmean(found), model) for model, found in scored.items() if found), reverse=True)
    if not means:
        return []
    said = listed([f"{model} {mean:.3f} ({counted(len(scored[model]), 'case')})" for mean, model in means])
    return [f"Mean {score}, over structures and then cases: {said}."]


def _ranks(cases: Sequence[Case], models: Sequence[str], score: str) -> list[str]:
    if len(models) < 2:
        return []
    first: Counter[str] = Counter()
    compared = alike = 0
    for case in cases:
        found = {model: s for model in models if (s := mean_score(case, model)) is not None}
        if len(found) < len(models):
            continue
        compared += 1
        best = [model for model, one in found.items() if one == max(found.values())]
        if len(best) == 1:
            first[best[0]] += 1
        else:
            alike += 1
    if not compared:
        return []
    said = listed([f"{model} in {number}" for model, number in first.most_common()])
    tied = f"{'; ' if first else ''}alike in {alike}" if alike else ""
    return [f"Of {counted(compared, 'case')} with every model, the highest {score}: {said}{tied}."]


def _lowest(cases: Sequence[Case], models: Sequence[str], score: str) -> list[str]:
    found = [
        (value, case, model, structure)
        for case in cases
        for model in models
        for structure, value in case.scores.get(model, {}).items()
        if value is not None
    ]
    if not found:
        return []
    value, case, model, structure = min(found, key=lambda one: one[0])
    return [f"The lowest {score} is {value:.3f}: {structure} of case {case.case} ({case.task}) by {model}."]


def _missing(cases: Sequence[Case]) -> list[str]:
    """A sentence for all models that lack the same predictions."""
    lacking: dict[tuple[str, ...], list[str]] = {}
    for model in models_of(cases):
        without = sorted(
            case.case for case in cases if model not in case.predictions or not case.predictions[model].is_file()
        )
        if without:
            lacking.setdefault(tuple(without), []).append(model)
    return [
        f"No prediction of {listed(models)} in {counted(len(without), 'case')}: {listed(without)}."
        for without, models in lacking.items()
    ]
