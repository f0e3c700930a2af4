"""Figures and the large table: which data they show, when there is none, and that they are written as text."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from support.made_scores import drawn, table

from swinssl.core.errors import UserError
from swinssl.evaluation.comparison.convergence import TrainingCurve
from swinssl.evaluation.comparison.model_comparison import compare_models
from swinssl.evaluation.comparison.score_table import ScoreTable
from swinssl.evaluation.comparison.study import make_study
from swinssl.evaluation.encoders.cka_curves import cka_curves_figure, read_cka
from swinssl.evaluation.report.figures import large_table, style
from swinssl.evaluation.report.figures.convergence import convergence_figure
from swinssl.evaluation.report.figures.critical_difference import critical_difference_figure
from swinssl.evaluation.report.figures.differences import differences_figure
from swinssl.evaluation.report.figures.drawing import draw_study
from swinssl.evaluation.report.figures.few_shot import few_shot_figure, shot_accuracies
from swinssl.evaluation.report.figures.modality import modality_differences, modality_figure
from swinssl.evaluation.report.figures.order import order_figure
from swinssl.evaluation.report.figures.organ_groups import organ_groups_figure
from swinssl.evaluation.report.figures.scaling import scaling_figure, size_accuracies
from swinssl.evaluation.report.figures.scores import scores_figure
from swinssl.evaluation.report.figures.task_accuracy import task_accuracy_figure
from swinssl.evaluation.statistics.bootstrap import mean_interval

LEVELS = {"scratch": 0.5, "smit": 0.7, "simmim": 0.65}


def joined(*tables):
    return ScoreTable(tuple(score for one in tables for score in one.scores))


@pytest.fixture(scope="module")
def comparison():
    return compare_models(drawn(LEVELS), named=["smit:scratch"])


@pytest.fixture(scope="module")
def tasks():
    """Two modalities of other patients, each with few and many shots."""
    return joined(
        *(
            drawn(
                {name: level - drop for name, level in LEVELS.items()},
                cases=cases,
                name=modality,
                modality=modality,
                shots=shots,
                rng=cases,
            )
            for modality, cases in (("CT", 12), ("MR", 9))
            for shots, drop in (("many", 0.0), ("5", 0.2))
        )
    )


def lines_of(figure):
    return [line for axes in figure.axes for line in axes.get_lines()]


def test_a_difference_is_drawn_at_its_estimate_and_filled_where_it_is_significant(comparison):
    (axes,) = differences_figure(comparison).axes
    by_row = {int(line.get_ydata()[0]): line for line in axes.get_lines() if len(line.get_ydata()) == 1}
    names = [label.get_text() for label in axes.get_yticklabels()]
    for pairwise in comparison.tests:
        name = f"{pairwise.compared.first} - {pairwise.compared.second}"
        row = names.index(name if pairwise.scope.is_all else f"{name}, {pairwise.scope.name}")
        assert by_row[row].get_xdata()[0] == pytest.approx(pairwise.compared.effect)
        assert (by_row[row].get_markerfacecolor() != "white") == (pairwise.p < 0.05)


def test_every_patient_is_a_point(comparison):
    figure = scores_figure(comparison)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == ["all structures", "left", "right"]
    points = [len(own.get_offsets()) for axes in shown for own in axes.collections]
    assert points == [20] * 3 * 3


def test_ranks_and_orders_are_drawn_where_they_are_permitted(comparison):
    texts = [text.get_text() for text in critical_difference_figure(comparison.ranking).axes[0].texts]
    assert any(text.startswith("smit (1.") for text in texts)
    few = compare_models(drawn(LEVELS, cases=5))
    assert critical_difference_figure(few.ranking) is None
    labels = [label.get_text() for label in order_figure(comparison).axes[0].get_yticklabels()]
    assert labels == ["smit", "simmim", "scratch"]


def test_tasks_and_groups_have_a_panel_each(tasks):
    titles = [axes.get_title() for axes in task_accuracy_figure(tasks).axes if axes.get_visible()]
    assert titles == ["CT, many shots", "CT, 5 shots", "MR, many shots", "MR, 5 shots"]
    assert task_accuracy_figure(drawn(LEVELS)) is None
    one = drawn(LEVELS)
    figure = organ_groups_figure(one, {"both": ("left", "right"), "gone": ("liver",)})
    assert [axes.get_title() for axes in figure.axes] == ["both (2)"]
    dots = [float(line.get_xdata()[0]) for line in lines_of(figure) if len(line.get_xdata()) == 1]
    assert np.mean(list(one.unit_means("smit").values())) in dots


def test_modalities_are_compared_within_a_task_and_its_shots(tasks):
    many = ScoreTable(tuple(score for score in tasks.scores if score.shots == "many"))
    own = modality_differences(many)["smit"]
    assert (own.first, own.second, len(own.first_values), len(own.second_values)) == ("CT", "MR", 12, 9)
    titles = [axes.get_title() for axes in modality_figure(tasks).axes if axes.get_visible()]
    assert titles == ["many shots\n12 CT, 9 MR patients", "5 shots\n12 CT, 9 MR patients"]
    assert modality_figure(drawn(LEVELS)) is None


def test_shots_rise_and_the_gap_is_to_the_best_of_the_task(tasks):
    ct = ScoreTable(tuple(score for score in tasks.scores if score.modality == "CT"))
    found = shot_accuracies(ct)
    assert list(found)[:2] == [("scratch", "5"), ("scratch", "many")]
    _, gaps = few_shot_figure(ct).axes
    assert [label.get_text() for label in gaps.get_xticklabels()] == ["5", "many"]
    best = max(one.mean for one in found.values())
    drawn_gaps = np.concatenate([line.get_ydata() for line in gaps.get_lines()])
    assert drawn_gaps == pytest.approx([(one.mean - best) / best * 100 for one in found.values()])
    assert few_shot_figure(drawn(LEVELS)) is None and few_shot_figure(ct, metric="HD95_mm") is None


def test_sizes_are_joined_by_a_line_where_each_has_one_model():
    parts = [drawn({f"smit {n}": 0.5 + n / 20000}, volumes=float(n), rng=n) for n in (3000, 0)]
    both = joined(*parts)
    assert [(size, model) for size, model, _ in size_accuracies(both, "volumes")] == [
        (0, "smit 0"),
        (3000, "smit 3000"),
    ]
    (line,) = lines_of(scaling_figure(both, "volumes"))
    assert line.get_xdata().tolist() == [0, 3000]
    twice = joined(both, drawn({"dino": 0.6}, volumes=0.0))
    assert all(line.get_linestyle() == "None" for line in lines_of(scaling_figure(twice, "volumes")))
    assert scaling_figure(both, "parameters") is None


def test_convergence_is_the_mean_of_runs_with_a_marker_a_run():
    runs = [TrainingCurve("a", ((1, 1.0), (2, 0.5)), ((1, 0.1), (2, top))) for top in (0.6, 0.8)]
    _, scores = convergence_figure(runs).axes
    assert scores.get_lines()[0].get_ydata() == pytest.approx([0.1, 0.7])
    assert len(scores.collections[0].get_offsets()) == 2
    assert convergence_figure([]) is None


def test_cka_curves_are_those_of_the_files(tmp_path):
    curve = [{"block_A": b, "block_B": b, "cka": v, "standard_error": 0.01} for b, v in (("1.1", 0.9), ("2.1", None))]
    (tmp_path / "cka.json").write_text(json.dumps({"curve": curve}))
    name, found = read_cka(f"5 shots={tmp_path}")
    figure = cka_curves_figure({"": {name: found}})
    values = figure.axes[0].containers[0].lines[0].get_ydata()
    assert values[0] == 0.9 and np.isnan(values[1])
    two = cka_curves_figure({"smit": {name: found}, "dino": {name: found, "20 shots": found}})
    assert [axes.get_title() for axes in two.axes] == ["smit", "dino"]
    assert [text.get_text() for text in two.legends[0].get_texts()] == ["5 shots"]
    with pytest.raises(UserError, match="no comparison of encoders here"):
        read_cka("x=/nowhere/cka.json")


def test_the_large_table_has_mean_and_sd_over_patients_and_marks_the_best(tmp_path):
    scores = table(
        ("a", 0, "x", "s", 0.5), ("a", 0, "y", "s", 0.7), ("b|c", 0, "x", "s", 0.9), ("b|c", 0, "y", "s", None)
    )
    found = large_table.large_table(scores)
    assert large_table.markdown(found).splitlines()[2:] == ["| a | 0.600 (0.141) |", "| b\\|c | **0.900** |"]
    names = large_table.write_table(found, tmp_path)
    assert names == ("table.md", "table.html", "table.csv")
    assert "<td><b>0.900</b></td>" in (tmp_path / "table.html").read_text()
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert float(rows[0]["sd"]) == pytest.approx(np.std([0.5, 0.7], ddof=1)) and rows[1]["sd"] == ""


@pytest.mark.slow
def test_all_figures_there_are_data_for_are_written_twice_with_text_as_text(tasks, tmp_path):
    study = make_study(tasks, reference="scratch")
    names = draw_study(study, tasks, tmp_path, groups={"both": ("left", "right")})
    assert {"task_accuracy", "modality", "few_shot", "CT_5_shots/organ_groups", "MR_many_shots/scores"} <= set(names)
    assert not {"volumes", "convergence", "cka_curves"} & set(names)
    for name in names:
        assert (tmp_path / f"{name}.png").stat().st_size > 1000
        assert "<text" in (tmp_path / f"{name}.svg").read_text()


def test_the_same_figure_is_the_same_file(comparison, tmp_path):
    for folder in ("a", "b"):
        style.save(differences_figure(comparison), tmp_path / folder, "x")
    assert (tmp_path / "a" / "x.svg").read_bytes() == (tmp_path / "b" / "x.svg").read_bytes()


def test_an_accuracy_s_interval_is_the_bootstrap_s():
    values = [0.1, 0.5, 0.7, 0.2]
    low, high = mean_interval(values)
    assert 0.1 < low < np.mean(values) < high < 0.7
