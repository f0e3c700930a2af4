"""How good segmentations are: evaluate one model, compare several."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swinssl.core.errors import UserError
from swinssl.core.terminal import Progress, progress_to

if TYPE_CHECKING:
    from swinssl.evaluation.aggregate import Report
    from swinssl.evaluation.comparison.study import ModelStudy
    from swinssl.evaluation.reference_labels import ReferenceLabels
    from swinssl.evaluation.results import Evaluation

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class EvaluationResult:
    """Predictions measured against references.

    Attributes:
        evaluation: the metrics of every case and structure; cases without a partner.
        report: means with their intervals, by structure and over all.
        labels: what names the structures; None where they are called by their values.
        folder, written: where files are, and their names; none where `out` is None.
        images: of the picture, by case.
        unread: files that look like images and are not read, a sentence each.
    """

    evaluation: Evaluation
    report: Report
    labels: ReferenceLabels | None
    folder: Path | None
    written: tuple[str, ...]
    images: Mapping[str, Path]
    unread: tuple[str, ...]

    @property
    def dice(self) -> float | None:
        """Mean over structures of their mean Dice; None where no case has one."""
        return self.report.dice.mean

    def summary(self) -> dict[str, Any]:
        """The content of summary.json, in nnU-Net's schema (docs/evaluation.md)."""
        from swinssl.evaluation.summary import summary

        return summary(self.evaluation, self.report)


@dataclass(frozen=True)
class ComparisonResult:
    """Models on the same test cases.

    Attributes:
        study: tests, differences with their intervals, ranks, and what follows from them.
        folder: where the files are; None where `out` is None.
        figures: names of the figures there.
    """

    study: ModelStudy
    folder: Path | None
    figures: tuple[str, ...]

    def summary(self) -> list[str]:
        """What follows, in sentences."""
        from swinssl.evaluation.comparison.study_files import summary

        return list(summary(self.study))

    def as_json(self) -> dict[str, Any]:
        """The content of comparison.json."""
        from swinssl.evaluation.comparison.study_files import report

        return report(self.study)


def evaluate(
    predictions: PathLike,
    references: PathLike,
    *,
    dataset: PathLike | None = None,
    out: PathLike | None = None,
    tolerances: Sequence[float] | None = None,
    lesions: Sequence[str] = (),
    images: PathLike | None = None,
    allow_missing: bool = False,
    workers: int | None = 0,
    progress: Progress | None = None,
) -> EvaluationResult:
    """Compare predictions with references: Dice, HD95, mean surface distance, surface Dice, volume, lesions found.

    Args:
        predictions, references: folders of label maps, files of one case having one name in both; or one file each.
        dataset: dataset.json that names the structures, or its folder. By default it is looked for beside and in
            `references`, then in `predictions`.
        out: folder for summary.json, metrics.csv and overlays.png; None writes nothing.
        tolerances: mm within which surface Dice counts surface; by default 2.
        lesions: structures whose connected parts count one by one, beside those with tumour, lesion, target or the
            like in their name.
        images: for the picture: a folder or a file; by default imagesTr or imagesTs beside the labels.
        allow_missing: leave out cases that have no prediction.
        workers, progress: as of `check`.

    Raises:
        UserError: a file is missing or cannot be read, or its label values are not declared.
    """
    from swinssl.dataset.channel_kind import named_ct
    from swinssl.evaluation.aggregate import make_report
    from swinssl.evaluation.evaluate import evaluate as evaluate_cases
    from swinssl.evaluation.reference_labels import find_reference_labels
    from swinssl.imageio.formats import unread_images
    from swinssl.metrics.case_metrics import DEFAULT_TOLERANCES

    predictions, references = Path(predictions), Path(references)
    pictured = None if images is None else Path(images)
    if pictured is not None and not pictured.exists():
        raise UserError(f"--images {pictured}: no such folder or file. Correct it, or leave it out.")
    distances = tuple(dict.fromkeys(tolerances or DEFAULT_TOLERANCES))
    if wrong := [mm for mm in distances if not 0 < mm < math.inf]:
        raise UserError(f"--tolerance {wrong[0]:g}: expected a distance above 0 mm.")
    folder = None if out is None else Path(out)
    if folder is not None and folder.is_file():
        raise UserError(f"--out {folder}: a file. Give a folder; it need not exist yet.")
    labels = find_reference_labels(predictions, references, None if dataset is None else Path(dataset))
    unread = [line for path in (predictions, references) if path.is_dir() for line in unread_images(path)]
    with progress_to(progress):
        evaluation = evaluate_cases(
            predictions,
            references,
            labels=labels,
            tolerances=distances,
            lesions=tuple(lesions),
            allow_missing=allow_missing,
            workers=workers,
        )
    report = make_report(evaluation)
    found: dict[str, Path] = {}
    written: list[str] = []
    if folder is not None:
        from swinssl.evaluation.report.pictures.overlay import OVERLAYS_FILE, draw_overlays
        from swinssl.evaluation.summary import METRICS_FILE, SUMMARY_FILE, write_files

        write_files(evaluation, report, folder)
        found = _find_images(evaluation, references, labels, pictured)
        ct = labels is not None and any(map(named_ct, labels.channel_names[:1]))
        drawn = draw_overlays(evaluation, folder / OVERLAYS_FILE, images=found, ct=ct)
        written = [SUMMARY_FILE, METRICS_FILE, *([OVERLAYS_FILE] if drawn else [])]
    return EvaluationResult(evaluation, report, labels, folder, tuple(written), found, tuple(unread))


def compare(
    results: Sequence[str] | Mapping[str, PathLike | Sequence[PathLike]],
    *,
    out: PathLike | None = None,
    named: Sequence[str] = (),
    against: str | None = None,
    groups: Sequence[str] = (),
    metric: str = "Dice",
    patients: PathLike | None = None,
    unpaired: bool = False,
    expect: str | None = None,
    logs: Sequence[str] = (),
    cka: Sequence[str] = (),
    progress: Progress | None = None,
) -> ComparisonResult:
    """Compare models on the same test cases: which is better, by how much, and is it more than chance.

    Args:
        results: by model, the folder with the metrics.csv of `evaluate`, or that file; of several trainings (seeds) a
            list of them. Or `NAME=FOLDER` strings, as the command takes them.
        out: folder for comparison.json, .csv, .md, a table of all scores and figures; None writes nothing.
        named: comparisons chosen before the results were seen, `A:B` or `A:B:STRUCTURE`; their p is not corrected.
        against: compare with this model only; by default every pair.
        groups: `NAME=A,B`: structures that are averaged together.
        metric: a column of metrics.csv.
        patients: folder with a groups.csv (case,group): the cases of a patient count as one.
        unpaired: the models were tested on different patients.
        expect: order of models that others found, `A>B=C`.
        logs, cka: `NAME=FOLDER` of training runs, and of what swinssl_cka wrote.
        progress: as of `check`.

    Raises:
        UserError: a file is missing or is no such table, or an argument does not fit it.
    """
    from swinssl.dataset.case_tables import read_groups as read_patients
    from swinssl.evaluation.comparison.convergence import read_curve
    from swinssl.evaluation.comparison.expected_order import ExpectedOrder
    from swinssl.evaluation.comparison.organ_groups import read_groups
    from swinssl.evaluation.comparison.score_files import read_scores
    from swinssl.evaluation.comparison.study import make_study
    from swinssl.evaluation.encoders.cka_curves import read_cka

    if expect is not None and unpaired:
        raise UserError("--expect: an order is judged on patients that all models have. Leave --unpaired away.")
    folder = None if out is None else Path(out)
    if folder is not None and folder.is_file():
        raise UserError(f"--out {folder}: a file. Give a folder; it need not exist yet.")
    table = read_scores(_as_typed(results))
    if patients is not None:
        table = table.with_patients(_patients_of(read_patients(Path(patients)), Path(patients)))
    structures = read_groups(groups, table.all_structures)
    curves = dict(map(read_cka, cka))
    with progress_to(progress):
        study = make_study(
            table,
            named=named,
            reference=against,
            groups=structures,
            metric=metric,
            paired=not unpaired,
            expected=None if expect is None else ExpectedOrder.parse(expect),
            curves=[read_curve(log) for log in logs],
        )
    drawn: tuple[str, ...] = ()
    if folder is not None:
        from swinssl.evaluation.comparison.study_files import write_files
        from swinssl.evaluation.report.figures.drawing import draw_study

        write_files(study, folder)
        drawn = draw_study(study, table, folder, groups=structures, cka=curves)
    return ComparisonResult(study, folder, drawn)


def _as_typed(results: Sequence[str] | Mapping[str, PathLike | Sequence[PathLike]]) -> list[str]:
    if not isinstance(results, Mapping):
        return list(results)
    typed = []
    for name, places in results.items():
        several = [places] if isinstance(places, str | os.PathLike) else places
        typed += [f"{name}={os.fspath(place)}" for place in several]
    return typed


def _patients_of(patients: dict[str, str], folder: Path) -> dict[str, str]:
    if not patients:
        raise UserError(f"--patients {folder}: no groups.csv here. Give the folder that has it, with case,group.")
    return patients


def _find_images(
    evaluation: Evaluation, references: Path, labels: ReferenceLabels | None, images: Path | None
) -> dict[str, Path]:
    from swinssl.evaluation.image_search import find_images, find_images_beside

    case_ids = [case.case_id for case in evaluation.cases]
    if images is not None:
        return find_images(case_ids, images)
    folder = references.parent if references.is_file() else references
    return find_images_beside(case_ids, [folder.resolve().parent, *([labels.file.parent] if labels else [])])
