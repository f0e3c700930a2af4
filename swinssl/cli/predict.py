"""swinssl_predict: segment images with a trained model."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swinssl.cli.command import command
from swinssl.cli.json_report import print_json
from swinssl.cli.parameters import DryRun, Json, Root
from swinssl.core.errors import UserError
from swinssl.core.terminal import print, print_warnings
from swinssl.inference.prediction_record import PredictionOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swinssl.api.prediction import PredictionJob
    from swinssl.cli.tables import Table
    from swinssl.inference.prediction_run import CaseOutcome
    from swinssl.inference.trained_model import TrainedModel

# Cases named in one line; a folder may have hundreds.
NAMED = 5

Inputs = Annotated[
    list[Path],
    typer.Option("-i", "--input", help="Folder of images, or the image of one case (once for each channel, in order)."),
]
Output = Annotated[
    Path,
    typer.Option("-o", "--output", help="Folder for the label maps, or the file (seg.nii.gz) for that of one case."),
]
ModelName = Annotated[
    str,
    typer.Option(
        "-m", "--model", help="Folder of a trained model or of one fold of it, or a data set that has just one model."
    ),
]
Folds = Annotated[
    list[str] | None,
    typer.Option("--folds", help="Folds to average (0,1 or repeated; or all). Default: every complete one."),
]


def predict(
    inputs: Inputs,
    output: Output,
    model: ModelName,
    options: PredictionOptions,
    folds: Folds = None,
    root: Root = None,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Segment images with a trained model; each label map lies on the exact grid of its image.

    With a file for -o (seg.nii.gz) the label map of one case is written to it, and nothing else. --dry-run reads the
    weights and images.

    Cases that are done are left alone; rerun the command to resume. A folder's images are named as in nnU-Net:
    <case>_0000.nii.gz, <case>_0001.nii.gz and so on by channel; one channel needs no number.
    """
    from swinssl.api.prediction import open_prediction

    job = open_prediction(inputs, output, model, folds=_parse_folds(folds), options=options, root=root)
    if not json:
        _introduce(job, typed=model)
    if dry_run:
        _rehearse(job, json=json)
        return
    result = job.run()
    if json:
        cases_done = [
            {"id": o.case.id, **o.record.model_dump(mode="json"), "status": o.status, "result": o.result}
            for o in result.outcomes
        ]
        print_json({"output": output, "postprocessing": result.postprocessing, "cases": cases_done})
    else:
        _report(result.outcomes, output, job.model)
    print_warnings(result.unread, json=json)
    _end(result.outcomes, inputs, output, job.model.folder, quiet=json)


def _parse_folds(folds: list[str] | None) -> list[str] | None:
    """The folds of a flag that may be repeated and may list several."""
    if not folds:
        return None
    parsed = [fold.strip().removeprefix("fold_") for several in folds for fold in several.split(",")]
    for fold in parsed:
        if not (re.fullmatch("[0-9]+", fold) or fold == "all"):
            raise UserError(f"--folds {','.join(folds)}: expected numbers such as 0,1 or the word all.")
    return parsed


def _introduce(job: PredictionJob, *, typed: str) -> None:
    model, record = job.model, job.record
    folds = f"{'folds' if len(model.folds) > 1 else 'fold'} {', '.join(model.folds)}"
    print(f"{typed} ({model.plans.dataset_name}), {folds}; {record.device}, {record.precision}")
    for note in model.notes:
        print(f"note: {note}")
    if model.unfinished:
        print(f"note: fold {', '.join(model.unfinished)} has no weights yet and is left out")
    if record.options.tta and not record.mirror_axes:
        print("note: this model was trained without mirror images, so --tta changes nothing")
    if record.postprocessing:
        kept = _named(record.postprocessing, model)
        print(f"postprocessing: keeps the largest component of {kept} (--no-postprocessing keeps all)")
    if record.options.postprocessing and model.postprocessing_is_outdated:
        print(
            "note: no post-processing, because postprocessing.json was measured with other weights; "
            "rerun swinssl_train with the options of this model to measure anew"
        )


def _named(groups: Sequence[Sequence[str]], model: TrainedModel) -> str:
    everything = set(model.plans.labels.names)
    return ", then of ".join(
        "all structures together" if len(group) > 1 and {*group} == everything else " + ".join(group)
        for group in groups
    )


def _rehearse(job: PredictionJob, *, json: bool) -> None:
    from swinssl.core.text import duration

    expected = job.estimate()
    good, windows, seconds = expected.would_segment, expected.windows, expected.seconds_on_two_cores
    if json:
        said = {"would_segment": good, "cases": expected.cases, "windows": windows}
        print_json({"output": job.place.path, **said, "would_fail": expected.failed, "seconds_on_two_cores": seconds})
    else:
        where = f", about {duration(seconds)} on two CPU cores" if expected.on_cpu else ""
        done = f"; {expected.done} are done" if expected.done else ""
        print(
            f"nothing written (would segment {len(good)} of {expected.cases} cases into {job.place.path}, {windows} "
            f"windows{where}{done})"
        )
        for case_id, reason in expected.failed.items():
            print(f"would fail: {case_id}: {reason}")
    _refuse_failed([*expected.failed], expected.cases)
    print_warnings(job.unread, json=json)


def _report(outcomes: Sequence[CaseOutcome], output: Path, model: TrainedModel) -> None:
    from swinssl.cli.tables import print_table

    good = [outcome for outcome in outcomes if outcome.status != "failed"]
    if good:
        print_table(_volume_table(good, model))
    for outcome in outcomes:
        for warning in outcome.record.warnings:
            print(f"warning: {outcome.case.id}: {warning}")
    counts = (sum(outcome.status == status for outcome in outcomes) for status in ("done", "finished", "failed"))
    done, finished, unfinished = counts
    print(f"{done} segmented, {finished} done before, {unfinished} failed; label maps in {output}")


def _volume_table(outcomes: Sequence[CaseOutcome], model: TrainedModel) -> Table:
    from statistics import median

    from swinssl.cli.tables import Table

    table = Table("structure", "cases with it", "median ml", "smallest ml", "largest ml")
    for column in table.columns[1:]:
        column.justify = "right"
    for name in model.plans.labels.names:
        volumes = [ml for outcome in outcomes if (ml := outcome.record.volumes_ml.get(name, 0.0)) > 0]
        sizes = [f"{choose(volumes):.3g}" for choose in (median, min, max)] if volumes else ["-"] * 3
        table.add_row(name, f"{len(volumes)} of {len(outcomes)}", *sizes)
    return table


def _end(outcomes: Sequence[CaseOutcome], inputs: Sequence[Path], output: Path, model: Path, *, quiet: bool) -> None:
    """Say what to type next, unless `quiet`.

    Raises:
        UserError: a case failed.
    """
    _refuse_failed([outcome.case.id for outcome in outcomes if outcome.status == "failed"], len(outcomes))
    if not quiet:
        print(f"next: {_evaluation(outcomes, inputs, output, model)}")
    if far := [outcome for outcome in outcomes if outcome.record.far]:
        named = ", ".join(f"{outcome.case.id} ({', '.join(outcome.record.far)})" for outcome in far[:NAMED])
        more = f" and {len(far) - NAMED} more" if len(far) > NAMED else ""
        line = (
            f"{len(far)} of {len(outcomes)} cases lie outside 1/4 to 4 times what the model was trained on: "
            f"{named}{more}. Look at each result before you use it."
        )
        print_warnings([line], json=quiet)


def _refuse_failed(failed: Sequence[str], cases: int) -> None:
    if failed:
        raise UserError(
            f"{len(failed)} of {cases} cases failed: {', '.join(failed)}. Fix or remove them, then rerun the command; "
            "it skips what is done."
        )


def _evaluation(outcomes: Sequence[CaseOutcome], inputs: Sequence[Path], output: Path, model: Path) -> str:
    """The command that compares the label maps with their references, as far as these can be found."""
    from swinssl.dataset.case import case_name, labels_beside
    from swinssl.dataset.description import DESCRIPTION_FILE
    from swinssl.imageio.formats import images_in

    if inputs[0].is_dir():
        references = labels_beside(inputs[0]) or Path("FOLDER_WITH_REFERENCE_LABELS")
    else:
        (case,) = (outcome.case for outcome in outcomes)
        labels = labels_beside(inputs[0].parent)
        drawn = [path for path in images_in(labels) if case_name(path) == case.id] if labels else []
        references = drawn[0] if drawn else Path("REFERENCE_LABEL_MAP")
    typed = ["--predictions", str(output), "--references", str(references)]
    described = references.parent if inputs[0].is_dir() else references.parent.parent
    if output.is_file() and not (references.exists() and (described / DESCRIPTION_FILE).is_file()):
        typed += ["--dataset", str(model)]  # which names the structures
    return f"swinssl_evaluate {shlex.join(typed)}"


main = command(predict)
