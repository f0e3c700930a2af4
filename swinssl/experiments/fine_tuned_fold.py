"""One fold, trained and judged: fine-tuning, then its validation cases against their labels on their own grids."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from swinssl.evaluation.evaluate import evaluate
from swinssl.evaluation.reference_labels import ReferenceLabels
from swinssl.evaluation.report import Report, make_report
from swinssl.evaluation.results import Evaluation
from swinssl.evaluation.summary import write_files
from swinssl.training.config import TrainingConfig
from swinssl.training.fine_tuning import FineTuned, fine_tune


@dataclass(frozen=True)
class JudgedFold:
    """A trained fold; `evaluation` and `report` are None where it has no validation case."""

    fold: FineTuned
    evaluation: Evaluation | None = None
    report: Report | None = None


def train_and_judge(
    preprocessed: Path,
    results: Path,
    *,
    fold: str,
    config: TrainingConfig,
    name: str | None = None,
    restart: bool = False,
) -> JudgedFold:
    """Train a fold, predict its validation cases and measure them; goes on where an earlier call was stopped.

    Writes `summary.json` and `metrics.csv` beside the predictions, and the Dice into `run.json`. Arguments and errors
    are those of `fine_tune`.
    """
    return judge(fine_tune(preprocessed, results, fold=fold, config=config, name=name, restart=restart), preprocessed)


def judge(trained: FineTuned, preprocessed: Path) -> JudgedFold:
    """Measure the validation cases of a trained fold, if this is the rank that writes, and write what they come to."""
    if not trained.first_rank:
        return JudgedFold(trained)
    judged = JudgedFold(trained)
    if trained.predictions is not None:
        judged = _measured(trained, trained.predictions, preprocessed)
    structures = judged.report.structures if judged.report else ()
    dice = {one.structure.name: one.averages["Dice"].mean for one in structures}
    if not trained.done_before:
        trained.run.ended_as("done", final_dice=dice).write(trained.run_file)
    return judged


def _measured(trained: FineTuned, predictions: Path, preprocessed: Path) -> JudgedFold:
    labels = ReferenceLabels(preprocessed / "dataset.json", trained.plans.labels, trained.labels_present)
    evaluation = evaluate(predictions, trained.references, labels=labels, cases=trained.run.validation_cases, workers=0)
    report = make_report(evaluation)
    write_files(evaluation, report, predictions)
    return JudgedFold(trained, evaluation, report)
