"""The tables that show an evaluation on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swinssl.core.terminal import print

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swinssl.cli.tables import Table
    from swinssl.evaluation.aggregate import Average, Interval, Report
    from swinssl.evaluation.results import Evaluation


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
    from swinssl.evaluation.aggregate import ABSOLUTE_VOLUME_ERROR

    table = _table("structure", "n", "Dice [95 %]", "median", "volume error", "abs. %", "worst case")
    for one in report.structures:
        dice, volume = one.averages["Dice"], one.averages["volume_error_ml"].mean
        table.add_row(
            one.structure.name,
            str(dice.n),
            _with_interval(dice, 3),
            _number(dice.median, 3),
            "-" if volume is None else f"{volume:+.2f} ml",
            _number(one.averages[ABSOLUTE_VOLUME_ERROR].mean, 1),
            one.worst_case or "-",
        )
    if len(report.structures) > 1:
        dice, worst = report.dice, evaluation.worst
        table.add_section()
        cells = ("mean", str(dice.n), _with_interval(dice, 3), _number(dice.median, 3), "", "")
        table.add_row(*cells, worst.case_id if worst else "-")
    return table


def _surface_tables(evaluation: Evaluation, report: Report) -> list[Table]:
    """Distances and surface Dice; in two tables where several tolerances would make one too wide."""
    from swinssl.evaluation.columns import surface_dice_name

    distances = [("HD95 mm [95 %]", "HD95_mm", 1), ("MSD mm", "MSD_mm", 2), ("far FP", "far_false_positives", 2)]
    tolerances = evaluation.tolerances
    dice = [(f"surface Dice {mm:g} mm", surface_dice_name(mm), 3) for mm in tolerances]
    return [_averages_table(report, part) for part in ([distances + dice] if len(dice) == 1 else [distances, dice])]


def _averages_table(report: Report, columns: Sequence[tuple[str, str, int]]) -> Table:
    """A table of averages; a column is its title, the number's name and digits."""
    table = _table("structure", "n", *(title for title, *_ in columns))
    for one in report.structures:
        averages = [(one.averages[name], digits) for _, name, digits in columns]
        cells = (_with_interval(average, digits) for average, digits in averages)
        table.add_row(one.structure.name, str(averages[0][0].n), *cells)
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
            _interval_after(total.sensitivity, lesions.sensitivity_interval, 2),
            f"{total.true}/{total.predicted}",
            _interval_after(total.precision, lesions.precision_interval, 2),
            _number(total.f1, 2),
            _number(lesions.false_per_case, 2),
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


def _with_interval(average: Average, digits: int) -> str:
    return _interval_after(average.mean, average.interval, digits)


def _interval_after(value: float | None, interval: Interval, digits: int) -> str:
    ends = "" if interval is None else f" [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"
    return _number(value, digits) + ends


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
