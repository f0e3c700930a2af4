"""swinssl_check: every problem of a raw data set in one table."""

from __future__ import annotations

import itertools
from collections import defaultdict
from typing import TYPE_CHECKING, Annotated

import typer

from swinssl.cli.command import command
from swinssl.cli.json_report import print_json
from swinssl.cli.parameters import Dataset, Json, Root
from swinssl.core.errors import UserError
from swinssl.core.terminal import print, print_warnings
from swinssl.core.text import counted
from swinssl.core.workspace import typed_dataset
from swinssl.networks.checkpoints.shipped_encoders import shipped_suggestions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swinssl.cli.tables import Table
    from swinssl.dataset.checks.dataset_check import CheckReport
    from swinssl.dataset.checks.finding import Finding

# Warnings and notes of one code beyond this many share a row; errors have a row each.
MOST_ROWS_A_CODE = 5

Workers = Annotated[
    int | None, typer.Option("--workers", min=0, help="Processes that read; 0 works in this one. Default: chosen.")
]


def check(dataset: Dataset, root: Root = None, workers: Workers = None, json: Json = False) -> None:
    """Read a raw data set whole and list what is wrong with it; nothing is written.

    E: a result would be wrong. W: it probably is. N: good to know. docs/check.md explains every code. Exits 2 where
    there is an error, else 0. --json prints a list of {severity, code, file, message, remedy}.
    """
    from swinssl.api import datasets
    from swinssl.dataset.channel_kind import named_ct

    report = datasets.check(dataset, root=root, workers=workers)
    if json:
        print_json([finding.as_json() for finding in report.findings])
    else:
        _print_report(report)
    if errors := report.count("error"):
        print_warnings(_left_out(report), json=json)
        raise UserError(f"{counted(errors, 'error')} in {report.raw.name}. Fix the problems listed, then check again.")
    command = f"swinssl_plan_and_preprocess {typed_dataset(dataset, root)}"
    if not json and report.raw.labels.names and all(map(named_ct, report.raw.channel_names)):
        for suggestion in shipped_suggestions("CT", command=command):
            print(f"encoder: {suggestion}")
    print_warnings(_left_out(report), json=json)
    if not json:
        print(f"next: {command}")


def _print_report(report: CheckReport) -> None:
    from swinssl.cli.tables import print_table

    raw = report.raw
    print(f"{raw.name}: {len(raw.cases)} cases; channels: {', '.join(raw.channel_names)}; {_structures(report)}")
    if report.findings:
        print_table(_table(report.findings))
    counts = [counted(n, word) for word in ("error", "warning", "note") if (n := report.count(word))]
    print(", ".join(counts) or "no problems found")


def _left_out(report: CheckReport) -> list[str]:
    """One line that names the reasons for which files are left out; none if all are read. The table has the files."""
    from swinssl.dataset.checks.finding import CODES
    from swinssl.dataset.raw_dataset import LEFT_OUT

    codes = sorted({finding.code for finding in report.findings} & LEFT_OUT) if report.raw.left_out else []
    reasons = ", ".join(f"{code} ({CODES[code]})" for code in codes)
    return [f"{counted(len(codes), 'kind')} of problems with files that may be left out: {reasons}"] if codes else []


def _structures(report: CheckReport) -> str:
    if not report.raw.labels.names:
        return "no structures"
    listed = ", ".join(f"{name} ({number})" for name, number in report.structures.items())
    return f"structures (cases with it): {listed}"


def _table(findings: Sequence[Finding]) -> Table:
    from swinssl.cli.tables import Table, styled

    colours = {"error": "bold red", "warning": "yellow", "note": "cyan"}
    table = Table("", "file", "what is wrong, and what to do")
    table.columns[1].overflow = table.columns[2].overflow = "fold"
    table.columns[1].ratio, table.columns[2].ratio = 2, 3
    by_code: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        by_code[finding.code].append(finding)
    for code, same in by_code.items():
        shown = same if same[0].severity == "error" else same[:MOST_ROWS_A_CODE]
        label = styled((code, colours[same[0].severity]))
        for finding, after in itertools.zip_longest(shown, shown[1:]):
            # What to do is said once under rows that need the same.
            remedy = "" if after and after.remedy == finding.remedy else finding.remedy
            table.add_row(label, finding.file, styled((finding.message, ""), (remedy, "dim"), separator="\n"))
        if left := len(same) - len(shown):
            table.add_row(label, f"and {left} more", "likewise; --json lists them")
    return table


main = command(check)
