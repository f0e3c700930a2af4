"""A whole comparison of models: each setting of a table, what they agree on, and how fast trainings converge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from swinssl.evaluation.convergence import TrainingCurve
from swinssl.evaluation.model_comparison import ModelComparison, compare_models
from swinssl.evaluation.rankings import rank_correlation, standing
from swinssl.evaluation.score_table import DICE, ScoreTable


@dataclass(frozen=True)
class RankAgreement:
    """Spearman's rho of the orders of models in two settings, with its 95 % interval."""

    first: str
    second: str
    rho: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Study:
    """What swinssl_compare found.

    Args:
        settings: a comparison by the name of its setting; the name of a single one is empty.
        agreements: of each two settings that have three models in common.
        curves: of training runs.
    """

    settings: dict[str, ModelComparison]
    agreements: tuple[RankAgreement, ...] = ()
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
    curves: Sequence[TrainingCurve] = (),
) -> Study:
    """Compare the models of a table in each of its settings; arguments and errors as of `compare_models`."""
    settings = {
        name: compare_models(
            part, named=_within(named, part, table), reference=reference, groups=groups, metric=metric, paired=paired
        )
        for name, part in table.settings.items()
    }
    standings = {name: standing(part, metric=metric) for name, part in table.settings.items()} if paired else {}
    agreements = [
        RankAgreement(first, second, *found)
        for first, second in combinations(standings, 2)
        if (found := rank_correlation(standings[first], standings[second])) is not None
    ]
    return Study(settings, tuple(agreements), tuple(curves))


def _within(named: Sequence[str], part: ScoreTable, table: ScoreTable) -> list[str]:
    """The named comparisons without those of a model that only other settings have."""
    elsewhere = set(table.models) - set(part.models)
    return [one for one in named if not elsewhere & set(one.split(":")[:2])]
