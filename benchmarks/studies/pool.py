"""Pool the draws of several studies: differences from scratch over all draws of training cases and all test cases.

    python benchmarks/studies/pool.py organs_few_labels miniature --shots 5    # writes pooled.md of the first study

The studies must have the same data set, network and number of steps, and other training cases in each draw. They are
pooled as swinssl_compare pools seeds: by a two-way bootstrap of draws and test cases.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from swinssl.core import files
from swinssl.evaluation.comparison.paired_comparison import Compared, compare_pairs, signed_with_interval
from swinssl.evaluation.comparison.score_files import read_scores
from swinssl.evaluation.comparison.score_table import ScoreTable
from swinssl.experiments.benchmark.result_tables import SCORES_TABLE

STUDIES = Path(__file__).resolve().parent
TEXT_FILE = "pooled.md"


def main() -> None:
    """Write the pooled estimates as Markdown and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="+", help="folders of benchmarks/studies")
    parser.add_argument("--shots", default="5", help="training cases; default: %(default)s")
    parser.add_argument("--baseline", default="scratch", help="the model to compare with; default: %(default)s")
    parser.add_argument("--models", nargs="+", default=["smit", "simmim", "rotation"], help="default: %(default)s")
    given = parser.parse_args()
    scores = pooled_scores(given.studies, shots=given.shots, models=[given.baseline, *given.models])
    text = make_text(scores, given.studies, shots=given.shots, baseline=given.baseline, models=given.models)
    files.write_text(STUDIES / given.studies[0] / TEXT_FILE, text)
    print(text)


def pooled_scores(studies: Sequence[str], *, shots: str, models: Sequence[str]) -> ScoreTable:
    """The scores of all draws in the order of the studies; seed `1.2` is seed 2 of the second study."""
    scores = []
    for number, study in enumerate(studies):
        table = read_scores([str(STUDIES / study / SCORES_TABLE)])
        scores += [
            replace(score, seed=f"{number}.{score.seed}", task="", modality="", shots="")
            for score in table.scores
            if score.model in models and score.shots == shots
        ]
    return ScoreTable(tuple(scores))


def make_text(scores: ScoreTable, studies: Sequence[str], *, shots: str, baseline: str, models: Sequence[str]) -> str:
    """The estimates as Markdown."""
    draws = ", ".join(
        f"{studies[int(number)]} {seed}" for number, _, seed in (name.partition(".") for name in draws_of(scores))
    )
    lines = [
        f"# {shots} labelled cases: all draws of {' and '.join(studies)}",
        "",
        f"| model minus {baseline} | over draws and test cases [95 %] | draws | by draw ({draws}) |",
        "| --- | --- | --- | --- |",
    ]
    for model in models:
        compared = compare_pairs(scores, model, baseline)
        assert compared is not None and compared.over_draws is not None
        by_draw = ", ".join(f"{mean:+.3f}" for mean in means_by_draw(scores, compared))
        over_draws = compared.over_draws
        interval = signed_with_interval(*compared.headline) + ("" if over_draws.excludes_zero else ": not shown")
        lines.append(f"| {model} | {interval} | {over_draws.draws} | {by_draw} |")
    lines += [
        "",
        "Mean Dice over structures. Two-way bootstrap of draws of training cases and test cases; the intervals are not "
        "corrected for their number.",
        "",
    ]
    return "\n".join(lines)


def draws_of(scores: ScoreTable) -> tuple[str, ...]:
    """The draws in the order of the studies."""
    return tuple(scores.distinct(lambda score: score.seed))


def means_by_draw(scores: ScoreTable, compared: Compared) -> list[float]:
    """The mean difference of each draw, in the order of the studies."""
    differences = dict(zip(compared.seeds, compared.by_draw, strict=True))
    means = []
    for seed in draws_of(scores):
        values = [value for value in differences.get(seed, ()) if value == value]
        means += [sum(values) / len(values)] if values else []
    return means


if __name__ == "__main__":
    main()
