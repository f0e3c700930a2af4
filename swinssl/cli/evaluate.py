"""swinssl_evaluate: compare predictions with references."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swinssl.cli.command import command
from swinssl.cli.evaluation_tables import print_tables
from swinssl.cli.json_report import print_json
from swinssl.cli.parameters import Json
from swinssl.core.terminal import print, print_warnings

if TYPE_CHECKING:
    from swinssl.evaluation.aggregate import Report
    from swinssl.evaluation.reference_labels import ReferenceLabels
    from swinssl.evaluation.results import Evaluation

Predictions = Annotated[
    Path, typer.Option("--predictions", "-p", help="Folder with the predicted label maps, or one file.")
]
References = Annotated[
    Path, typer.Option("--references", "-r", help="Folder with the reference label maps, or one file.")
]
Dataset = Annotated[
    Path | None,
    typer.Option(
        "--dataset",
        help="dataset.json that names the structures, or its folder (a model's has one). Default: looked for beside "
        "and in --references, then in --predictions; without any, structures are called by their values.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        help="Folder for summary.json, metrics.csv and overlays.png. Default: --predictions where that is a folder; of "
        "a single file nothing is written.",
    ),
]
Tolerance = Annotated[
    list[float] | None,
    typer.Option(
        "--tolerance",
        metavar="MM",
        help="Surface Dice counts surface within this many mm; may be repeated. Default: 2.",
    ),
]
Lesions = Annotated[
    list[str] | None,
    typer.Option(
        "--lesions",
        metavar="NAME",
        help="Structure whose connected parts count one by one, beside those with tumour, lesion, target or the like "
        "in their name; may be repeated.",
    ),
]
Images = Annotated[
    Path | None,
    typer.Option(
        "--images", help="Images for the picture: a folder or a file. Default: imagesTr or imagesTs beside the labels."
    ),
]
AllowMissing = Annotated[bool, typer.Option("--allow-missing", help="Leave out cases that have no prediction.")]
Workers = Annotated[
    int | None, typer.Option("--workers", min=0, help="Processes that measure; 0 works in this one. Default: chosen.")
]


def evaluate(
    predictions: Predictions,
    references: References,
    dataset: Dataset = None,
    out: Out = None,
    tolerance: Tolerance = None,
    lesions: Lesions = None,
    images: Images = None,
    allow_missing: AllowMissing = False,
    workers: Workers = None,
    json: Json = False,
) -> None:
    """Compare predictions with references: Dice, HD95, mean surface distance, surface Dice, volume, lesions found.

    Files of one case have one name in both folders; of two files the names do not matter. Writes summary.json
    (nnU-Net's schema), metrics.csv (a row a case and structure) and overlays.png (worst and median case).

    A structure that neither map has counts nowhere. One that a single map has scores Dice and surface Dice 0 and has
    no distance: HD95 and MSD are over the other cases, and a note says how many. Intervals are 95 %, from resampling
    the cases (BCa bootstrap).
    """
    from swinssl.api import evaluation as api
    from swinssl.evaluation.report.pictures.overlay import OVERLAYS_FILE

    result = api.evaluate(
        predictions,
        references,
        dataset=dataset,
        # The folder of a single file may have the results of all others, or be the current one.
        out=out or (None if predictions.is_file() else predictions),
        tolerances=tolerance,
        lesions=lesions or (),
        images=images,
        allow_missing=allow_missing,
        workers=workers,
    )
    evaluation = result.evaluation
    if json:
        print_json(result.summary())
        print_warnings(result.unread, json=True)
        return
    _print_report(evaluation, result.report, result.labels)
    if OVERLAYS_FILE in result.written and not result.images:
        print("note: no images found, so the picture shows contours alone; say where they are with --images.")
    if result.folder is None:
        print("nothing written; --out FOLDER keeps the results")
    else:
        print(f"written to {result.folder}: {', '.join(result.written)}")
    print_warnings(result.unread)
    if result.folder is not None and evaluation.worst is not None:
        print(f"next: look at {result.folder / OVERLAYS_FILE}; the lowest Dice is that of {evaluation.worst.case_id}")


def _print_report(evaluation: Evaluation, report: Report, labels: ReferenceLabels | None) -> None:
    from swinssl.core.text import counted, listed

    names = (
        f"structures of {labels.file}"
        if labels
        else "no dataset.json found: structures are called by their values (--dataset names them)"
    )
    print(f"{counted(len(evaluation.cases), 'case')}; {names}")
    for case_ids, what in ((evaluation.missing, "no prediction"), (evaluation.extra, "no reference")):
        if case_ids:
            print(f"warning: left out, since they have {what}: {listed(case_ids)}")
    print_tables(evaluation, report)


main = command(evaluate)
