"""swinssl_train: fine-tune one fold of a preprocessed data set, or several, and say what they are worth."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from swinssl.cli.command import arguments_as_typed, command
from swinssl.cli.json_report import print_json
from swinssl.cli.parameters import Dataset, DryRun, Json, Root
from swinssl.cli.ranks import Gpus, first_attempt, start_ranks, warn_of_raw_changes
from swinssl.cli.slurm import Slurm, array_script
from swinssl.core.errors import UserError
from swinssl.core.terminal import print, print_lines
from swinssl.core.workspace import Workspace, safe_name
from swinssl.training.config import TrainingConfig

if TYPE_CHECKING:
    from pathlib import Path

    from swinssl.api.training import TrainingEstimate, TrainingResult
    from swinssl.experiments.fine_tuned_fold import EvaluatedFold
    from swinssl.inference.postprocessing import Postprocessing, Trial

ALL = "all"
# A number, or a range of numbers.
SEVERAL = re.compile(r"(\d{1,3})(?:-(\d{1,3}))?")

Fold = Annotated[
    str,
    typer.Option(
        "--fold", help="Number of the fold, several (0-4 or 0,2,4) one after another, or all (no validation)."
    ),
]
Name = Annotated[
    str | None, typer.Option("--name", help="Name of the model's folder. Default: from network and start.")
]
Restart = Annotated[
    bool, typer.Option("--restart", help="Put an earlier run of a fold aside and begin anew instead of going on.")
]


def train(
    dataset: Dataset,
    config: TrainingConfig,
    fold: Fold = "0",
    name: Name = None,
    restart: Restart = False,
    gpus: Gpus = 1,
    root: Root = None,
    json: Json = False,
    dry_run: DryRun = False,
    slurm: Slurm = False,
) -> None:
    """Train a fold as swinssl_plan decided; the model goes to <root>/results/<data set>/<name>/fold_<k>.

    Ctrl-C, SIGTERM or a file named STOP in that folder end the run after the step in progress; rerun the command to
    resume, to the same weights as if it had not been stopped.

    Several folds are a cross-validation: they are measured together. swinssl_predict keeps the largest component alone
    of the structures where that was found to help, on validation cases or, for want of these, on training cases.
    """
    folds = _parse_folds(fold)
    if name is not None:
        safe_name(name, what="--name")
    if slurm:
        if restart:
            raise UserError(
                "--restart: a job that Slurm queues again would begin anew each time. Leave it out, or --name."
            )
        on_cpu, minutes = config.device == "cpu", config.max_minutes
        print_lines(array_script(dataset, folds, arguments_as_typed(), gpus=gpus, on_cpu=on_cpu, minutes=minutes))
        return
    Workspace.locate(root).preprocessed(dataset)  # an unknown data set is refused before processes start
    if not dry_run and start_ranks("swinssl.cli.train:main", gpus):
        return
    warn_of_raw_changes([dataset], root=root)
    from swinssl.api.training import estimate_training, train_folds

    if dry_run:
        expected = estimate_training(dataset, fold=folds, config=config, name=name, restart=restart, root=root)
        _print_estimate(expected, json=json)
        return
    anew = restart and first_attempt()
    result = train_folds(dataset, fold=folds, config=config, name=name, restart=anew, root=root)
    if not result.is_main:
        return
    if result.folder is not None:
        _report_together(result, json=json)
    elif json:
        print_lines(result.folds[0].fold.run_file.read_text(encoding="utf-8"))
    else:
        _report(result.folds[0])


def _parse_folds(fold: str) -> tuple[str, ...]:
    """The folds of 2, 0-4, 0,2,4 or all; each once, in the order that they are named in."""
    if fold == ALL or fold.isdecimal():
        return (fold,)
    folds: list[str] = []
    for part in fold.split(","):
        found = SEVERAL.fullmatch(part.strip())
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, -1)
        if last < first:
            raise UserError(f"--fold {fold}: expected a number from 0 on, several such as 0-4 or 0,2,4, or all.")
        folds += map(str, range(first, last + 1))
    return tuple(dict.fromkeys(folds))


def _print_estimate(expected: TrainingEstimate, *, json: bool) -> None:
    from swinssl.planning.explanation import summary
    from swinssl.training.losses.registry import loss_in_words

    first, folders = expected.folds[0], [one.folder for one in expected.folds]
    length, plans = first.length, first.plans
    if json:
        together: dict[str, Path | list[Path]] = {"folder": folders[0]}
        if len(folders) > 1:
            together = {"folder": folders[0].parent, "folds": folders}
        length_of_run = {"steps": length.expected, "max_minutes": length.minutes}
        chosen = {"init": first.config.init, "loss": first.config.loss}
        print_json({**together, **chosen, **length_of_run, "plans": plans})
        return
    for line in dict.fromkeys(line for one in expected.folds for line in one.lines):
        print(line)
    planned = plans.training.epochs * plans.training.steps_per_epoch
    for line in summary(plans, steps=length.expected if length.expected != planned else None):
        print("  " + line)
    words = loss_in_words(first.config.loss, activation=plans.training.loss, form=plans.training.dice)
    print(f"  loss      {words}")
    limit = f", at most {length.minutes:g} minutes" if length.minutes is not None else ""
    where = str(folders[0])
    if len(folders) > 1:
        where = f"each of {', '.join(folder.name for folder in folders)} in {folders[0].parent}"
    steps = dict.fromkeys(one.length.expected for one in expected.folds)
    print(f"nothing written (would train {' or '.join(map(str, steps))} steps{limit} into {where})")


def _report(judged: EvaluatedFold) -> None:
    from swinssl.cli.evaluation_tables import print_tables

    trained = judged.fold
    if judged.evaluation is not None and judged.report is not None:
        print_tables(judged.evaluation, judged.report)
    if judged.training_dice is not None:
        print(
            f"training cases: mean Dice {judged.training_dice:.3f} when the network predicts what it learnt from; "
            "this says nothing about other cases"
        )
    for line in _postprocessing_lines(judged.postprocessing, regions=trained.plans.labels.regions):
        print(line)
    print(f"model: {trained.model}")
    print(f"progress: {trained.folder / 'progress.png'}")
    _print_next(trained.model)
    if trained.run.shortfall is not None:
        print(trained.run.shortfall)


def _report_together(validated: TrainingResult, *, json: bool) -> None:
    from swinssl.cli.evaluation_tables import print_tables
    from swinssl.core.text import counted
    from swinssl.evaluation.summary import SUMMARY_FILE, summary
    from swinssl.training.engine.run_description import RunDescription

    evaluation, report, postprocessing = validated.evaluation, validated.report, validated.postprocessing
    if json:
        together = None if evaluation is None or report is None else summary(evaluation, report)
        runs = [RunDescription.read(one.fold.run_file) for one in validated.folds]
        print_json(
            {"model": validated.model, "folds": runs, "cross_validation": together, "postprocessing": postprocessing}
        )
        return
    for one in validated.folds:
        dice = "no validation case"
        if one.evaluation is not None and one.report is not None and one.report.dice.mean is not None:
            dice = f"Dice {one.report.dice.mean:.3f} of {counted(len(one.evaluation.cases), 'case')}"
        print(f"{one.fold.folder.name}: {dice}")
    if evaluation is not None and report is not None:
        print_tables(evaluation, report)
        for line in _postprocessing_lines(postprocessing, regions=validated.folds[0].fold.plans.labels.regions):
            print(line)
        print(f"all folds together: {validated.folder}/{SUMMARY_FILE}")
    print(f"model: {validated.model}")
    _print_next(validated.model)
    for one in validated.folds:
        if one.fold.run.shortfall is not None:
            print(one.fold.run.shortfall.replace("the run", one.fold.folder.name, 1))


def _postprocessing_lines(postprocessing: Postprocessing | None, *, regions: bool) -> list[str]:
    """What predictions of the model will keep, and what that was measured on."""
    if regions:
        return ["postprocessing: none; regions overlap, so no component can be removed"]
    if postprocessing is None:
        return [
            "postprocessing: none; its effect is measured on at least 3 cases, validation and training cases together"
        ]
    if not postprocessing.applied:
        return [
            "postprocessing: none; keeping only the largest component helps no structure of the "
            f"{postprocessing.measured_on}"
        ]
    lines = [
        f"postprocessing: predictions keep the largest component of {_outcome(trial)}"
        for trial in postprocessing.applied
    ]
    how = "" if postprocessing.measured_on == "validation cases" else ", where no case may get worse"
    return [
        *lines,
        f"  measured on the {postprocessing.measured_on}{how}; swinssl_predict --no-postprocessing leaves it out",
    ]


def _outcome(trial: Trial) -> str:
    from swinssl.core.text import counted

    what = trial.structures[0] if len(trial.structures) == 1 else "all structures together"
    return (
        f"{what}: Dice {trial.before:.3f} becomes {trial.after:.3f} ({counted(trial.better, 'case')} better, "
        f"{trial.worse} worse, of {trial.cases})"
    )


def _print_next(model: Path) -> None:
    print(f"next: swinssl_predict -i IMAGES -o PREDICTIONS -m {shlex.quote(str(model))}")


main = command(train)
