"""Reading scores: metrics.csv as swinssl_evaluate writes it, long and wide tables, and what is wrong with a file."""

from __future__ import annotations

import pytest
from support.made_results import ORGAN, TUMOUR, evaluation, metrics

from swinssl.core.errors import UserError
from swinssl.evaluation.comparison.score_files import read_scores
from swinssl.evaluation.summary import metrics_csv


@pytest.fixture
def run(tmp_path):
    """A folder with the metrics.csv of two cases, the tumour missed in the second."""
    found = evaluation(
        {"organ": metrics(90, 10, 10, hd95=2.0), "tumour": metrics(5, 5, 5)},
        {"organ": metrics(80, 20, 20), "tumour": metrics(0, 0, 7)},
        structures=(ORGAN, TUMOUR),
    )
    (tmp_path / "metrics.csv").write_text(metrics_csv(found))
    return tmp_path


def written(folder, text):
    (folder / "table.csv").write_text(text)
    return str(folder / "table.csv")


def test_metrics_csv_is_read_as_it_was_written(run):
    scores = read_scores([f"smit={run}", f"smit={run / 'metrics.csv'}", f"scratch={run}"])
    assert scores.models == ("smit", "scratch")
    assert (scores.seeds("smit"), scores.seeds("scratch")) == (("0", "1"), ("0",))
    assert scores.structures == ("organ", "tumour")
    assert scores.unit_means("smit") == pytest.approx({"a": (0.9 + 0.5) / 2, "b": (0.8 + 0) / 2})
    # The tumour that was missed has no distance.
    assert scores.unit_means("smit", metric="HD95_mm", structures=["tumour"]) == {"a": 1.0}


def test_a_fold_s_folder_is_looked_into(run, tmp_path):
    (fold := tmp_path / "fold_0" / "validation").mkdir(parents=True)
    (run / "metrics.csv").rename(fold / "metrics.csv")
    assert read_scores([f"a={tmp_path / 'fold_0'}"]).models == ("a",)


def test_a_long_table_has_everything_and_other_programs_names(tmp_path):
    text = (
        "Init;Seed;Case;Group;Modality;Structure;dsc;hd95\nsmit;3;c1;p1;MR;liver;0.9;4.5\nsmit;3;c2;p1;MR;liver;0.8;\n"
    )
    one, two = read_scores([written(tmp_path, text)]).scores
    assert (one.model, one.seed, one.case, one.patient, one.modality) == ("smit", "3", "c1", "p1", "MR")
    assert one.values == {"Dice": 0.9, "HD95_mm": 4.5} and two.values == {"Dice": 0.8}


def test_a_wide_table_has_a_column_a_structure(tmp_path):
    text = "init,seed,steps,minutes,case,left,right,mean\nsmit,0,1500,5.1,c1,0.9,,0.9\n"
    scores = read_scores([written(tmp_path, text)])
    assert [(s.structure, dict(s.values)) for s in scores.scores] == [("left", {"Dice": 0.9}), ("right", {})]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no scores in it"),
        ("case,structure,Dice\nc,s,0.5\n", "Give it as NAME="),
        ("model,structure,Dice\na,s,0.5\n", "no column 'case'"),
        ("model,case,structure\na,c,s\n", "no column with scores"),
        ("model,case,structure,Dice\na,c,s,good\n", "line 2, Dice is 'good'"),
        ("model,case,structure,HD95_mm\na,c,s,inf\n", "leave what is undefined empty"),
        ("model,case,structure,Dice\na,c,s\n", "line 2 has 3 fields, not 4"),
        ("model,case,structure,Dice\na,c,,0.5\n", "line 2 has no structure"),
        ("model,case,structure,Dice\na,c,s,0.5\na,c,s,0.6\n", "model a, seed 0, case c, s: there twice"),
        ("model,case,structure,Dice,dsc\na,c,s,0.5,0.5\n", "two columns have one name"),
    ],
)
def test_a_fault_is_named_with_its_place(tmp_path, text, said):
    with pytest.raises(UserError) as error:
        read_scores([written(tmp_path, text)])
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [("=x", "expected NAME=FOLDER"), ("a=/nowhere", "no metrics.csv here"), ("/nowhere.csv", "No such file")],
)
def test_what_is_not_there_is_said(given, said):
    with pytest.raises(UserError, match=said):
        read_scores([given])
