"""swinssl_train: fine-tune one fold of a preprocessed data set, and say what it is worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from swinssl.cli.command import command
from swinssl.cli.json_report import print_json
from swinssl.cli.parameters import Dataset, DryRun, Json, Root
from swinssl.errors import UserError
from swinssl.training.config import TrainingConfig
from swinssl.workspace import Workspace, safe_name

if TYPE_CHECKING:
    from pathlib import Path

    from swinssl.experiments.fine_tuned_fold import JudgedFold

Fold = Annotated[str, typer.Option("--fold", help="Number of the fold, or all (no validation).")]
Name = Annotated[
    str | None, typer.Option("--name", help="Name of the model's folder. Default: from network and start.")
]
Restart = Annotated[
    bool, typer.Option("--restart", help="Put an earlier run of this fold aside and begin anew instead of going on.")
]


def train(
    dataset: Dataset,
    config: TrainingConfig,
    fold: Fold = "0",
    name: Name = None,
    restart: Restart = False,
    root: Root = None,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Train one fold as swinssl_plan decided; the model goes to <root>/results/<data set>/<name>/fold_<k>.

    Ctrl-C, SIGTERM or a file named STOP in that folder end the run after the step in progress; the same command goes on
    from there, to the same weights as if it had not been stopped.
    """
    if fold != "all" and not fold.isdecimal():
        raise UserError(f"--fold {fold}: expected a number from 0 on, or all.")
    if name is not None:
        safe_name(name, what="--name")
    workspace = Workspace.locate(root)
    preprocessed, results = workspace.preprocessed(dataset), workspace.results(dataset)
    if dry_run:
        _rehearse(preprocessed, results, config, fold=fold, name=name, json=json)
        return
    from swinssl.experiments.fine_tuned_fold import train_and_judge

    judged = train_and_judge(preprocessed, results, fold=fold, config=config, name=name, restart=restart)
    if not judged.fold.first_rank:
        return
    if json:
        print(judged.fold.run_file.read_text(encoding="utf-8"), end="")
    else:
        _report(judged, workspace, dataset)


def _rehearse(
    preprocessed: Path, results: Path, config: TrainingConfig, *, fold: str, name: str | None, json: bool
) -> None:
    from swinssl.preprocessing.plan_explanation import summary
    from swinssl.preprocessing.plans import Plans
    from swinssl.training.effective_plans import effective_plans, run_length
    from swinssl.training.fine_tuning import default_name

    plans = effective_plans(Plans.read(preprocessed), config)
    length = run_length(plans, config)
    folder = results / (name or default_name(plans, config)) / f"fold_{fold}"
    if json:
        print_json({"folder": folder, "steps": length.expected, "max_minutes": length.minutes, "plans": plans})
        return
    for line in summary(plans):
        print("  " + line)
    limit = f", at most {length.minutes:g} minutes" if length.minutes is not None else ""
    print(f"nothing written (would train {length.expected} steps{limit} into {folder})")


def _report(judged: JudgedFold, workspace: Workspace, dataset: str) -> None:
    from swinssl.cli.evaluation_tables import print_tables

    trained = judged.fold
    if judged.evaluation is not None and judged.report is not None:
        print_tables(judged.evaluation, judged.report)
    print(f"model: {trained.model}")
    print(f"progress: {trained.folder / 'progress.png'}")
    print(f"next: swinssl_predict -i IMAGES -o PREDICTIONS -m {trained.model}")


main = command(train)
