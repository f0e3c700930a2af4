"""The table of transfer.py: what each init comes to on the test cases, and which differences are more than chance.

A pair is a test case: its Dice averaged over structures and over the seeds that both sides have. Two comparisons were
named before anything ran, and their p stands as it is; those of the other inits with scratch are corrected by Holm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from transfer_rows import Row
from transfer_study import PEERS, RESENC, SCRATCH, ZEROED

from swinssl.evaluation.paired_tests import hodges_lehmann, hodges_lehmann_interval, holm, paired_wilcoxon, smallest_p

SMIT, NNUNET = "smit", "nnunet"
NAMED = ((SMIT, SCRATCH), (SMIT, NNUNET))
# Below this mean Dice from scratch nothing was learnt that pretraining could improve upon.
FLOOR = 0.4
FEWEST_PAIRS = 16
SIGNIFICANT = 0.05
GAIN, LEAD = 0.03, 0.02
# A difference is found four times in five where it is so many standard errors large: 1.96 + 0.84.
DETECTED = 2.8
NOTHING = "-"


@dataclass(frozen=True)
class Comparison:
    """Dice of `first` less that of `second`.

    Args:
        seeds: that both have.
        differences: of the test cases.
    """

    first: str
    second: str
    seeds: tuple[int, ...]
    differences: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.differences))

    @property
    def p(self) -> float:
        return paired_wilcoxon(self.differences)

    @property
    def detectable(self) -> float | None:
        """The smallest mean difference that as many such pairs show four times in five; None for one pair."""
        n = len(self.differences)
        return DETECTED * float(np.std(self.differences, ddof=1)) / n**0.5 if n > 1 else None

    @property
    def typical(self) -> str:
        """The Hodges-Lehmann estimate with its interval."""
        interval = hodges_lehmann_interval(self.differences)
        ends = "" if interval is None else f" [{interval[0]:+.3f}, {interval[1]:+.3f}]"
        return f"{hodges_lehmann(self.differences):+.3f}{ends}"


def compare(rows: Sequence[Row], first: str, second: str) -> Comparison | None:
    """None where they have no seed and no case in common."""
    seeds = tuple(sorted({r.seed for r in rows if r.init == first} & {r.seed for r in rows if r.init == second}))
    here, there = (case_means(rows, init, seeds) for init in (first, second))
    pairs = tuple(here[case] - there[case] for case in here if case in there)
    return Comparison(first, second, seeds, pairs) if pairs else None


def case_means(
    rows: Sequence[Row], init: str, seeds: Sequence[int], score: Callable[[Row], float | None] = lambda row: row.mean
) -> dict[str, float]:
    """By test case, the mean over these seeds; a case that lacks one of them is left out."""
    by_case: dict[str, list[float]] = {}
    for row in rows:
        value = score(row)
        if row.init == init and row.seed in seeds and value is not None:
            by_case.setdefault(row.case, []).append(value)
    return {case: float(np.mean(own)) for case, own in sorted(by_case.items()) if len(own) == len(seeds)}


def make_table(rows: Sequence[Row], *, title: str, facts: Sequence[str] = ()) -> str:
    """The whole text, as Markdown.

    Args:
        facts: sentences about the data and the runs, before the table.
    """
    inits = list(dict.fromkeys(row.init for row in rows))
    if not inits:
        return "\n".join([f"## {title}", "", *facts, "", "No cell is done.", ""])
    compared = {init: c for init in inits if init != SCRATCH and (c := compare(rows, init, SCRATCH))}
    floor = _mean(rows, SCRATCH)
    counts = floor is not None and floor >= FLOOR
    p = _p_values(compared) if counts else {}
    structures = list(rows[0].dice)
    head = ["init", "seeds", "steps", "minutes", *structures, "mean (SD)", "- scratch", "typical [95 %]", "p", "pairs"]
    lines = [f"## {title}", "", *facts, "", _line(head), _line(["---"] * len(head))]
    lines += [_line(_cells(rows, init, structures, compared.get(init), p.get(init, NOTHING))) for init in inits]
    notes = [
        "Mean over structures, SD over test cases; each case averaged over seeds. Typical: Hodges-Lehmann estimate of "
        "the difference, interval from resampling test cases. p: Wilcoxon's signed ranks over test cases, exact; "
        f"{SMIT} was named in advance, the others are corrected by Holm.",
        *_about_scratch(floor),
        *_about_pairs(list(compared.values())),
        *_goals(rows, inits, counts=counts),
    ]
    return "\n".join([*lines, "", *(f"- {note}" for note in notes), ""])


def _mean(rows: Sequence[Row], init: str) -> float | None:
    own = case_means(rows, init, sorted({row.seed for row in rows if row.init == init}))
    return float(np.mean(list(own.values()))) if own else None


def _p_values(compared: dict[str, Comparison]) -> dict[str, str]:
    """What stands in the column, by init."""
    named = {first for first, second in NAMED if second == SCRATCH}
    others = [init for init in compared if init not in named]
    corrected = dict(zip(others, holm([compared[init].p for init in others]), strict=True))
    return {init: f"{corrected.get(init, own.p):.2g}" for init, own in compared.items()}


def _cells(rows: Sequence[Row], init: str, structures: Sequence[str], against: Comparison | None, p: str) -> list[str]:
    own = [row for row in rows if row.init == init]
    seeds = sorted({row.seed for row in own})
    runs = {row.seed: row for row in own}.values()
    means = list(case_means(rows, init, seeds).values())
    spread = f" ({np.std(means, ddof=1):.3f})" if len(means) > 1 else ""
    by_structure = [list(case_means(rows, init, seeds, lambda row, s=s: row.dice[s]).values()) for s in structures]
    return [
        init,
        str(len(seeds)),
        f"{np.mean([run.steps for run in runs]):.0f}",
        f"{np.mean([run.minutes for run in runs]):.1f}",
        *(f"{np.mean(values):.3f}" if values else NOTHING for values in by_structure),
        f"{np.mean(means):.3f}{spread}" if means else NOTHING,
        *([NOTHING] * 2 if against is None else [f"{against.mean:+.3f}", against.typical]),
        p,
        NOTHING if against is None else str(len(against.differences)),
    ]


def _about_scratch(floor: float | None) -> list[str]:
    if floor is None:
        return [f"{SCRATCH} is not done: there is nothing to compare with."]
    if floor < FLOOR:
        return [
            f"No comparison counts: {SCRATCH} is at {floor:.3f}, under the floor of {FLOOR:g}. Train for more steps."
        ]
    return []


def _about_pairs(compared: Sequence[Comparison]) -> list[str]:
    """Where there are too few pairs, or different seeds, and what could be seen with those that there are."""
    lines = []
    if compared and (fewest := min(len(one.differences) for one in compared)) < FEWEST_PAIRS:
        lines.append(f"Too few pairs: {fewest}, where {FEWEST_PAIRS} were asked for.")
        if smallest_p(fewest) >= SIGNIFICANT:
            lines[-1] += f" With {fewest} no p can fall below {smallest_p(fewest):.2g}, whatever the differences."
    if len({one.seeds for one in compared}) > 1:
        seeds = "; ".join(f"{one.first} {', '.join(map(str, one.seeds))}" for one in compared)
        lines.append(f"Not all seeds are done; differences are over the seeds in common with {SCRATCH}: {seeds}.")
    shown = next((one for one in compared if one.first == SMIT), None)
    if shown is not None and shown.detectable is not None:
        lines.append(
            f"{SMIT} against {SCRATCH}: {len(shown.differences)} pairs that scatter like these show a mean difference "
            f"of {shown.detectable:.3f} four times in five; a smaller one may well stay unseen."
        )
    return lines


def _goals(rows: Sequence[Row], inits: Sequence[str], *, counts: bool) -> list[str]:
    lines = []
    for first, second in NAMED:
        one = compare(rows, first, second)
        if one is None:
            lines.append(f"Named in advance, {first} against {second}: not run.")
        elif not counts:
            lines.append(f"Named in advance, {first} against {second}: {one.mean:+.3f}, which does not count.")
        else:
            lines.append(
                f"Named in advance, {first} against {second}: {one.mean:+.3f}, typically {one.typical}, p {one.p:.2g}, "
                f"{len(one.differences)} pairs."
            )
            if second == SCRATCH:
                reached = one.mean >= GAIN and one.p < SIGNIFICANT
                lines.append(f"Goal, {first} - {second} >= {GAIN:g} with p < {SIGNIFICANT:g}: {_said(reached)}.")
    ours = [init for init in inits if init not in (*PEERS, ZEROED, RESENC)]
    for peer in (init for init in inits if init in PEERS):
        leads = [one for init in ours if (one := compare(rows, init, peer))]
        if leads and counts:
            best = max(leads, key=lambda one: one.mean)
            lines.append(
                f"Goal, best of ours >= {peer} + {LEAD:g}: {_said(best.mean >= LEAD)} ({best.first}: {best.mean:+.3f}, "
                f"typically {best.typical}; chosen by the test cases, so without p)."
            )
        if (reached := _mean(rows, peer)) is not None and reached < FLOOR:
            lines.append(
                f"{peer} is at {reached:.3f}, under the floor of {FLOOR:g}: how slowly it steps here, not what "
                "it would reach."
            )
    return lines


def _said(reached: bool) -> str:
    return "reached" if reached else "not reached"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
