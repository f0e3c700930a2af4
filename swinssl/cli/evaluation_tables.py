"""The tables that show an evaluation on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swinssl.core.terminal import print

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swinssl.cli.tables import Table
    from swinssl.evaluation.aggregate import Average, Interval, Report
    from swinssl.evaluation.results import Evaluation
    from swinssl.metrics.registry import Metric


def print_tables(evaluation: Evaluation, report: Report) -> None:
    """Print overlap, surfaces and, where there are tumours, lesions; then what a reader must know to believe them."""
    from swinssl.evaluation.aggregate import remarks

    tables = [_overlap_table(evaluation, report), *_surface_tables(evaluation, report)]
    if any(one.lesions for one in report.structures):
        tables.append(_lesion_table(report))
    for table in tables:
        _print_uncut(table)
    for line in remarks(evaluation, report):
        print(f"note: {line}")


def _overlap_table(evaluation: Evaluation, report: Report) -> Table:
    from swinssl.metrics.registry import DICE, METRICS

    further = [metric for metric in METRICS if "overlap" in metric.shown and metric.name != DICE]
    headings = (metric.heading() for metric in further)
    table = _table("structure", "n", "Dice [95 %]", "median", *headings, "worst case")
    for one in report.structures:
        dice = one.averages[DICE]
        table.add_row(
            one.structure.name,
            str(dice.n),
            _with_interval(dice),
            _number(dice.median),
            *(_number(one.averages[metric.name].mean, metric.form) for metric in further),
            one.worst_case or "-",
        )
    if len(report.structures) > 1:
        dice, worst = report.dice, evaluation.worst
        table.add_section()
        cells = ("mean", str(dice.n), _with_interval(dice), _number(dice.median), *("" for _ in further))
        table.add_row(*cells, worst.case_id if worst else "-")
    return table


def _surface_tables(evaluation: Evaluation, report: Report) -> list[Table]:
    """What is measured on surfaces; what depends on the tolerance in a second table where there are several."""
    from swinssl.metrics.registry import METRICS

    shown = [metric for metric in METRICS if "surface" in metric.shown]
    fixed = [metric for metric in shown if not metric.per_tolerance]
    varying = [m.at(index, mm) for m in shown if m.per_tolerance for index, mm in enumerate(evaluation.tolerances)]
    parts = [fixed + varying] if len(evaluation.tolerances) == 1 else [fixed, varying]
    return [_averages_table(report, part) for part in parts]


def _averages_table(report: Report, metrics: Sequence[Metric]) -> Table:
    first, *others = (metric.heading() for metric in metrics)
    table = _table("structure", "n", f"{first} [95 %]", *others)
    for one in report.structures:
        averages = [one.averages[metric.name] for metric in metrics]
        cells = (_with_interval(average, m.form) for average, m in zip(averages, metrics, strict=True))
        table.add_row(one.structure.name, str(averages[0].n), *cells)
    return table


def _lesion_table(report: Report) -> Table:
    columns = ("lesions", "found", "sensitivity", "true", "precision", "F1", "false/case")
    table = _table(*columns)
    for one in report.structures:
        if (lesions := one.lesions) is None:
            continue
        total = lesions.total
        table.add_row(
            one.structure.name,
            f"{total.found}/{total.reference}",
            _interval_after(total.sensitivity, lesions.sensitivity_interval, ".2f"),
            f"{total.true}/{total.predicted}",
            _interval_after(total.precision, lesions.precision_interval, ".2f"),
            _number(total.f1, ".2f"),
            _number(lesions.false_per_case, ".2f"),
        )
    return table


def _table(*columns: str) -> Table:
    """Names fold, numbers do not."""
    from swinssl.cli.tables import Table

    table = Table(*columns, padding=(0, 1, 0, 0), collapse_padding=True, pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"
    table.columns[0].min_width = 9
    for column in table.columns[1:]:
        column.justify = "right"
        column.no_wrap = str(column.header) != "worst case"
    return table


def _print_uncut(table: Table) -> None:
    """Print a table; where the window is too narrow for its numbers its lines break, and no number is cut."""
    from swinssl.cli.tables import needed_width, print_table

    for column in table.columns:
        if column.no_wrap:
            column.min_width = max(len(str(cell)) for cell in (column.header, *column.cells))
    print_table(table, width=needed_width(table))


def _with_interval(average: Average, form: str = ".3f") -> str:
    return _interval_after(average.mean, average.interval, form)


def _interval_after(value: float | None, interval: Interval, form: str) -> str:
    ends = "" if interval is None else f" [{interval[0]:{form}}, {interval[1]:{form}}]"
    return _number(value, form) + ends


def _number(value: float | None, form: str = ".3f") -> str:
    return "-" if value is None else f"{value:{form}}"
