"""swinssl_predict: segment images with a trained model."""

from __future__ import annotations

import logging
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
from swinssl.core.workspace import Workspace
from swinssl.inference.prediction_record import PredictionOptions

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swinssl.cli.tables import Table
    from swinssl.inference.input_cases import InputCase
    from swinssl.inference.output_folder import OutputFolder
    from swinssl.inference.prediction_run import CaseOutcome
    from swinssl.inference.predictor import Predictor
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
    from swinssl.core.devices import select_device, use_bf16
    from swinssl.imageio.formats import unread_images
    from swinssl.inference.input_cases import find_cases
    from swinssl.inference.output_folder import OutputFile, OutputFolder, names_a_file
    from swinssl.inference.prediction_record import PredictionRecord
    from swinssl.inference.prediction_run import predict_cases
    from swinssl.inference.predictor import Predictor
    from swinssl.inference.trained_model import TrainedModel

    device = select_device(options.device)
    trained = TrainedModel.open(_model_folder(model, Workspace.locate(root)), _parse_folds(folds))
    cases = find_cases(inputs, trained.plans.channel_names)
    unread = [line for path in inputs if path.is_dir() for line in unread_images(path)]
    bf16 = use_bf16(device, options.precision)
    record = PredictionRecord.of(
        trained, options, given_as=model, device=str(device), precision="bf16" if bf16 else "fp32"
    )
    place = OutputFile if names_a_file(output) else OutputFolder
    folder = place.open(output, record, cases, overwrite=options.overwrite)
    if not json:
        _introduce(trained, folder, typed=model)
    if dry_run:
        trained.networks(device)  # refused where they are damaged
        rehearsal = Predictor.of((), trained.plans, device=device, overlap=options.overlap, mirror=options.tta)
        _rehearse(cases, rehearsal, folder, networks=len(trained.folds), json=json)
        print_warnings(unread, json=json)
        return
    predictor = trained.predictor(
        device, overlap=options.overlap, mirror=options.tta, clean_up=options.clean_up, bf16=bf16
    )
    folder.begin(trained)
    outcomes = predict_cases(cases, predictor, folder, trained_on=_trained_on(trained))
    if json:
        cases_done = [
            {"id": o.case.id, **o.record.model_dump(mode="json"), "status": o.status, "result": o.result}
            for o in outcomes
        ]
        print_json({"output": output, "clean_up": folder.record.clean_up, "cases": cases_done})
    else:
        _report(outcomes, output, trained)
    print_warnings(unread, json=json)
    _end(outcomes, inputs, output, quiet=json)


def _model_folder(model: str, workspace: Workspace) -> Path:
    """The folder of a model that was given as a path, or as the data set whose only model it is."""
    from swinssl.preprocessing.plans import PLANS_FILE

    path = Path(model)
    if path.is_file():
        archive = path.suffix.lower() == ".zip"
        remedy = (
            f"Unpack it first: swinssl_model import {shlex.quote(model)}"
            + (f" --root {shlex.quote(str(workspace.root))}" if workspace.root != Workspace.locate().root else "")
            if archive
            else "Give the folder of a trained model."
        )
        raise UserError(
            f"-m {model}: {'a model archive' if archive else 'a file'}; expected a model's folder. {remedy}"
        )
    if path.exists() or "/" in model or "\\" in model or model.startswith("."):
        return path
    results = workspace.results(model)
    found = sorted(beside.parent for beside in results.glob(f"*/{PLANS_FILE}"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise UserError(f"-m {model}: no trained model in {results}. Train one with swinssl_train, or give its folder.")
    listed = ", ".join(map(str, found))
    raise UserError(f"-m {model}: {len(found)} models answer to it. Give the folder of one: {listed}")


def _parse_folds(folds: list[str] | None) -> list[str] | None:
    """The folds of a flag that may be repeated and may list several."""
    if not folds:
        return None
    parsed = [fold.strip().removeprefix("fold_") for several in folds for fold in several.split(",")]
    for fold in parsed:
        if not (re.fullmatch("[0-9]+", fold) or fold == "all"):
            raise UserError(f"--folds {','.join(folds)}: expected numbers such as 0,1 or the word all.")
    return parsed


def _trained_on(model: TrainedModel) -> frozenset[str]:
    """Content hashes of the images that the model's folds were trained on, as far as their runs tell."""
    from swinssl.inference.trained_model import fold_folder
    from swinssl.training.engine.run_description import LearntFrom
    from swinssl.training.engine.run_folder import RunFolder

    hashes: set[str] = set()
    for fold in model.folds:
        path = RunFolder(fold_folder(model.folder, fold)).run_file
        if not path.is_file():
            continue
        try:
            hashes |= LearntFrom.read(path).hashes
        except UserError as error:  # it serves this warning alone
            logger.warning("%s So images that the model was trained on cannot be told from others.", error)
    return frozenset(hashes)


def _introduce(model: TrainedModel, folder: OutputFolder, *, typed: str) -> None:
    record = folder.record
    folds = f"{'folds' if len(model.folds) > 1 else 'fold'} {', '.join(model.folds)}"
    print(f"{typed} ({model.plans.dataset_name}), {folds}; {record.device}, {record.precision}")
    for note in model.notes:
        print(f"note: {note}")
    if model.unfinished:
        print(f"note: fold {', '.join(model.unfinished)} has no weights yet and is left out")
    if record.options.tta and not record.mirror_axes:
        print("note: this model was trained without mirror images, so --tta changes nothing")
    if record.clean_up:
        print(f"clean-up: the largest component of {_named(record.clean_up, model)} (--no-clean-up keeps the rest)")
    if record.options.clean_up and model.clean_up_is_outdated:
        print(
            "note: no clean-up, since clean_up.json was measured with other weights than the model has now; "
            "rerun swinssl_train with the options of this model to measure anew"
        )


def _named(groups: Sequence[Sequence[str]], model: TrainedModel) -> str:
    everything = set(model.plans.labels.names)
    return ", then of ".join(
        "all structures together" if len(group) > 1 and {*group} == everything else " + ".join(group)
        for group in groups
    )


def _rehearse(
    cases: Sequence[InputCase], predictor: Predictor, folder: OutputFolder, *, networks: int, json: bool
) -> None:
    from swinssl.core.text import duration
    from swinssl.inference.prediction_run import expected_windows, unreadable

    todo = [case for case in cases if not folder.has(case)]
    windows = sum(expected_windows(case, predictor) for case in todo)
    passes = windows * networks * 2 ** len(predictor.windows.mirror_axes)
    training = predictor.plans.training
    # A pass without gradients is a third of a training step of one patch.
    seconds = passes * predictor.plans.cost.step_seconds_cpu / (3 * training.batch_size)
    failed = unreadable(todo, predictor.plans)
    good = [case.id for case in todo if case.id not in failed]
    if json:
        expected = {"would_segment": good, "cases": len(cases), "windows": windows}
        print_json({"output": folder.path, **expected, "would_fail": failed, "seconds_on_two_cores": seconds})
        _refuse_failed([*failed], len(cases))
        return
    where = f", about {duration(seconds)} on two CPU cores" if predictor.windows.device.type == "cpu" else ""
    done = f"; {len(cases) - len(todo)} are done" if len(todo) < len(cases) else ""
    print(
        f"nothing written (would segment {len(good)} of {len(cases)} cases into {folder.path}, {windows} windows"
        f"{where}{done})"
    )
    for case_id, reason in failed.items():
        print(f"would fail: {case_id}: {reason}")
    _refuse_failed([*failed], len(cases))


def _report(outcomes: Sequence[CaseOutcome], output: Path, model: TrainedModel) -> None:
    from swinssl.cli.tables import print_table

    good = [outcome for outcome in outcomes if outcome.status != "failed"]
    if good:
        print_table(_volume_table(good, model))
    if failed := [outcome for outcome in outcomes if outcome.status == "failed"]:
        print_table(_failure_table(failed))
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


def _failure_table(failed: Sequence[CaseOutcome]) -> Table:
    from swinssl.cli.tables import Table

    table = Table("failed case", "why")
    for outcome in failed:
        table.add_row(outcome.case.id, outcome.record.message)
    return table


def _end(outcomes: Sequence[CaseOutcome], inputs: Sequence[Path], output: Path, *, quiet: bool) -> None:
    """Say what to type next, unless `quiet`.

    Raises:
        UserError: a case failed.
    """
    _refuse_failed([outcome.case.id for outcome in outcomes if outcome.status == "failed"], len(outcomes))
    if not quiet:
        typed = ["--predictions", str(output), "--references", _likely_references(inputs[0])]
        print(f"next: swinssl_evaluate {shlex.join(typed)}")
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


def _likely_references(images: Path) -> str:
    """The labels beside an images folder of a raw data set, or a placeholder."""
    from swinssl.dataset.case import labels_beside

    return str(labels_beside(images) or "FOLDER_WITH_REFERENCE_LABELS")


main = command(predict)
