"""Several folds of one model, one after another, and what they come to together: every validation case once.

<model>/cross_validation/summary.json, metrics.csv    as of one fold, over the cases of all
        postprocessing.json                           post-processing of the model (`postprocessing_choice.py`)
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from swinssl.core.devices import select_device
from swinssl.core.errors import UserError
from swinssl.core.text import listed
from swinssl.dataset.splits import SPLITS_FILE, Fold
from swinssl.evaluation.aggregate import Report, make_report
from swinssl.evaluation.results import Evaluation
from swinssl.evaluation.summary import write_files
from swinssl.experiments.fine_tuned_fold import EvaluatedFold, evaluate_fold, together
from swinssl.experiments.postprocessing_choice import choose_postprocessing
from swinssl.inference.postprocessing import Postprocessing
from swinssl.inference.trained_model import TrainedModel
from swinssl.preprocessing.store import PreprocessedDataset
from swinssl.training.config import TrainingConfig
from swinssl.training.effective_plans import effective_plans
from swinssl.training.engine.distribution import Ranks
from swinssl.training.fine_tuning import ENOUGH_CASES, FineTuned, fine_tune, fold_configs, folds_of, is_done
from swinssl.training.start import default_name, with_start

logger = logging.getLogger(__name__)

CROSS_VALIDATION = "cross_validation"


@dataclass(frozen=True)
class CrossValidated:
    """Trained folds of one model.

    Args:
        model: its folder.
        folds: in order; on all ranks but the first without their evaluations.
        first_rank: whether this process is the one that writes and speaks.
        evaluation, report, postprocessing: over the validation cases of all folds; None if there is no such case, and
            on all ranks but the first.
    """

    model: Path
    folds: tuple[EvaluatedFold, ...]
    first_rank: bool
    evaluation: Evaluation | None = None
    report: Report | None = None
    postprocessing: Postprocessing | None = None

    @property
    def folder(self) -> Path:
        """Where the numbers over all folds are."""
        return self.model / CROSS_VALIDATION


def cross_validate(
    preprocessed: Path,
    results: Path,
    *,
    folds: Sequence[str],
    config: TrainingConfig,
    name: str | None = None,
    restart: bool = False,
) -> CrossValidated:
    """Train several folds, evaluate them together and choose the post-processing; resumes a stopped call.

    Where earlier calls have trained every other fold in the same way, all folds count.

    Args:
        folds: their numbers. The rest is as for `fine_tune`.

    Raises:
        UserError: there is no such fold, two of them validate on one case, or as `fine_tune`.
        Interrupted: someone asked to stop; everything is saved.
    """
    dataset = PreprocessedDataset.open(preprocessed)
    config = with_start(config, dataset.plans, preprocessed)
    model = results / (name or default_name(effective_plans(dataset.plans, config), config))
    configs = fold_configs(preprocessed, results, folds=folds, config=config, name=name, restart=restart)
    splits = folds_of(dataset)
    _check_folds(preprocessed / SPLITS_FILE, splits, folds)
    if not restart:
        folds = _with_done(dataset, model, splits, folds, configs[folds[0]])
    ranks = Ranks.join(select_device(config.device))
    ranks.barrier()  # from here on the folders change that all have just looked at
    judged: dict[str, EvaluatedFold] = {}
    waiting: dict[str, FineTuned] = {}
    for number, fold in enumerate(folds, start=1):
        if ranks.is_main:
            logger.info("fold %s, %d of %d", fold, number, len(folds))
        its = configs.get(fold, config)
        done = fine_tune(preprocessed, results, fold=fold, config=its, name=name, restart=restart)
        if done.done_before:  # measured before, and again when its turn comes, so that training goes on at once
            waiting[fold] = done
        else:
            judged[fold] = evaluate_fold(done, preprocessed)
        ranks.barrier()
    judged |= {fold: evaluate_fold(done, preprocessed) for fold, done in waiting.items()}
    in_order = tuple(judged[fold] for fold in folds)
    evaluation = together([one.evaluation for one in in_order if one.evaluation is not None])
    if evaluation is None:
        return CrossValidated(model, in_order, ranks.is_main)
    report = make_report(evaluation)
    write_files(evaluation, report, model / CROSS_VALIDATION)
    opened = TrainedModel.open(model, folds)
    few = len(evaluation.cases) < ENOUGH_CASES
    postprocessing = choose_postprocessing(evaluation, opened.plans.labels, fold_sha256=opened.sha256, strict=few)
    postprocessing.write(model)
    return CrossValidated(model, in_order, ranks.is_main, evaluation, report, postprocessing)


def check_folds(preprocessed: Path, folds: Sequence[str]) -> None:
    """The checks of `cross_validate` that concern the folds; nothing is written.

    Raises:
        UserError: naming the first problem.
    """
    splits = folds_of(PreprocessedDataset.open(preprocessed), keep=False)
    _check_folds(preprocessed / SPLITS_FILE, splits, folds)


def _check_folds(file: Path, splits: Sequence[Fold], folds: Sequence[str]) -> None:
    """Refuse folds that are not there, or that cannot be counted together, before any of them is trained.

    Raises:
        UserError: naming the first problem.
    """
    asked = ",".join(folds)
    for fold in folds:
        if int(fold) >= len(splits):
            raise UserError(f"--fold {asked}: {file} has the folds 0 to {len(splits) - 1}; there is no {fold}.")
    if twice := _validated_twice(splits, folds):
        raise UserError(
            f"--fold {asked}: {file} validates on {listed(twice, most=3)} in more than one of these folds, and a "
            "cross-validation counts each case once. Train these folds one at a time, or correct the file."
        )


def _with_done(
    dataset: PreprocessedDataset, model: Path, splits: Sequence[Fold], folds: Sequence[str], config: TrainingConfig
) -> Sequence[str]:
    """The folds that were asked for, and the others too if all of them are done already."""
    others = [str(number) for number in range(len(splits)) if str(number) not in folds]
    if _validated_twice(splits, [*folds, *others]):
        return folds
    done = all(is_done(dataset, model, fold=fold, config=config) for fold in others)
    return [*folds, *others] if done else folds


def _validated_twice(splits: Sequence[Fold], folds: Sequence[str]) -> list[str]:
    cases = [case for fold in folds for case in splits[int(fold)].val]
    return sorted({case for case in cases if cases.count(case) > 1})
