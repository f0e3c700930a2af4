"""The files of an evaluation: `summary.json` in nnU-Net's schema with ours added, and `metrics.csv`, one row a number
of a structure's case.

JSON is strict: a number that is undefined is null (nnU-Net writes a bare NaN), in CSV an empty field.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from swinssl.core import files
from swinssl.core.provenance import __version__
from swinssl.core.text import csv_text
from swinssl.evaluation.aggregate import LesionReport, Report, StructureReport
from swinssl.evaluation.results import CaseResult, Evaluation
from swinssl.evaluation.statistics.bootstrap import LEVEL, RESAMPLES
from swinssl.metrics.lesions import COVERED_SHARE
from swinssl.metrics.registry import METRICS, Number, metrics_at

SUMMARY_FILE, METRICS_FILE = "summary.json", "metrics.csv"


def write_files(evaluation: Evaluation, report: Report, folder: Path) -> None:
    """Write `summary.json` and `metrics.csv` into a folder."""
    files.write_json(folder / SUMMARY_FILE, summary(evaluation, report))
    files.write_text(folder / METRICS_FILE, metrics_csv(evaluation))


def summary(evaluation: Evaluation, report: Report) -> dict[str, Any]:
    """The content of `summary.json`; docs/evaluation.md describes its keys."""
    means = {one.structure.key: {name: a.mean for name, a in one.averages.items()} for one in report.structures}
    return {
        # Only what nnU-Net's own tools read.
        "foreground_mean": {
            name: _mean_of_defined([mean[name] for mean in means.values()])
            for name in sorted(metric.name for metric in METRICS if metric.nnunet)
        },
        "mean": means,
        "metric_per_case": [_case(case, evaluation) for case in evaluation.cases],
        "swinssl": {
            "version": __version__,
            "tolerances_mm": list(evaluation.tolerances),
            "lesion_covered_share": COVERED_SHARE,
            "interval": {"level": LEVEL, "method": "BCa bootstrap of cases", "resamples": RESAMPLES},
            "cases": len(evaluation.cases),
            "missing_predictions": list(evaluation.missing),
            "extra_predictions": list(evaluation.extra),
            "worst_case": evaluation.worst.case_id if evaluation.worst else None,
            "median_case": evaluation.median.case_id if evaluation.median else None,
            "dice": asdict(report.dice),
            "structures": {one.structure.key: _structure(one) for one in report.structures},
        },
    }


def metrics_csv(evaluation: Evaluation) -> str:
    """One row a case and structure, every number in its column."""
    columns = metrics_at(evaluation.tolerances, lesions=any(s.lesions for s in evaluation.structures))
    rows: list[dict[str, Number | str]] = []
    for case in evaluation.cases:
        for structure in evaluation.structures:
            if (metrics := case.metrics.get(structure.name)) is not None:
                numbers = {name: metric(metrics) for name, metric in columns.items()}
                rows.append({"case": case.case_id, "structure": structure.name, "label": structure.key, **numbers})
    return csv_text(rows, ["case", "structure", "label", *columns])


def _case(case: CaseResult, evaluation: Evaluation) -> dict[str, Any]:
    """Structures that were not annotated have a null for every number."""
    metrics: dict[str, dict[str, Number]] = {}
    for structure in evaluation.structures:
        measured = case.metrics.get(structure.name)
        columns = metrics_at(evaluation.tolerances, lesions=structure.lesions)
        metrics[structure.key] = {
            name: None if measured is None else metric(measured) for name, metric in columns.items()
        }
    return {
        "metrics": metrics,
        "prediction_file": str(case.prediction),
        "reference_file": str(case.reference),
        "case": case.case_id,
        "Dice": case.dice,
    }


def _structure(report: StructureReport) -> dict[str, Any]:
    return {
        "name": report.structure.name,
        "annotated": report.annotated,
        "both_empty": list(report.both_empty),
        "missed": list(report.false_negative),
        "invented": list(report.false_positive),
        "worst_case": report.worst_case,
        "averages": {name: asdict(average) for name, average in report.averages.items()},
        "lesions": None if report.lesions is None else _lesions(report.lesions),
    }


def _lesions(report: LesionReport) -> dict[str, Any]:
    total = report.total
    return {
        **asdict(total),
        "sensitivity": total.sensitivity,
        "sensitivity_interval": report.sensitivity_interval,
        "precision": total.precision,
        "precision_interval": report.precision_interval,
        "F1": total.f1,
        "F1_interval": report.f1_interval,
        "false_per_case": report.false_per_case,
    }


def _mean_of_defined(values: list[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
