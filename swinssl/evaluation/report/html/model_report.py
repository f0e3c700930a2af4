"""The parts of a page about one model: what it scores, its test cases, how it was planned, how training went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swinssl.evaluation.report.html.content import Case, Cell, Figure, Section, Table
from swinssl.metrics.registry import DICE, METRICS

if TYPE_CHECKING:
    from swinssl.evaluation.aggregate import Report
    from swinssl.evaluation.results import Evaluation
    from swinssl.preprocessing.plans import Plans

# Inches of the training curve: narrow, so that its letters can be read on a phone.
CURVE_WIDTH = 5.0


def score_tables(report: Report) -> list[Table]:
    """A row per structure; a second table for structures whose connected parts are counted."""
    shown = [metric for metric in METRICS if "page" in metric.shown and metric.name != DICE]
    rows: list[list[Cell]] = []
    lesions: list[list[Cell]] = []
    for one in report.structures:
        dice = one.averages[DICE]
        interval = "" if dice.interval is None else f"{dice.interval[0]:.3f} to {dice.interval[1]:.3f}"
        further: list[Cell] = [one.averages[metric.name].mean for metric in shown]
        rows.append([one.structure.name, dice.n, dice.mean, interval, *further, one.worst_case])
        if one.lesions is not None:
            total = one.lesions.total
            lesions.append([one.structure.name, total.reference, total.found, one.lesions.false_per_case])
    headings = [metric.heading(", ") for metric in shown]
    columns = ["structure", "cases", DICE, "95 % interval", *headings, "worst case"]
    tables = [Table("Agreement with the reference labels", columns, rows)]
    if lesions:
        tables.append(Table("Lesions", ["structure", "in the references", "found", "false per case"], lesions))
    return tables


def cases_section(
    evaluation: Evaluation, *, task: str, model: str, images: Mapping[str, Path], ct: bool, title: str = "Test cases"
) -> Section:
    """The evaluated cases with the viewer.

    Args:
        images: file of the first channel, by case; a case without one is shown without an image.
    """
    cases = [
        Case(
            task,
            one.case_id,
            images.get(one.case_id, Path()),
            one.reference,
            {model: one.prediction},
            {model: {name: metrics.overlap.dice for name, metrics in one.metrics.items()}},
            evaluation.structures,
            ct,
        )
        for one in evaluation.cases
    ]
    return Section(title, cases=cases)


def plan_section(plans: Plans) -> Section:
    """The plan in words: every decision with its reason."""
    from swinssl.planning.explanation import explanation

    rows = [list(row) for row in explanation(plans)]
    columns = ["decision", "value", "reason"]
    return Section("The plan", tables=[Table("Decisions and their reasons", columns, rows, prose=True)])


def training_section(log: Sequence[dict[str, Any]], folder: Path, *, plans: Plans) -> Section:
    """How long training was, and its curve.

    Args:
        log: entries of the run's `log.jsonl`.
        folder: where the figure is drawn (`training.svg`) until the page is written.
    """
    from swinssl.core.pictures import save_figure
    from swinssl.training.progress_picture import progress_figure

    path = folder / "training.svg"
    save_figure(progress_figure(log, title="", width=CURVE_WIDTH), path, dots_per_inch=100)
    alt = "Loss, Dice of the validation cases and learning rate over the training steps"
    steps, planned = log[-1]["step"], plans.training.epochs * plans.training.steps_per_epoch
    length = f"{steps} steps{'' if steps == planned else f' of the {planned} that the plan allows'}."
    return Section("Training", [length], figures=[Figure(path, f"{alt}.", alt)])
