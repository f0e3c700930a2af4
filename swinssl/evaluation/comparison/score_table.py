"""Scores of several models as one table: a row a structure of a case, as one run of a model segmented it.

What is compared is a patient: mean over the structures of a case, then over seeds, then over the patient's cases.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from swinssl.metrics.registry import DICE


@dataclass(frozen=True)
class Score:
    """One structure of one case.

    Args:
        model: what is compared: a model, or what its network started from.
        seed: of the run.
        values: by the names of `metrics/registry.py`; what is undefined is not in it.
        patient: whom the case is of; empty for one case a patient.
        task: what was segmented, where a table has several; so are the others.
        modality: CT, MR.
        shots: labelled cases that it was trained on, or `many`.
        volumes: that it was pretrained on.
        parameters: of the network, in millions.
    """

    model: str
    case: str
    structure: str
    values: Mapping[str, float] = field(hash=False)
    seed: str = "0"
    patient: str = ""
    task: str = ""
    modality: str = ""
    shots: str = ""
    volumes: float | None = None
    parameters: float | None = None

    @property
    def unit(self) -> str:
        """What counts once: the patient."""
        return self.patient or self.case

    @property
    def setting(self) -> tuple[str, str, str]:
        """Scores of different settings are never averaged."""
        return self.task, self.modality, self.shots


@dataclass(frozen=True)
class ScoreTable:
    """Scores in the order in which they were read."""

    scores: tuple[Score, ...]

    @cached_property
    def models(self) -> tuple[str, ...]:
        return self.distinct(lambda score: score.model)

    @cached_property
    def all_structures(self) -> tuple[str, ...]:
        return self.distinct(lambda score: score.structure)

    @cached_property
    def structures(self) -> tuple[str, ...]:
        """Those that every model has a row of."""
        return tuple(s for s in self.all_structures if all(s in own for own in self._has))

    @cached_property
    def partial_structures(self) -> tuple[str, ...]:
        """Those that only some models have: nothing is compared there."""
        return tuple(s for s in self.all_structures if s not in self.structures)

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for score in self.scores for name in score.values))

    @cached_property
    def settings(self) -> dict[str, ScoreTable]:
        """A table for each task, modality and number of shots, by a name for it; the name of a single one is empty."""
        parts = self.distinct(lambda score: score.setting)
        # What is the same everywhere needs no mention.
        told = [i for i in range(3) if len({part[i] for part in parts}) > 1]
        words = ("{}", "{}", "{} shots")
        tables = {}
        for part in parts:
            name = ", ".join(words[i].format(part[i]) for i in told if part[i])
            tables[name] = ScoreTable(tuple(score for score in self.scores if score.setting == part))
        return tables

    def distinct(self, of: Callable[[Score], object]) -> tuple:
        """Values in the order of their first appearance."""
        return tuple(dict.fromkeys(map(of, self.scores)))

    def with_patients(self, patients: Mapping[str, str]) -> ScoreTable:
        """The same, with the patient of each case that is named."""
        return ScoreTable(tuple(replace(s, patient=patients.get(s.case, s.patient)) for s in self.scores))

    def seeds(self, model: str) -> tuple[str, ...]:
        """By rising number."""
        return tuple(sorted({s.seed for s in self._of.get(model, ())}, key=lambda s: (not s.isdigit(), len(s), s)))

    def common_seeds(self, *models: str) -> tuple[str, ...]:
        """Those that all these models have: a seed's training cases make a difference that is nobody's merit."""
        return tuple(seed for seed in self.seeds(models[0]) if all(seed in self.seeds(model) for model in models[1:]))

    def unit_means(
        self,
        model: str,
        *,
        metric: str = DICE,
        structures: Sequence[str] | None = None,
        seeds: Sequence[str] | None = None,
    ) -> dict[str, float]:
        """By patient, the mean over structures, seeds and cases.

        Args:
            structures: of which those count that have a value in a case; None takes all that every model has.
            seeds: a case that has no value in one of them is left out; None takes all of the model.
        """
        chosen = set(self.structures if structures is None else structures)
        counted = self.seeds(model) if seeds is None else tuple(seeds)
        found: dict[tuple[str, str], dict[str, list[float]]] = {}
        for score in self._of.get(model, ()):
            if score.structure in chosen and score.seed in counted and metric in score.values:
                by_seed = found.setdefault((score.unit, score.case), {})
                by_seed.setdefault(score.seed, []).append(score.values[metric])
        units: dict[str, list[float]] = {}
        for (unit, _), by_seed in sorted(found.items()):
            if len(by_seed) == len(counted):
                units.setdefault(unit, []).append(float(np.mean([np.mean(own) for own in by_seed.values()])))
        return {unit: float(np.mean(own)) for unit, own in units.items()}

    @cached_property
    def _of(self) -> dict[str, list[Score]]:
        by_model: dict[str, list[Score]] = {}
        for score in self.scores:
            by_model.setdefault(score.model, []).append(score)
        return by_model

    @cached_property
    def _has(self) -> list[set[str]]:
        return [{score.structure for score in own} for own in self._of.values()]
