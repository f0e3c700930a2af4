"""The table of transfer.py: what each init comes to on the test cases, and which differences are more than chance.

A seed is a draw of the training cases, and draws are what a claim about pretraining rests on: a goal counts with five
of them, and where the interval over draws and test cases leaves 0 out. The paired test is for these trainings alone.
There a pair is a test case: its Dice averaged over structures and over the seeds that both sides have. Two comparisons
were named before anything ran, and their p stands as it is; the other inits' with scratch are corrected by Holm.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from transfer_rows import Row, scores_of
from transfer_study import RESENC, SCRATCH, ZEROED

from swinssl.evaluation.comparison.paired_comparison import SIGNIFICANT, Compared, compare_pairs, signed_with_interval
from swinssl.evaluation.comparison.score_table import ScoreTable
from swinssl.evaluation.statistics.bootstrap import ENOUGH_DRAWS
from swinssl.evaluation.statistics.paired_tests import holm
from swinssl.experiments.peers.nnunet_side import PEER_PLANS

SMIT, NNUNET = "smit", "nnunet"
NAMED = ((SMIT, SCRATCH), (SMIT, NNUNET))
# Below this mean Dice from scratch nothing was learnt that pretraining could improve upon.
FLOOR = 0.4
FEWEST_PAIRS = 16
GAIN = 0.03
NOTHING = "-"


def make_table(rows: Sequence[Row], *, title: str, facts: Sequence[str] = ()) -> str:
    """The whole text, as Markdown.

    Args:
        facts: sentences about the data and the runs, before the table.
    """
    inits = list(dict.fromkeys(row.init for row in rows))
    if not inits:
        return "\n".join([f"## {title}", "", *facts, "", "No cell is done.", ""])
    scores = scores_of(rows)
    compared = {init: c for init in inits if init != SCRATCH and (c := compare_pairs(scores, init, SCRATCH))}
    floor = _mean(scores, SCRATCH)
    counts = floor is not None and floor >= FLOOR
    p = _p_values(compared) if counts else {}
    structures = list(rows[0].dice)
    runs = {init: {row.seed: row for row in rows if row.init == init}.values() for init in inits}
    head = ["init", "seeds", "steps", "minutes", *structures, "mean (SD)", "- scratch, over draws [95 %]"]
    head += ["- scratch", "typical [95 %]", "p", "pairs"]
    lines = [f"## {title}", "", *facts, "", _line(head), _line(["---"] * len(head))]
    lines += [_line(_cells(scores, init, [*runs[init]], compared.get(init), p.get(init, NOTHING))) for init in inits]
    notes = [
        "Mean over structures, SD over test cases; each case averaged over seeds. Over draws: two-way bootstrap of "
        "draws of training cases (seeds) and test cases, uncorrected. For these trainings alone: typical, the "
        "Hodges-Lehmann estimate of the difference with its interval from resampling test cases; p, Wilcoxon's signed "
        f"ranks over test cases, exact. {SMIT} was named in advance, the others are corrected by Holm.",
        "HD95 and far false positives: not kept.",
        *_about_scratch(floor),
        *_about_pairs(list(compared.values())),
        *_goals(scores, inits, counts=counts),
    ]
    return "\n".join([*lines, "", *(f"- {note}" for note in notes), ""])


def _mean(scores: ScoreTable, init: str) -> float | None:
    own = scores.unit_means(init)
    return float(np.mean(list(own.values()))) if own else None


def _p_values(compared: dict[str, Compared]) -> dict[str, str]:
    """What stands in the column, by init."""
    named = {first for first, second in NAMED if second == SCRATCH}
    others = [init for init in compared if init not in named]
    corrected = dict(zip(others, holm([compared[init].p for init in others]), strict=True))
    return {init: f"{corrected.get(init, own.p):.2g}" for init, own in compared.items()}


def _cells(scores: ScoreTable, init: str, runs: Sequence[Row], against: Compared | None, p: str) -> list[str]:
    """The line of an init; `runs` has a row of each."""
    means = list(scores.unit_means(init).values())
    spread = f" ({np.std(means, ddof=1):.3f})" if len(means) > 1 else ""
    by_structure = [list(scores.unit_means(init, structures=[name]).values()) for name in scores.structures]
    return [
        init,
        str(len(runs)),
        f"{np.mean([run.steps for run in runs]):.0f}",
        f"{np.mean([run.minutes for run in runs]):.1f}",
        *(f"{np.mean(values):.3f}" if values else NOTHING for values in by_structure),
        f"{np.mean(means):.3f}{spread}" if means else NOTHING,
        NOTHING if against is None or against.over_draws is None else signed_with_interval(*against.headline),
        *([NOTHING] * 2 if against is None else [f"{against.mean:+.3f}", against.typical]),
        p,
        NOTHING if against is None else str(against.n),
    ]


def _about_scratch(floor: float | None) -> list[str]:
    if floor is None:
        return [f"{SCRATCH} is not done: there is nothing to compare with."]
    if floor < FLOOR:
        return [
            f"No comparison counts: {SCRATCH} is at {floor:.3f}, under the floor of {FLOOR:g}. Train for more steps."
        ]
    return []


def _about_pairs(compared: Sequence[Compared]) -> list[str]:
    """Where there are too few pairs, or different seeds, and what could be seen with those that there are."""
    lines = []
    if compared and (fewest := min(one.n for one in compared)) < FEWEST_PAIRS:
        lines.append(f"Too few pairs: {fewest}, where {FEWEST_PAIRS} were asked for.")
        smallest = max(one.smallest_p for one in compared)
        if smallest >= SIGNIFICANT:
            lines[-1] += f" With {fewest} no p can fall below {smallest:.2g}, whatever the differences."
    if len({one.seeds for one in compared}) > 1:
        seeds = "; ".join(f"{one.first} {', '.join(one.seeds)}" for one in compared)
        lines.append(f"Not all seeds are done; differences are over the seeds in common with {SCRATCH}: {seeds}.")
    shown = next((one for one in compared if one.first == SMIT), None)
    if shown is not None and shown.detectable is not None:
        lines.append(
            f"{SMIT} against {SCRATCH}: {shown.n} pairs that scatter like these show a mean difference "
            f"of {shown.detectable:.3f} four times in five; a smaller one may well stay unseen."
        )
    return lines


def _goals(scores: ScoreTable, inits: Sequence[str], *, counts: bool) -> list[str]:
    lines = []
    for first, second in NAMED:
        one = compare_pairs(scores, first, second)
        named = f"Named in advance, {first} against {second}"
        if one is None:
            lines.append(f"{named}: not run.")
        elif not counts:
            lines.append(f"{named}: {one.mean:+.3f}, which does not count.")
        elif not _is_above_floor(scores, second):
            lines.append(f"{named}: does not count. {_under_floor(scores, second)}")
        else:
            over = ""
            if one.over_draws is not None:
                over = f"{signed_with_interval(*one.headline)} over {one.over_draws.draws} draws; "
            lines.append(
                f"{named}: {over}for these trainings {one.mean:+.3f}, typically {one.typical}, p {one.p:.2g}, "
                f"{one.n} pairs."
            )
            if second == SCRATCH:
                lines.append(f"Goal, {first} - {second} >= {GAIN:g} over {ENOUGH_DRAWS} draws: {_judged(one)}.")
    ours = [init for init in inits if init not in (*PEER_PLANS, ZEROED, RESENC)]
    for peer in (init for init in inits if init in PEER_PLANS):
        if not _is_above_floor(scores, peer):
            if (SMIT, peer) not in NAMED or SMIT not in inits:
                lines.append(_under_floor(scores, peer))
            continue
        leads = [one for init in ours if (one := compare_pairs(scores, init, peer))]
        if leads and counts:
            best = max(leads, key=lambda one: one.mean)
            lines.append(
                f"Best of ours against {peer}, per minute at this budget: {best.first}, {best.mean:+.3f}, typically "
                f"{best.typical}; chosen by the test cases, so without p."
            )
    return lines


def _judged(one: Compared) -> str:
    """Whether the gain that was asked for is there, and no chance of the draws."""
    draws = len(one.by_draw)
    if draws < ENOUGH_DRAWS:
        return f"not judged, with {draws} of them"
    return "reached" if one.is_shown and one.headline[0] >= GAIN else "not reached"


def _is_above_floor(scores: ScoreTable, init: str) -> bool:
    mean = _mean(scores, init)
    return mean is not None and mean >= FLOOR


def _under_floor(scores: ScoreTable, init: str) -> str:
    return (
        f"{init} is at {_mean(scores, init):.3f}, under the floor of {FLOOR:g}: how slowly it steps here, which is no "
        "comparison of accuracy."
    )


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
