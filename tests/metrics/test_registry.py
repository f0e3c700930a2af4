"""The table of metrics: a new row is all that a new metric needs."""

from __future__ import annotations

import csv
import io

import pytest
from support.made_results import GRID, ORGAN, TUMOUR, evaluation, organ_map
from support.made_scores import table

from swinssl.cli.evaluation_tables import print_tables
from swinssl.core.errors import UserError
from swinssl.evaluation.aggregate import make_report
from swinssl.evaluation.comparison.model_comparison import compare_models
from swinssl.evaluation.comparison.score_files import read_scores
from swinssl.evaluation.comparison.score_table import ScoreTable
from swinssl.evaluation.report.html.model_report import score_tables
from swinssl.evaluation.summary import metrics_csv, summary
from swinssl.metrics.case_metrics import case_metrics
from swinssl.metrics.registry import METRICS, Metric, lower_is_better, metric_help, metric_named, metrics_at


def first_plane_gap(reference, prediction, spacing):
    """mm along z between the first planes of two masks."""
    first = [mask.any(axis=(1, 2)).argmax() for mask in (reference, prediction)]
    return abs(int(first[0]) - int(first[1])) * spacing[0] + 0.5


@pytest.fixture
def gap():
    """A metric as somebody would add it: one row."""
    row = Metric(
        "gap_mm", "lower", of_masks=first_plane_gap, title="gap", unit="mm", shown=("surface", "page"), aliases=("gap",)
    )
    METRICS.append(row)
    yield row
    METRICS.remove(row)


def test_a_new_row_reaches_files_tables_page_comparison_and_help(gap, tmp_path, capsys):
    measured = case_metrics(organ_map(), organ_map(shift=1), structures=(ORGAN, TUMOUR), geometry=GRID)
    made = evaluation(measured, structures=(ORGAN, TUMOUR))
    report = make_report(made)
    rows = list(csv.DictReader(io.StringIO(metrics_csv(made))))
    assert [row["gap_mm"] for row in rows] == ["0.5", "0.5"]
    assert summary(made, report)["mean"]["1"]["gap_mm"] == 0.5
    print_tables(made, report)
    assert "gap mm" in capsys.readouterr().out
    page = score_tables(report)[0]
    assert page.rows[0][page.columns.index("gap, mm")] == 0.5
    assert "gap_mm" in metric_help() and lower_is_better("gap_mm")
    (tmp_path / "scores.csv").write_text("model,case,structure,gap\nm,a,organ,3\n")
    assert read_scores([str(tmp_path / "scores.csv")]).metrics == ("gap_mm",)


def test_where_both_maps_lack_a_structure_masks_are_not_measured(gap):
    measured = case_metrics(organ_map(tumour=False), organ_map(tumour=False), structures=(TUMOUR,), geometry=GRID)
    assert gap(measured["tumour"]) is None


def test_names_are_unique_and_tolerances_are_part_of_them():
    names = list(metrics_at((1.0, 2.5), lesions=True))
    assert len(names) == len(METRICS) + 1 and {"NSD_1mm", "NSD_2.5mm"} < set(names)
    assert all(metric_named(name) is not None for name in names)
    assert metric_named("NSD") is None and metric_named("cldice") is None and not lower_is_better("cldice")


@pytest.mark.parametrize("name", ["FP", "volume_error_ml"])
def test_what_is_no_score_is_not_compared(name):
    scores = table(("a", 0, "x", "organ", 0.5), ("b", 0, "x", "organ", 0.6)).scores
    both = ScoreTable(tuple(type(s)(s.model, s.case, s.structure, {**s.values, name: 1.0}) for s in scores))
    with pytest.raises(UserError, match=rf"--metric {name}: neither high nor low is better. Choose one of Dice\."):
        compare_models(both, metric=name)
