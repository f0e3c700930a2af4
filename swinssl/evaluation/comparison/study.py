"""A whole comparison of models: each setting of a table, what they agree on, and how fast trainings converge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from swinssl.core.errors import UserError
from swinssl.core.text import did_you_mean, listed
from swinssl.evaluation.comparison.convergence import TrainingCurve
from swinssl.evaluation.comparison.expected_order import ExpectedOrder, OrderAgreement, agreement_with
from swinssl.evaluation.comparison.model_comparison import ALL, ModelComparison, compare_models
from swinssl.evaluation.comparison.organ_groups import groups_within
from swinssl.evaluation.comparison.score_table import ScoreTable
from swinssl.evaluation.statistics.rankings import rank_correlation, score_matrix
from swinssl.metrics.registry import DICE


@dataclass(frozen=True)
class RankAgreement:
    """Spearman's rho of the orders of models in two settings, with its 95 % interval."""

    first: str
    second: str
    rho: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class ModelStudy:
    """What swinssl_compare found.

    Args:
        settings: a comparison by the name of its setting; the name of a single one is empty.
        agreements: of each two settings that have three models in common.
        expected: by setting, what it says about an order that was expected; those that have two of its models.
        curves: of training runs.
    """

    settings: dict[str, ModelComparison]
    agreements: tuple[RankAgreement, ...] = ()
    expected: dict[str, OrderAgreement] = field(default_factory=dict)
    curves: tuple[TrainingCurve, ...] = ()

    @property
    def metric(self) -> str:
        return next(iter(self.settings.values())).metric


def make_study(
    table: ScoreTable,
    *,
    named: Sequence[str] = (),
    reference: str | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    metric: str = DICE,
    paired: bool = True,
    expected: ExpectedOrder | None = None,
    curves: Sequence[TrainingCurve] = (),
) -> ModelStudy:
    """Compare the models of a table in each of its settings; arguments and errors as of `compare_models`.

    A comparison that was named counts in the settings that have both models, and the structure if one was named; one
    that fits nowhere is an error. Settings with a single model are left out, if there are others.

    Args:
        expected: an order of the models that others found.
        curves: of training runs.

    Raises:
        UserError: the expected order names a model that no setting has.
    """
    for name in expected.models if expected is not None else ():
        if name not in table.models:
            raise UserError(
                f"the expected order: no model {name!r}. {did_you_mean(name, table.models)}Have {listed(table.models)}."
            )
    parts = {name: part for name, part in table.settings.items() if len(part.models) > 1} or table.settings
    fitting = {name: [one for one in named if _fits(one, part, groups or {})] for name, part in parts.items()}
    nowhere = [one for one in named if not any(one in own for own in fitting.values())]
    known = any(reference in part.models for part in parts.values())
    settings = {
        name: compare_models(
            part,
            named=[*nowhere, *fitting[name]],
            reference=reference if reference in part.models or not known else None,
            groups=groups,
            metric=metric,
            paired=paired,
        )
        for name, part in parts.items()
    }
    matrices = {name: score_matrix(part, metric=metric) for name, part in parts.items()} if paired else {}
    agreements = [
        RankAgreement(first, second, *found)
        for first, second in combinations(matrices, 2)
        if (found := rank_correlation(matrices[first], matrices[second])) is not None
    ]
    agreeing = _agreeing(parts, expected, metric) if expected is not None and paired else {}
    return ModelStudy(settings, tuple(agreements), agreeing, tuple(curves))


def _agreeing(parts: Mapping[str, ScoreTable], expected: ExpectedOrder, metric: str) -> dict[str, OrderAgreement]:
    """By setting; a model that the order does not name takes no seeds and no patients away."""
    found = {}
    for name, part in parts.items():
        own = ScoreTable(tuple(score for score in part.scores if score.model in expected.models))
        if own.scores and (one := agreement_with(expected, score_matrix(own, metric=metric))) is not None:
            found[name] = one
    return found


def _fits(named: str, table: ScoreTable, groups: Mapping[str, Sequence[str]]) -> bool:
    models, scope = named.split(":")[:2], named.split(":")[2:]
    known = {ALL, *table.structures, *groups_within(groups, table.structures)}
    return len(models) == 2 and all(model in table.models for model in models) and known.issuperset(scope)
