"""swinssl_compare: several models on the same test cases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from swinssl.cli.command import command
from swinssl.cli.json_report import print_json
from swinssl.cli.parameters import Json
from swinssl.core.terminal import print
from swinssl.metrics.registry import metric_help

Results = Annotated[
    list[str],
    typer.Argument(
        help="NAME=FOLDER with the metrics.csv of swinssl_evaluate, or that file; a name given again is its next seed. "
        "Or a table of all models, with the columns model, case, structure, Dice.",
        metavar="NAME=FOLDER...",
    ),
]
Named = Annotated[
    list[str] | None,
    typer.Option(
        "--named",
        metavar="A:B",
        help="Comparison chosen before the results were seen; its p is not corrected. A:B:STRUCTURE for one structure "
        "or group. May be repeated.",
    ),
]
Against = Annotated[
    str | None, typer.Option("--against", metavar="NAME", help="Compare with this model only. Default: every pair.")
]
Group = Annotated[
    list[str] | None,
    typer.Option(
        "--group",
        metavar="NAME=A,B",
        help="Structures that are averaged together; may be repeated. paper: the paper's organ groups.",
    ),
]
Metric = Annotated[str, typer.Option("--metric", help=metric_help())]
Patients = Annotated[
    Path | None,
    typer.Option("--patients", help="Folder with a groups.csv (case,group): cases of a patient count as one."),
]
Unpaired = Annotated[bool, typer.Option("--unpaired", help="The models were tested on different patients.")]
Log = Annotated[
    list[str] | None,
    typer.Option("--log", metavar="NAME=FOLDER", help="Training run, for its convergence; may be repeated."),
]
Expect = Annotated[
    str | None,
    typer.Option(
        "--expect",
        metavar="A>B=C",
        help="Order of models that others found, best first, = for alike; says how probable each pair of it is here.",
    ),
]
Cka = Annotated[
    list[str] | None,
    typer.Option("--cka", metavar="NAME=FOLDER", help="What swinssl_cka wrote, for a figure; may be repeated."),
]
Out = Annotated[Path, typer.Option("--out", help="Folder for the files; it need not exist yet.")]


def compare(
    results: Results,
    out: Out,
    named: Named = None,
    against: Against = None,
    group: Group = None,
    metric: Metric = "Dice",
    patients: Patients = None,
    unpaired: Unpaired = False,
    expect: Expect = None,
    log: Log = None,
    cka: Cka = None,
    json: Json = False,
) -> None:
    """Compare models on the same test cases: which is better, by how much, and is it more than chance.

    Patients are paired: Wilcoxon's signed ranks, exact; typical difference (Hodges-Lehmann) with its interval. What
    was named in advance stands as it is, all else is corrected by Holm. Ranks with a critical difference where that
    is permitted, and how probable each order is.

    Writes comparison.json, comparison.csv, comparison.md, a table of all scores and figures (SVG and PNG).
    """
    from swinssl.api import evaluation as api
    from swinssl.core.text import counted
    from swinssl.evaluation.comparison.study_files import CSV_FILE, JSON_FILE, TEXT_FILE

    result = api.compare(
        results,
        out=out,
        named=named or (),
        against=against,
        groups=group or (),
        metric=metric,
        patients=patients,
        unpaired=unpaired,
        expect=expect,
        logs=log or (),
        cka=cka or (),
    )
    if json:
        print_json(result.as_json())
        return
    study = result.study
    for line in result.summary():
        print(line)
    for curve in study.curves:
        print(f"{curve.steps_to_converge or 'no'} steps to 95 % of the last validation Dice: {curve.model}")
    for note in dict.fromkeys(note for setting in study.settings.values() for note in setting.notes):
        print(f"note: {note}")
    figures = counted(len(result.figures), "figure")
    print(f"written to {out}: {JSON_FILE}, {CSV_FILE}, {TEXT_FILE}, table.md, .html and .csv, {figures} as SVG and PNG")
    print(f"next: read {out / TEXT_FILE}")


main = command(compare)
