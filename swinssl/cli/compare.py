"""swinssl_compare: several models on the same test cases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from swinssl.cli.command import command
from swinssl.cli.json_report import print_json
from swinssl.cli.parameters import Json
from swinssl.core.errors import UserError
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
    from swinssl.core.text import counted
    from swinssl.dataset.case_tables import read_groups as read_patients
    from swinssl.evaluation.comparison.convergence import read_curve
    from swinssl.evaluation.comparison.expected_order import ExpectedOrder
    from swinssl.evaluation.comparison.organ_groups import read_groups
    from swinssl.evaluation.comparison.score_files import read_scores
    from swinssl.evaluation.comparison.study import make_study
    from swinssl.evaluation.comparison.study_files import CSV_FILE, JSON_FILE, TEXT_FILE, report, summary, write_files
    from swinssl.evaluation.encoders.cka_curves import read_cka
    from swinssl.evaluation.report.figures.drawing import draw_study

    if expect is not None and unpaired:
        raise UserError("--expect: an order is judged on patients that all models have. Leave --unpaired away.")
    if out.is_file():
        raise UserError(f"--out {out}: a file. Give a folder; it need not exist yet.")
    table = read_scores(results)
    if patients is not None:
        table = table.with_patients(_patients_of(read_patients(patients), patients))
    structures = read_groups(group or (), table.all_structures)
    curves = dict(read_cka(one) for one in cka or ())
    study = make_study(
        table,
        named=named or (),
        reference=against,
        groups=structures,
        metric=metric,
        paired=not unpaired,
        expected=None if expect is None else ExpectedOrder.parse(expect),
        curves=[read_curve(one) for one in log or ()],
    )
    write_files(study, out)
    drawn = draw_study(study, table, out, groups=structures, cka=curves)
    if json:
        print_json(report(study))
        return
    for line in summary(study):
        print(line)
    for curve in study.curves:
        print(f"{curve.steps_to_converge or 'no'} steps to 95 % of the last validation Dice: {curve.model}")
    for note in dict.fromkeys(note for one in study.settings.values() for note in one.notes):
        print(f"note: {note}")
    figures = counted(len(drawn), "figure")
    print(f"written to {out}: {JSON_FILE}, {CSV_FILE}, {TEXT_FILE}, table.md, .html and .csv, {figures} as SVG and PNG")
    print(f"next: read {out / TEXT_FILE}")


def _patients_of(patients: dict[str, str], folder: Path) -> dict[str, str]:
    if not patients:
        raise UserError(f"--patients {folder}: no groups.csv here. Give the folder that has it, with case,group.")
    return patients


main = command(compare)
