"""The files of a comparison of models: `comparison.json` with everything, `comparison.csv` a row a comparison,
`comparison.md` to read.

JSON is strict: what is undefined is null, in CSV an empty field.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swinssl.core import files
from swinssl.core.provenance import __version__
from swinssl.core.text import counted, csv_text, markdown_cell
from swinssl.evaluation.comparison.convergence import SHARE
from swinssl.evaluation.comparison.expected_order import OrderAgreement
from swinssl.evaluation.comparison.model_comparison import ModelComparison, ModelScores, PairwiseTest
from swinssl.evaluation.comparison.paired_comparison import SIGNIFICANT, signed_with_interval
from swinssl.evaluation.comparison.study import ModelStudy
from swinssl.evaluation.statistics.bootstrap import ENOUGH_DRAWS, LEVEL, RESAMPLES
from swinssl.metrics.registry import DICE, lower_is_better

JSON_FILE, CSV_FILE, TEXT_FILE = "comparison.json", "comparison.csv", "comparison.md"
VERSION = 1
NOTHING = "-"
HALF = 0.5
# A model below this mean Dice has hardly begun to learn: a difference from it tells no two models apart.
LEAST_DICE = 0.1


def write_files(study: ModelStudy, folder: Path) -> None:
    """Write the three files into a folder."""
    files.write_json(folder / JSON_FILE, report(study))
    files.write_text(folder / CSV_FILE, tests_csv(study))
    files.write_text(folder / TEXT_FILE, text(study))


def report(study: ModelStudy) -> dict[str, Any]:
    """The content of `comparison.json`; docs/analysis.md describes its keys."""
    return {
        "version": VERSION,
        "swinssl": __version__,
        "metric": study.metric,
        "less_is_better": lower_is_better(study.metric),
        "interval": {"level": LEVEL, "method": "BCa bootstrap of patients", "resamples": RESAMPLES},
        "interval_over_draws": {
            "level": LEVEL,
            "method": "two-way bootstrap of draws (seeds) and patients",
            "resamples": RESAMPLES,
            "draws_of_a_headline": ENOUGH_DRAWS,
        },
        "settings": {name: _setting(one) for name, one in study.settings.items()},
        "rank_agreements": [
            {"first": one.first, "second": one.second, "spearman_rho": one.rho, "interval": _ends(one.interval)}
            for one in study.agreements
        ],
        "expected_order": {name: _agreement(one) for name, one in study.expected.items()},
        "convergence": [
            {
                "model": curve.model,
                "final_validation_score": curve.scores[-1][1] if curve.scores else None,
                "share": SHARE,
                "steps": curve.steps_to_converge,
            }
            for curve in study.curves
        ],
    }


def tests_csv(study: ModelStudy) -> str:
    """One row a comparison, every number in its column."""
    return csv_text(
        {"setting": name, "metric": one.metric, **_flat(pairwise)}
        for name, one in study.settings.items()
        for pairwise in one.tests
    )


def text(study: ModelStudy) -> str:
    """The whole comparison as Markdown: what was found, then tables."""
    lines = [f"# Comparison of models: {study.metric}", "", *(f"- {line}" for line in summary(study)), ""]
    for name, one in study.settings.items():
        if name:
            lines += [f"## {name}", ""]
        lines += [*_scores_table(one), "", *_tests_table(one), "", *(f"- {note}" for note in one.notes), ""]
    if study.agreements:
        lines += ["## Do settings put the models in one order?", "", *_line_up(["first", "second", "Spearman's rho"])]
        for agreement in study.agreements:
            lines.append(_line([agreement.first, agreement.second, _rho(agreement.rho, agreement.interval)]))
        lines.append("")
    if study.expected:
        lines += [
            "## Is it the order that was expected?",
            "",
            *_line_up(["in", "better", "worse", "how probable here"]),
        ]
        for name, found in study.expected.items():
            lines += [
                _line([name or NOTHING, pair.better, pair.worse, f"{pair.probability:.2f}"]) for pair in found.pairs
            ]
        lines += ["", *(f"- {line}" for line in _expected(study)), ""]
    if study.curves:
        lines += ["## Convergence", "", *_line_up(["model", "last validation Dice", f"steps to {SHARE:.0%} of it"])]
        for curve in study.curves:
            last = f"{curve.scores[-1][1]:.3f}" if curve.scores else NOTHING
            lines.append(_line([curve.model, last, str(curve.steps_to_converge or NOTHING)]))
        lines.append("")
    lines += [_how(study), ""]
    return "\n".join(lines)


def summary(study: ModelStudy) -> list[str]:
    """What was found, a sentence each, numbers first: named comparisons, the best model, its order, who is alike."""
    lines = []
    for name, one in study.settings.items():
        where = f"{name}: " if name else ""
        lines += [f"{where}{_sentence(pairwise, one)}" for pairwise in one.tests if pairwise.prespecified]
        lines.append(f"{where}{_best(one)}")
        others = [c for c in one.tests if c.scope.is_all and not c.prespecified]
        if others:
            clear = sum(c.p < SIGNIFICANT for c in others)
            lines.append(
                f"{where}{clear} of {counted(len(others), 'other comparison')} of means differ for these trainings, "
                "after Holm's correction."
            )
        if one.ranking is not None:
            lines.append(f"{where}{_ranks(one)}")
    return lines + _expected(study)


def _sentence(pairwise: PairwiseTest, whole: ModelComparison) -> str:
    """Over draws first, where there are several; what the patients say of these trainings after it."""
    one, over = pairwise.compared, pairwise.compared.over_draws
    scope = "" if pairwise.scope.is_all else f" of {pairwise.scope.name}"
    what = f"{whole.metric}{scope}, {one.first} minus {one.second}"
    test = f"p {one.p:.2g} ({_test(one.paired)}), {_patients(pairwise)}"
    if over is None:
        verdict = _hardly_learnt(pairwise, whole) or "no difference shown"
        if pairwise.p < SIGNIFICANT and not _hardly_learnt(pairwise, whole):
            verdict = f"{_better(pairwise, whole, one.effect)}, as these were trained"
        limits = "" if one.paired else " Different patients."
        return (
            f"{one.mean:+.3f} {what}, for these trainings (typically {one.typical}, {test}; named in advance): "
            f"{verdict}. One draw of training cases says nothing about other draws.{limits}"
        )
    return (
        f"{signed_with_interval(*one.headline)} {what} ({_draws(pairwise)}, two-way bootstrap; named in advance): "
        f"{_verdict(pairwise, whole)}. For these trainings: typically {one.typical}, {test}."
    )


def _verdict(pairwise: PairwiseTest, whole: ModelComparison) -> str:
    """What several draws show."""
    over = pairwise.compared.over_draws
    assert over is not None
    if nothing := _hardly_learnt(pairwise, whole):
        return nothing
    if not over.excludes_zero:
        few = f", by {over.draws} draws where {ENOUGH_DRAWS} are needed" if over.draws < ENOUGH_DRAWS else ""
        return f"not shown{few}"
    better = _better(pairwise, whole, over.mean)
    if over.draws < ENOUGH_DRAWS:
        return f"{better} in these draws; a headline needs {ENOUGH_DRAWS} draws, so this is not shown yet"
    return better


def _hardly_learnt(pairwise: PairwiseTest, whole: ModelComparison) -> str:
    """Why the two are not to be compared; empty where they may be."""
    one = pairwise.compared
    worst, model = min(zip(one.means, (one.first, one.second), strict=True))
    if whole.metric != DICE or worst >= LEAST_DICE:
        return ""
    return f"not a comparison, since {model} has hardly learnt the task (mean Dice {worst:.3f})"


def _better(pairwise: PairwiseTest, whole: ModelComparison, difference: float) -> str:
    one = pairwise.compared
    first_is_better = (difference > 0) != lower_is_better(whole.metric)
    return "{} is better than {}".format(*((one.first, one.second)[:: 1 if first_is_better else -1]))


def _draws(pairwise: PairwiseTest) -> str:
    over = pairwise.compared.over_draws
    return NOTHING if over is None else f"{over.draws} draws of training cases, {counted(over.cases, 'patient')}"


def _test(paired: bool) -> str:
    return "Wilcoxon" if paired else "Mann-Whitney"


def _best(one: ModelComparison) -> str:
    scored = [(score.mean, score.model) for score in one.of_scope(one.scopes[0]) if score.mean is not None]
    if not scored:
        return "no model has a score."
    pick = min if lower_is_better(one.metric) else max
    mean, model = pick(scored, key=lambda entry: entry[0])
    line = f"{mean:.3f} is the best mean {one.metric}: {model}"
    if one.orders is None or len(one.models) < 2:
        return f"{line}."
    row = one.orders[one.models.index(model)]
    rivals = [(row[i], other) for i, other in enumerate(one.models) if other != model and math.isfinite(row[i])]
    if not rivals:
        return f"{line}."
    share, rival = min(rivals)
    return f"{line}; in {share:.0%} of resamples of the patients it is above {rival}, its closest rival there."


def _ranks(one: ModelComparison) -> str:
    ranking = one.ranking
    assert ranking is not None
    if ranking.forbidden is not None:
        return f"No critical difference of ranks: {ranking.forbidden}."
    alike = "; ".join(", ".join(clique) for clique in ranking.cliques)
    return (
        f"{ranking.difference:.2f} is the critical difference of average ranks (Nemenyi, {ranking.patients} patients); "
        + (f"not told apart: {alike}." if alike else "all models are told apart.")
    )


def _expected(study: ModelStudy) -> list[str]:
    """A sentence a setting on the order that was expected."""
    lines = []
    for name, found in study.expected.items():
        where = f"{name}: " if name else ""
        held = sum(pair.probability > HALF for pair in found.pairs)
        line = f"{where}{held} of {counted(len(found.pairs), 'pair')} stand in the expected order ({found.expected})"
        if found.rho is not None:
            line += f"; Spearman's rho with it {_rho(found.rho, found.interval)}"
        weakest = min(found.pairs, key=lambda pair: pair.probability)
        lines.append(
            f"{line}. The least probable here: {weakest.better} above {weakest.worse}, {weakest.probability:.0%}."
        )
    return lines


# --- tables


def _scores_table(one: ModelComparison) -> list[str]:
    """A row a model: mean and SD of every scope, and the gap of the first."""
    lines = _line_up(
        ["model", "seeds", "patients", *(scope.name for scope in one.scopes), "gap to the best, %", "rank"]
    )
    ranks = dict(zip(one.ranking.models, one.ranking.ranks, strict=True)) if one.ranking else {}
    for number, model in enumerate(one.models):
        own = [one.of_scope(scope)[number] for scope in one.scopes]
        gap = NOTHING if own[0].gap is None else f"{own[0].gap:.1f}"
        rank = ranks.get(model, math.nan)
        cells = [model, str(len(own[0].seeds)), str(len(own[0].values)), *map(_mean_sd, own), gap]
        lines.append(_line([*cells, f"{rank:.2f}" if math.isfinite(rank) else NOTHING]))
    return lines


def _tests_table(one: ModelComparison) -> list[str]:
    these = "for these trainings: "
    head = ["of", "first", "second", "over draws [95 %]", "draws", f"{these}first - second", "typical [95 %]"]
    head += [f"{these}p ({_test(one.paired)})", "p, Holm", "patients"]
    lines = _line_up(head)
    for pairwise in one.tests:
        own = pairwise.compared
        corrected = "named" if pairwise.corrected is None else f"{pairwise.corrected:.2g}"
        over = NOTHING if own.over_draws is None else signed_with_interval(*own.headline)
        cells = [pairwise.scope.name, own.first, own.second, over, str(len(own.by_draw) or NOTHING)]
        cells += [f"{own.mean:+.3f}", own.typical, f"{own.p:.2g}", corrected]
        lines.append(_line([*cells, _patients(pairwise)]))
    return lines


def _how(study: ModelStudy) -> str:
    paired = all(one.paired for one in study.settings.values())
    test = "Wilcoxon's signed ranks, exact" if paired else "Mann and Whitney's test of different patients"
    return (
        "Means (SD) are over patients, each averaged over structures and seeds. Over draws: mean difference with its "
        "interval for other training cases and other patients, by a two-way bootstrap of draws (seeds) and patients, "
        f"uncorrected; with fewer than {ENOUGH_DRAWS} draws it is no headline, and an interval that includes 0 shows "
        "nothing. All else is for these trainings alone. Typical: Hodges-Lehmann estimate, interval from resampling "
        f"patients. p: {test}; named comparisons as they are, the other means corrected by Holm together, and all "
        "other structures together. What the numbers mean: docs/analysis.md."
    )


def _mean_sd(one: ModelScores) -> str:
    if one.mean is None:
        return NOTHING
    return f"{one.mean:.3f}" + ("" if one.spread is None else f" ({one.spread:.3f})")


def _rho(rho: float, interval: tuple[float, float] | None) -> str:
    return f"{rho:.2f}" + ("" if interval is None else f" [{interval[0]:.2f}, {interval[1]:.2f}]")


def _patients(pairwise: PairwiseTest) -> str:
    one = pairwise.compared
    return counted(one.n, "pair") if one.paired else f"{len(one.first_values)} and {len(one.second_values)} patients"


def _line_up(cells: Sequence[str]) -> list[str]:
    return [_line(cells), _line(["---"] * len(cells))]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(markdown_cell, cells))} |"


# --- JSON


def _setting(one: ModelComparison) -> dict[str, Any]:
    ranking = one.ranking
    return {
        "paired": one.paired,
        "models": list(one.models),
        "scores": [
            {
                "model": score.model,
                "scope": score.scope.name,
                "seeds": list(score.seeds),
                "n": len(score.values),
                "mean": score.mean,
                "sd": score.spread,
                "gap_percent": score.gap,
                "patients": score.values,
            }
            for score in one.scores
        ],
        "scopes": {scope.name: list(scope.structures) for scope in one.scopes},
        "comparisons": [_flat(pairwise) for pairwise in one.tests],
        "critical_difference": None
        if ranking is None
        else {
            "average_ranks": {m: _number(r) for m, r in zip(ranking.models, ranking.ranks, strict=True)},
            "patients": ranking.patients,
            "friedman_p": ranking.p,
            "difference": ranking.difference,
            "not_told_apart": [list(clique) for clique in ranking.cliques],
            "not_permitted": ranking.forbidden,
        },
        "order_probabilities": None
        if one.orders is None
        else {
            row: {column: _number(one.orders[i, j]) for j, column in enumerate(one.models) if i != j}
            for i, row in enumerate(one.models)
        },
        "notes": list(one.notes),
    }


def _agreement(one: OrderAgreement) -> dict[str, Any]:
    return {
        "order": str(one.expected),
        "pairs": [{"better": p.better, "worse": p.worse, "probability": _number(p.probability)} for p in one.pairs],
        "spearman_rho": one.rho,
        "interval": _ends(one.interval),
    }


def _flat(pairwise: PairwiseTest) -> dict[str, Any]:
    one = pairwise.compared
    low, high = one.interval or (None, None)
    over = one.over_draws
    draws_low, draws_high = over.interval if over else (None, None)
    return {
        "scope": pairwise.scope.name,
        "first": one.first,
        "second": one.second,
        "named": pairwise.prespecified,
        "test": "wilcoxon" if one.paired else "mann-whitney",
        "seeds": " ".join(one.seeds),
        "n_first": len(one.first_values),
        "n_second": len(one.second_values),
        "draws": len(one.by_draw) or None,
        "over_draws": over.mean if over else None,
        "over_draws_low": draws_low,
        "over_draws_high": draws_high,
        "shown": one.is_shown,
        "mean_first": one.means[0],
        "mean_second": one.means[1],
        "difference": one.mean,
        "hodges_lehmann": one.effect,
        "low": low,
        "high": high,
        "p": one.p,
        "p_holm": pairwise.corrected,
        "smallest_p": one.smallest_p,
        "detectable": one.detectable,
    }


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _ends(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else list(interval)
