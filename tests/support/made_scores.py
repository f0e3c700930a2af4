"""Score tables made by hand or drawn, for comparisons of models."""

from __future__ import annotations

import numpy as np

from swinssl.evaluation.comparison.score_table import Score, ScoreTable

STRUCTURES = ("left", "right")


def table(*scores):
    """From tuples (model, seed, case, structure, Dice or None) and dicts of further fields at their end."""
    made = []
    for model, seed, case, structure, dice, *rest in scores:
        values = {} if dice is None else {"Dice": dice}
        made.append(Score(model, case, structure, values, seed=str(seed), **(rest[0] if rest else {})))
    return ScoreTable(tuple(made))


def drawn(levels, *, cases=20, seeds=(0,), spread=0.02, structures=STRUCTURES, name="case", rng=7, **facts):
    """Models at these levels; each case has a difficulty that all share."""
    hard = np.random.default_rng(99).normal(0, 0.05, cases)
    scores = []
    for number, (model, level) in enumerate(levels.items()):
        own = np.random.default_rng((rng, number))
        scores += [
            Score(
                model,
                f"{name}_{case:02d}",
                structure,
                {
                    "Dice": float(np.clip(level + hard[case] + own.normal(0, spread), 0, 1)),
                    "HD95_mm": own.uniform(1, 9),
                },
                seed=str(seed),
                **facts,
            )
            for seed in seeds
            for case in range(cases)
            for structure in structures
        ]
    return ScoreTable(tuple(scores))
