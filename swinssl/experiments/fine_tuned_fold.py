"""One fold, trained and judged: fine-tuning, its validation cases against their labels, and its post-processing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from swinssl.evaluation.aggregate import Report, make_report
from swinssl.evaluation.evaluate import evaluate
from swinssl.evaluation.reference_labels import ReferenceLabels
from swinssl.evaluation.results import Evaluation
from swinssl.evaluation.summary import write_files
from swinssl.experiments.postprocessing_choice import choose_postprocessing
from swinssl.inference.postprocessing import MeasuredOn, Postprocessing
from swinssl.inference.trained_model import TrainedModel, fold_folder
from swinssl.preprocessing.plans import Plans
from swinssl.preprocessing.store import REFERENCES, PreprocessedDataset
from swinssl.training.config import TrainingConfig
from swinssl.training.fine_tuning import (
    ENOUGH_CASES,
    VALIDATION,
    FineTuned,
    fine_tune,
    folds_of,
    is_done,
    predict_training_cases,
    training_cases_to_predict,
)


@dataclass(frozen=True)
class EvaluatedFold:
    """A trained fold.

    Args:
        evaluation, report: None where it has no validation case.
        postprocessing: of the model; None if there are too few cases to measure it, and for a fold that is evaluated
            together with others.
        training_dice: mean Dice of the training cases where they were predicted; says nothing about other cases.
    """

    fold: FineTuned
    evaluation: Evaluation | None = None
    report: Report | None = None
    postprocessing: Postprocessing | None = None
    training_dice: float | None = None


def train_and_judge(
    preprocessed: Path,
    results: Path,
    *,
    fold: str,
    config: TrainingConfig,
    name: str | None = None,
    restart: bool = False,
) -> EvaluatedFold:
    """Train a fold, predict and evaluate its validation cases, choose the post-processing; resumes a stopped call.

    Writes `summary.json` and `metrics.csv` beside the predictions, the Dice into `run.json`, and `postprocessing.json`
    into the model's folder. Arguments and errors are those of `fine_tune`.
    """
    trained = fine_tune(preprocessed, results, fold=fold, config=config, name=name, restart=restart)
    return _with_postprocessing(evaluate_fold(trained, preprocessed), preprocessed)


def evaluate_fold(trained: FineTuned, preprocessed: Path) -> EvaluatedFold:
    """Measure the validation cases of a trained fold, if this is the rank that writes, and write what they come to."""
    if not trained.first_rank:
        return EvaluatedFold(trained)
    judged = EvaluatedFold(trained)
    if trained.predictions is not None:
        judged = _measured(trained, trained.predictions, preprocessed)
    structures = judged.report.structures if judged.report else ()
    dice = {one.structure.name: one.averages["Dice"].mean for one in structures}
    if not trained.done_before:
        trained.run.finish("done", final_dice=dice).write(trained.run_file)
    return judged


def _measured(trained: FineTuned, predictions: Path, preprocessed: Path) -> EvaluatedFold:
    evaluation = _evaluated(trained.plans, predictions, preprocessed, trained.run.validation_cases)
    report = make_report(evaluation)
    write_files(evaluation, report, predictions)
    return EvaluatedFold(trained, evaluation, report)


def together(evaluations: Sequence[Evaluation]) -> Evaluation | None:
    """All their cases, as one evaluation would have them; None without any."""
    if not evaluations:
        return None
    return Evaluation(
        evaluations[0].structures,
        evaluations[0].tolerances,
        tuple(sorted((case for one in evaluations for case in one.cases), key=lambda case: case.case_id)),
        tuple(sorted(case for one in evaluations for case in one.missing)),
        tuple(sorted(case for one in evaluations for case in one.extra)),
    )


def _with_postprocessing(judged: EvaluatedFold, preprocessed: Path) -> EvaluatedFold:
    """With the post-processing of the model, measured on the best cases that there are.

    These are the validation cases of this fold and of all others that were trained in the same way: for `all` they are
    the cross-validation of the same choices. Fewer than `ENOUGH_CASES` decide nothing. Then some of the training cases
    are predicted too, and the criterion is the strict one. What validation cases have decided is not replaced by that.
    """
    trained = judged.fold
    if not trained.first_rank or trained.plans.labels.regions:
        return judged
    validated = _validated(judged, preprocessed)
    evaluations = list(validated.values())
    model = TrainedModel.open(trained.model)
    own = {trained.run.fold: model.sha256[trained.run.fold]}
    sha256 = {fold: model.sha256[fold] for fold in validated}
    earlier = None if model.postprocessing_is_outdated else model.postprocessing
    if earlier is not None and trained.done_before and earlier.fold_sha256 in (sha256, {**sha256, **own}):
        return replace(judged, postprocessing=earlier)
    measured_on: MeasuredOn = "validation cases"
    cases = sum(len(one.cases) for one in evaluations)
    training_dice = None
    if cases < ENOUGH_CASES:
        if earlier is not None and earlier.measured_on == measured_on and trained.run.fold not in sha256:
            return replace(judged, postprocessing=earlier)
        chosen = training_cases_to_predict(trained.run.train_cases, trained.run.validation_cases)
        if len(chosen) + cases < ENOUGH_CASES:
            return judged
        predictions = predict_training_cases(trained, preprocessed)
        learnt = _evaluated(trained.plans, predictions, preprocessed, chosen)
        training_dice = make_report(learnt).dice.mean
        evaluations = [*evaluations, learnt]
        measured_on = "validation and training cases" if cases else "training cases"
        sha256 |= own
    evaluation = together(evaluations)
    assert evaluation is not None
    postprocessing = choose_postprocessing(
        evaluation,
        trained.plans.labels,
        fold_sha256=sha256,
        measured_on=measured_on,
        strict=measured_on != "validation cases",
    )
    postprocessing.write(trained.model)
    return replace(judged, postprocessing=postprocessing, training_dice=training_dice)


def _validated(judged: EvaluatedFold, preprocessed: Path) -> dict[str, Evaluation]:
    """By fold, the validation cases that its network has not learnt from: of this fold, and of others like it."""
    trained, dataset = judged.fold, PreprocessedDataset.open(preprocessed)
    found: dict[str, Evaluation] = {}
    cases: set[str] = set()
    if judged.evaluation is not None and not {*trained.run.train_cases} & {*trained.run.validation_cases}:
        found[trained.run.fold] = judged.evaluation
        cases |= {*trained.run.validation_cases}
    for number, fold in enumerate(folds_of(dataset)):
        name = str(number)
        if name == trained.run.fold or cases & {*fold.val} or {*fold.train} & {*fold.val}:
            continue
        if fold.val and is_done(dataset, trained.model, fold=name, config=trained.run.config):
            predictions = fold_folder(trained.model, name) / VALIDATION
            found[name] = _evaluated(trained.plans, predictions, preprocessed, fold.val)
            cases |= {*fold.val}
    return found


def _evaluated(plans: Plans, predictions: Path, preprocessed: Path, cases: Sequence[str]) -> Evaluation:
    dataset = PreprocessedDataset.open(preprocessed)
    annotated = {case_id: dataset.case(case_id).properties.labels_present for case_id in cases}
    present = {case_id: names for case_id, names in annotated.items() if names is not None}
    labels = ReferenceLabels(preprocessed / "dataset.json", plans.labels, present)
    return evaluate(predictions, preprocessed / REFERENCES, labels=labels, cases=cases, workers=0)
